"""Mirrors sidecar/core/policy/patterns.py."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.core.policy import Route, glob, head_test, host_name, regex, segments, specificity, ties

SEGMENT = st.sampled_from(["a", "b", "ab", "*", "**", "x.y"])
PATTERN = st.lists(SEGMENT, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
PATH = st.lists(st.sampled_from(["a", "b", "ab", "", "x.y", "xzy"]), min_size=1, max_size=6).map(
    lambda parts: "/" + "/".join(parts)
)
METHODS = st.sampled_from([frozenset(), frozenset({"GET"}), frozenset({"GET", "POST"}), frozenset({"POST"})])


def naive(pattern, path):
    """What a glob means, written as plainly as can be."""
    if not pattern or not path:
        return all(part == "**" for part in pattern) and not path
    if pattern[0] == "**":
        return naive(pattern[1:], path) or naive(pattern, path[1:])
    return (pattern[0] == path[0] or (pattern[0] == "*" and path[0] != "")) and naive(pattern[1:], path[1:])


@given(PATTERN, PATH)
@example("/**/a/**", "/ab/a")
@example("/a/*", "/a/")
@example("/x.y", "/xzy")
def test_a_pattern_matches_what_its_plain_reading_matches(pattern, path):
    # Fails if `*` may be empty, if the atomic group loses its look-ahead, or if `**` needs one segment.
    assert bool(regex(pattern)(path)) is naive(segments(pattern), segments(path))


@given(st.lists(st.tuples(PATTERN, METHODS), min_size=2, max_size=4), PATH, st.sampled_from(["GET", "POST"]))
def test_without_ties_at_most_one_route_is_the_most_specific(given_routes, path, method):
    routes = [Route(str(index), pattern, methods) for index, (pattern, methods) in enumerate(given_routes)]
    if ties(routes):
        return
    matching = [
        specificity(route)
        for route in routes
        if (not route.methods or method in route.methods) and naive(segments(route.pattern), segments(path))
    ]
    assert not matching or matching.count(max(matching)) == 1  # Fails if `_meet` treats two different literals alike


@pytest.mark.parametrize(
    ("more", "less"),
    [
        ("/a", "/*"),
        ("/a", "/a/**"),
        ("/a/*", "/a/**"),
        ("/a/*/c", "/a/**/c"),
        ("/a/**/c", "/a/**"),
        ("/a/b/**", "/a/*/c"),
        ("/*", "/**"),
    ],
)
def test_a_literal_beats_a_star_that_the_end_that_two_stars(more, less):
    assert specificity(Route("", more)) > specificity(Route("", less))


def test_different_literals_in_the_same_place_do_not_tie():
    assert ties([Route("a", "/a/*"), Route("b", "/b/*")]) == []


def test_one_path_divided_by_methods_does_not_tie():
    get, post = (Route(method, "/a", frozenset({method})) for method in ("GET", "POST"))
    assert ties([get, post]) == []
    assert ties([get, Route("other", "/a", frozenset({"GET", "PUT"}))])


ONE, TWO = (b"x-tier", frozenset({b"1"})), (b"x-tier", frozenset({b"2"}))
ANY_TIER, ANY_BETA = (b"x-tier", frozenset()), (b"x-beta", frozenset())


@pytest.mark.parametrize(
    ("more", "less"),
    [
        (Route("", host="a.example.com"), Route("", host="*.a.example.com")),
        (Route("", host="a.example"), Route("", host="*.x.a.example.com")),
        (Route("", host="*.a.example.com"), Route("", host="*.example.com")),
        (Route("", host="*.example.com"), Route("", "/a")),
        (Route("", "/a"), Route("", headers=(ANY_BETA, ONE))),
        (Route("", methods=frozenset({"GET"})), Route("", headers=(ONE,))),
        (Route("", headers=(ANY_BETA, ANY_TIER)), Route("", headers=(ONE,))),
        (Route("", headers=(ONE,)), Route("", headers=(ANY_TIER,))),
        (Route("", headers=(ANY_TIER,)), Route("")),
    ],
)
def test_a_host_comes_before_the_path_and_headers_come_last(more, less):
    assert specificity(more) > specificity(less)


@pytest.mark.parametrize(
    ("one", "other", "tie"),
    [
        (Route("", host="a.example.com"), Route("", host="b.example.com"), False),
        (Route("", host="*.a.example"), Route("", host="*.b.example"), False),
        (Route("", host="*.a.example"), Route("", host="*.a.example"), True),
        (Route("", headers=(ONE,)), Route("", headers=(TWO,)), False),
        (Route("", headers=(ANY_BETA,)), Route("", headers=(ANY_TIER,)), True),
        (Route("", headers=(ONE, ANY_BETA)), Route("", headers=(ANY_BETA, TWO)), False),
        (Route("", headers=(ONE,)), Route("", headers=((b"x-tier", frozenset({b"1", b"2"})),)), True),
    ],
)
def test_routes_tie_only_where_a_request_has_the_host_and_the_headers_of_both(one, other, tie):
    # Fails if `ties` ignores hosts, or takes two values of one header for values that a request can have at once.
    assert bool(ties([one, other])) is tie


@pytest.mark.parametrize(
    ("field", "name"),
    [
        (b"API.Example.com:8080", "api.example.com"),
        (b"api.example.com.", "api.example.com"),
        (b"api.example.com.:80", "api.example.com"),
        (b"%61pi.example.com", "api.example.com"),
        (b"[::1]:80", "[::1]"),
        (b"[::1]", "[::1]"),
        (b"%ff", "\xff"),
        (b"", ""),
    ],
)
def test_a_host_is_compared_in_one_spelling(field, name):
    assert host_name(field) == name


@pytest.mark.parametrize(
    ("pattern", "host", "matches"),
    [
        ("api.example.com", b"API.example.com:1", True),
        ("api.example.com", b"x.api.example.com", False),
        ("*.example.com", b"a.example.com", True),
        ("*.example.com", b"a.b.example.com", True),
        ("*.example.com", b"example.com", False),
        ("*.example.com", b".example.com", False),
        ("*.example.com", b"badexample.com", False),
        ("*.example.com", b"", False),
    ],
)
def test_a_star_is_one_or_more_labels_of_a_host(pattern, host, matches):
    test = head_test(Route("", host=pattern))
    assert test is not None
    assert test(host, {}) is matches


def test_all_headers_of_a_route_have_to_match_in_upper_and_lower_case():
    test = head_test(Route("", headers=((b"x-tier", frozenset({b"gold", b"Silver"})), ANY_BETA)))
    assert test is not None
    heads = [{b"x-tier": b"gold", b"x-beta": b""}, {b"x-tier": b"Silver", b"x-beta": b"1"}]
    assert all(test(b"h", head) for head in heads)
    others = [{b"x-tier": b"gold"}, {b"x-beta": b"1"}, {b"x-tier": b"silver", b"x-beta": b"1"}, {}]
    assert not any(test(b"h", head) for head in others)


def test_a_route_without_host_and_headers_has_no_test_of_the_head():
    assert head_test(Route("", "/a", frozenset({"GET"}))) is None


def test_equally_specific_patterns_that_can_meet_tie():
    one, other = Route("a", "/**/a/**"), Route("b", "/**/b/**")
    assert ties([one, other]) == [(one, other)]


def test_no_path_makes_a_pattern_slow():
    # Backtracking over three `**` would take 4,000 cubed steps, which the timeout of the suite would not wait for.
    # Fails if the group between two `**` is not atomic.
    assert not regex("/**/b/**/b/**/b/**/b/**/c")("/b" * 4_000 + "/x")


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("gpt-4*", "gpt-4", True),
        ("gpt-4*", "gpt-4o\n", True),
        ("gpt-4*", "xgpt-4", False),
        ("gpt-4", "gpt-4o", False),
        ("*_getLogs", "eth_getLogs", True),
        ("a*b*c", "a-b-c", True),
        ("a*b*c", "a-c", False),
        ("a*a", "a", False),
        ("*", "", True),
        ("a.c", "abc", False),
        ("[a]?", "a", False),
        ("Gpt*", "gpt-4", False),
    ],
)
def test_a_glob_matches_whole_names_letter_by_letter(pattern, name, matches):
    assert bool(glob(pattern)(name)) is matches


def test_no_name_makes_a_glob_slow():
    # A client names its methods and models. Fails if what stands between two stars is looked for again and again.
    assert not glob("*a*a*a*a*a*b")("a" * 20_000)
