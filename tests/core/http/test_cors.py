"""Mirrors sidecar/core/http/cors.py."""

import pytest

from sidecar.core.http.cors import ORIGINS_MAX, Cors, UpstreamOrigins, origin_of, preflighted_method, with_cors
from sidecar.core.http.request import HeadLimits, read_request
from sidecar.core.http.response import ResponseHead, read_response

PAGE = "https://app.example"
ONE = Cors(frozenset({PAGE}))
ALL = Cors(frozenset({"*"}))


def request(*fields, method="OPTIONS"):
    pairs = [(b"Host", b"h"), *(tuple(field.encode("latin-1").split(b": ", 1)) for field in fields)]
    return read_request((method, b"/a", 1), pairs, HeadLimits())


def preflight(cors, *more, origin=PAGE):
    return dict(cors.preflight(request(f"Origin: {origin}", "Access-Control-Request-Method: POST", *more)).headers)


# Fails if the origin of the request is repeated without a look at the list.
def test_only_an_origin_of_the_list_is_named_and_caches_learn_that_it_matters():
    fields = dict(ONE.answer_fields(request(f"Origin: {PAGE}")))
    assert fields[b"Access-Control-Allow-Origin"] == PAGE.encode()
    assert fields[b"Vary"] == b"Origin"
    assert b"Access-Control-Allow-Credentials" not in fields
    exposed = fields[b"Access-Control-Expose-Headers"].split(b", ")
    assert {b"Retry-After", b"RateLimit", b"RateLimit-Policy", b"X-Request-Id"} <= set(exposed)
    for other in ("https://evil.example", PAGE + ".evil.example", PAGE.upper(), "null", "é"):
        assert ONE.answer_fields(request(f"Origin: {other}")) == ((b"Vary", b"Origin"),)
    assert ONE.answer_fields(request()) == ((b"Vary", b"Origin"),)


def test_a_request_with_two_origins_has_no_valid_one():
    assert ONE.answer_fields(request(f"Origin: {PAGE}", f"Origin: {PAGE}")) == ((b"Vary", b"Origin"),)


def test_every_origin_is_a_star_that_caches_may_keep():
    assert dict(ALL.answer_fields(request("Origin: null")))[b"Access-Control-Allow-Origin"] == b"*"
    assert b"Vary" not in dict(ALL.answer_fields(request("Origin: null")))
    assert ALL.answer_fields(request()) == ()


def test_cookies_are_allowed_only_where_the_route_says_so():
    cookies = ONE._replace(credentials=True)
    assert dict(cookies.answer_fields(request(f"Origin: {PAGE}")))[b"Access-Control-Allow-Credentials"] == b"true"
    assert preflight(cookies)[b"Access-Control-Allow-Credentials"] == b"true"
    assert b"Access-Control-Allow-Credentials" not in preflight(ONE)


def test_a_preflight_is_allowed_the_method_and_the_fields_that_it_asks_for():
    fields = preflight(ONE, "Access-Control-Request-Headers: authorization,content-type")
    assert fields == {
        b"Vary": b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        b"Access-Control-Allow-Origin": PAGE.encode(),
        b"Access-Control-Allow-Methods": b"POST",
        b"Access-Control-Max-Age": b"600",
        b"Access-Control-Allow-Headers": b"authorization,content-type",
    }
    assert b"Access-Control-Allow-Headers" not in preflight(ONE)
    assert b"Access-Control-Allow-Headers" not in preflight(ONE, 'Access-Control-Request-Headers: a"b')


def test_a_list_of_fields_is_what_a_preflight_is_allowed():
    named = ONE._replace(headers=("Content-Type", "X-Api-Key"))
    assert preflight(named, "Access-Control-Request-Headers: x-other")[b"Access-Control-Allow-Headers"] == (
        b"Content-Type, X-Api-Key"
    )


def test_a_preflight_of_another_origin_is_allowed_nothing():
    assert list(preflight(ONE, origin="https://evil.example")) == [b"Vary"]


@pytest.mark.parametrize(
    ("fields", "method"),
    [
        (["Origin: https://a", "Access-Control-Request-Method: PUT"], "PUT"),
        (["Access-Control-Request-Method: PUT"], ""),
        (["Origin: https://a"], ""),
        (["Origin: https://a", "Access-Control-Request-Method: a b"], ""),
        (["Origin: https://a", "Access-Control-Request-Method: é"], ""),
    ],
)
def test_a_preflight_has_an_origin_and_a_method(fields, method):
    assert preflighted_method(request(*fields)) == method


# Fails if an upstream's own field gets a second one beside it: browsers refuse two.
def test_an_upstream_that_speaks_for_itself_is_passed_on_as_it_is():
    head = ResponseHead(200, b"OK", 1, [])
    ours = ONE.answer_fields(request(f"Origin: {PAGE}"))
    assert with_cors([(b"A", b"b")], ours, head) == ((b"A", b"b"), *ours)
    head.fields[b"access-control-allow-origin"] = b"*"
    assert with_cors([(b"A", b"b")], ours, head) == [(b"A", b"b")]


# What upstreams allow, for routes without `cors`.


def answered(*fields, status=200):
    return read_response((status, b"", 1), list(fields), "GET")


ALLOWED = (b"Access-Control-Allow-Origin", PAGE.encode())


def test_the_origin_that_an_upstream_allows_is_remembered_by_route():
    origins = UpstreamOrigins()
    origins.learn("a", PAGE.encode(), answered(ALLOWED))
    fields = dict(origins.fields("a", PAGE.encode()))
    assert (fields[b"Access-Control-Allow-Origin"], fields[b"Vary"]) == (PAGE.encode(), b"Origin")
    assert b"Access-Control-Allow-Credentials" not in fields
    # Fails if another page, or another route, is let in too.
    assert not origins.fields("a", b"https://other.example")
    assert not origins.fields("b", PAGE.encode())
    origins.learn("a", PAGE.encode(), answered(ALLOWED, (b"Access-Control-Allow-Credentials", b"true")))
    assert dict(origins.fields("a", PAGE.encode()))[b"Access-Control-Allow-Credentials"] == b"true"


def test_an_upstream_that_allows_another_origin_allows_none():
    origins = UpstreamOrigins()
    origins.learn("a", b"https://evil.example", answered(ALLOWED))
    assert not origins.fields("a", b"https://evil.example")
    assert not origins.fields("a", PAGE.encode())


@pytest.mark.parametrize("allowed", [PAGE.encode(), b"*"])
def test_an_upstream_that_allows_it_no_more_is_followed_and_its_errors_are_not(allowed):
    origins = UpstreamOrigins()
    origins.learn("a", PAGE.encode(), answered((b"Access-Control-Allow-Origin", allowed)))
    origins.learn("a", PAGE.encode(), answered(status=500))
    assert origins.fields("a", PAGE.encode())
    origins.learn("a", PAGE.encode(), answered())
    assert not origins.fields("a", PAGE.encode())


def test_the_origins_of_upstreams_are_bounded():
    origins = UpstreamOrigins()
    for number in range(ORIGINS_MAX + 1):
        origin = b"https://%d.example" % number
        origins.learn("a", origin, answered((b"Access-Control-Allow-Origin", origin)))
    assert len(origins._fields) == ORIGINS_MAX
    assert origins.fields("a", origin)
    assert not origins.fields("a", b"https://0.example")


@pytest.mark.parametrize(
    ("fields", "origin"),
    [
        ((), b""),
        ((f"Origin: {PAGE}",), PAGE.encode()),
        ((f"Origin: {PAGE}", "Origin: https://evil.example"), b""),
        (("Origin: https://" + "x" * 256,), b""),
    ],
)
def test_a_request_is_of_one_origin(fields, origin):
    assert origin_of(request(*fields)) == origin
