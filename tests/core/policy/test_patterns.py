"""Mirrors sidecar/core/policy/patterns.py."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.core.policy import Route, glob, regex, segments, specificity, ties

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
