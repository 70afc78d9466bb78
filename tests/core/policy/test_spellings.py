"""Mirrors sidecar/core/policy/spellings.py."""

import pytest

from sidecar.core.http.path import normal_path
from sidecar.core.policy import Limit, Route, escapes
from sidecar.core.usage import REQUESTS, Measured, MeterRule, When
from tests.stage import policy

CHAT = "/v1/chat/completions"
REST = Route("rest")


def taken(*routes, **more):
    return {
        (each.route.id, path, each.other.id, *each.missing)
        for each in escapes(policy(routes=routes, **more))
        for _, path in each.paths
    }


def test_spellings_that_lenient_servers_equate_reach_a_route_without_the_feature():
    # Express, ASP.NET and Spring. Fails if one of SPELLINGS is left out.
    assert taken(Route("chat", CHAT, frozenset({"POST"}), feature="chat"), REST) == {
        ("chat", path, "rest", "feature chat")
        for path in (CHAT + "/", "/V1/CHAT/COMPLETIONS", CHAT + ";x=1", CHAT + ".", CHAT + "%20")
    }


def test_the_paths_are_in_the_form_in_which_they_are_matched():
    # Spellings that normalise to the path itself (`/v1/%63hat`, `//v1`) match the route, so they are not named.
    paths = {path for _, path, *_ in taken(Route("a", "/%C3%BC/x", feature="f"), REST)}
    assert paths == {"/%C3%BC/x/", "/%C3%BC/X", "/%C3%BC/x;x=1", "/%C3%BC/x.", "/%C3%BC/x%20"}
    assert {normal_path(path.encode()) for path in paths} == paths


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("/v1/", {"/v1", "/V1/", "/v1;x=1/"}),
        ("/v1/**", {"/V1/any", "/v1;x=1/any"}),
        ("/v1/*", {"/v1/any/", "/V1/any", "/v1;x=1/any"}),
        ("/a/**/b", {"/a/b/", "/A/B", "/a/b;x=1", "/a/b.", "/a/b%20"}),
        ("/@me/a:b", {"/@me/a:b/", "/@ME/A:B", "/@me/a:b;x=1", "/@me/a:b.", "/@me/a:b%20", "/%40me/a%3Ab"}),
        ("/%40", {"/%40/", "/%40;x=1", "/%40.", "/%40%20", "/@"}),
        ("/*/a%3Ab", {"/any/a%3Ab/", "/any/A%3AB", "/any/a%3Ab;x=1", "/any/a%3Ab.", "/any/a%3Ab%20", "/any/a:b"}),
        ("/API", {"/API/", "/api", "/API;x=1", "/API.", "/API%20"}),
    ],
)
def test_paths_that_the_pattern_itself_matches_are_left_out(pattern, paths):
    found = {path for _, path, *_ in taken(Route("a", pattern, feature="f"), REST)}
    assert found == paths


@pytest.mark.parametrize(
    ("gated", "other", "missing"),
    [
        (Route("a", "/a", feature="f"), Route("rest", feature="f"), ()),
        (Route("a", "/a", feature="f"), Route("rest", feature="g"), ("feature f",)),
        (Route("a", "/a"), Route("rest", unattributed="allow"), ("a key",)),
        (Route("a", "/a", unattributed="allow"), Route("rest"), ()),
        (Route("a", "/a", models=(("gpt-4*", "big"),)), Route("rest"), ("feature big for models gpt-4*",)),
        (Route("a", "/a"), Route("rest"), ()),
    ],
)
def test_a_route_escapes_only_to_one_that_lacks_something_of_it(gated, other, missing):
    found = {tuple(each.missing) for each in escapes(policy(routes=[gated, other]))}
    assert found == ({missing} if missing else set())


def test_limits_and_meters_of_the_route_alone_are_missing_on_the_other():
    rows = MeterRule("rows", Measured("response.bytes"), When(routes=frozenset({"a"})))
    pace = Limit("pace", "quota", 5, calendar="month", routes=frozenset({"a"}))
    everywhere = Limit("monthly", "quota", 5, calendar="month")
    [escape] = escapes(policy(pace, everywhere, routes=[Route("a", "/a"), REST], rules=(REQUESTS, rows)))
    assert escape.missing == ["limit pace", "meter rows"]


def test_where_no_broader_route_takes_them_they_are_not_found():
    assert taken(Route("a", "/a", feature="f"), Route("b", "/b/**")) == set()
    assert taken(Route("a", "/a", frozenset({"POST"}), feature="f"), Route("rest", methods=frozenset({"GET"}))) == set()


def test_the_host_and_the_headers_of_the_route_are_those_of_the_request():
    beta = ((b"x-beta", frozenset({b"1"})), (b"x-on", frozenset()))
    gated = Route("a", "/a", host="*.example.com", headers=beta, feature="f")
    assert {other for _, _, other, _ in taken(gated, REST, Route("eu", host="*.example.com"))} == {"eu"}
    assert taken(gated, Route("us", host="us.example")) == set()
