"""Mirrors sidecar/core/policy.py."""

from itertools import product
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.core.policy import (
    CACHED_PATHS,
    Limit,
    Plan,
    Policy,
    Route,
    Terms,
    regex,
    segments,
    specificity,
    ties,
)
from sidecar.core.usage import REQUESTS, Count, Lookup, Measured, MeterRule, When, meter_for

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


def policy(routes, plans=(), rules=(REQUESTS,)):
    def meters(route):
        found = [meter_for(rule, route.id) for rule in rules]
        return [meter for meter in found if meter is not None]

    return Policy("v", routes, plans, meters)


def terms(*limits, rules=(REQUESTS,), route=None, plan="pro"):
    route = route or Route("r")
    return policy([route], [Plan(plan, f"{plan}@3", limits)], rules).terms(plan, route)


def request(method="GET", **fields):
    return SimpleNamespace(method=method, fields={name.encode(): value for name, value in fields.items()})


class Facts(SimpleNamespace):
    status = 200
    method = "GET"
    request_bytes = 10
    response_bytes = 2_000
    duration_us = 1_500

    def request_header(self, name):
        return None

    def response_header(self, name):
        return None


# --- Which route -----------------------------------------------------------------------------------------------------


@given(PATTERN, PATH)
@example("/**/a/**", "/ab/a")
@example("/a/*", "/a/")
@example("/x.y", "/xzy")
def test_a_pattern_matches_what_its_plain_reading_matches(pattern, path):
    # Fails if `*` may be empty, if the atomic group loses its look-ahead, or if `**` needs one segment.
    assert bool(regex(pattern)(path)) is naive(segments(pattern), segments(path))


@given(st.lists(st.tuples(PATTERN, METHODS), min_size=1, max_size=6), PATH, st.sampled_from(["GET", "POST", "PUT"]))
def test_the_most_specific_of_all_matching_routes_wins(given_routes, path, method):
    routes = [Route(str(index), pattern, methods) for index, (pattern, methods) in enumerate(given_routes)]
    matching = [
        route
        for route in routes
        if (not route.methods or method in route.methods) and naive(segments(route.pattern), segments(path))
    ]
    best = max(map(specificity, matching), default=None)
    here = policy(routes)
    for _ in range(2):  # the second time from the cache
        found = here.match(method, path)
        assert (found is None) is (best is None)
        assert found is None or (found in matching and specificity(found) == best)


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


def test_a_route_with_methods_beats_the_same_path_without():
    here = policy([Route("any", "/a"), Route("post", "/a", frozenset({"POST"}))])
    assert here.match("POST", "/a").id == "post"
    assert here.match("GET", "/a").id == "any"


def test_the_order_of_the_routes_does_not_matter():
    routes = [Route("all"), Route("chat", "/v1/chat"), Route("v1", "/v1/**")]
    for order in (routes, routes[::-1]):
        assert policy(order).match("GET", "/v1/chat").id == "chat"


def test_no_route_matches_what_no_pattern_names():
    assert policy([Route("chat", "/v1/chat")]).match("GET", "/v2") is None


def test_different_literals_in_the_same_place_do_not_tie():
    assert ties([Route("a", "/a/*"), Route("b", "/b/*")]) == []


def test_one_path_divided_by_methods_does_not_tie():
    get, post = (Route(method, "/a", frozenset({method})) for method in ("GET", "POST"))
    assert ties([get, post]) == []
    assert ties([get, Route("other", "/a", frozenset({"GET", "PUT"}))])


def test_equally_specific_patterns_that_can_meet_tie():
    one, other = Route("a", "/**/a/**"), Route("b", "/**/b/**")
    assert ties([one, other]) == [(one, other)]


def test_a_scan_of_made_up_paths_does_not_grow_the_cache():
    # litellm #12685. Fails if `_match` never clears.
    here = policy([Route("a", "/a/*"), Route("all")])
    for number in range(CACHED_PATHS * 2 + 10):
        assert here.match("GET", f"/x/{number}").id == "all"
    assert sum(map(len, here._paths.values())) <= CACHED_PATHS
    assert here.match("GET", "/a/1").id == "a"


def test_no_path_makes_a_pattern_slow():
    # Backtracking over three `**` would take 4,000 cubed steps, which the timeout of the suite would not wait for.
    # Fails if the group between two `**` is not atomic.
    assert not regex("/**/b/**/b/**/b/**/b/**/c")("/b" * 4_000 + "/x")


# --- Terms -----------------------------------------------------------------------------------------------------------


def test_constant_costs_are_known_without_a_request():
    here = terms(Limit("a", "quota", 10), Limit("b", "concurrency", 4, meter=""))
    assert here.fixed_costs == (1, 1)
    assert here.costs(request()) is here.fixed_costs


def test_a_limit_holds_on_its_own_routes_only():
    chat, rest = Route("chat", "/chat"), Route("rest")
    here = policy([chat, rest], [Plan("p", "p@1", (Limit("a", "quota", 1, routes=frozenset({"chat"})),))])
    assert [len(here.terms("p", route).limits) for route in (chat, rest)] == [1, 0]


def test_a_limit_over_a_meter_that_cannot_apply_on_a_route_is_not_asked_there():
    rule = MeterRule("m", when=When(routes=frozenset({"other"})))
    assert terms(Limit("a", "quota", 1, meter="m"), rules=[rule]).limits == ()


def test_an_unknown_plan_has_no_terms_and_nobody_has_terms_without_limits():
    here = policy([Route("r")], [Plan("p", "p@1", (Limit("a", "quota", 1),))])
    assert here.terms("nope", here.routes[0]) is None
    nobody = here.terms("", here.routes[0])
    assert (nobody.limits, nobody.plan, [meter.id for meter in nobody.meters]) == ((), "", ["requests"])


def test_terms_carry_the_label_of_the_plan():
    assert terms().plan == "pro@3"


def test_a_route_with_a_feature_is_for_plans_that_have_it():
    route = Route("r", feature="chat")
    here = policy([route], [Plan("free", "free@1"), Plan("pro", "pro@1", features=frozenset({"chat"}))])
    assert [here.terms(plan, route).entitled for plan in ("free", "pro", "")] == [False, True, False]


def test_a_quantity_known_only_afterwards_reserves_and_then_settles_to_the_truth():
    # A byte quota that asked for 0 units would let everything pass after it is used up. Fails if `reserve` may be 0.
    here = terms(Limit("bytes", "quota", 10, meter="egress"), rules=[MeterRule("egress", Measured("response.bytes"))])
    assert here.fixed_costs == (1,)
    assert here.truth(here.measure(Facts())) == (2_000,)


def test_an_estimate_is_reserved_where_the_limit_says_so():
    limit = Limit("bytes", "quota", 10_000, meter="egress", reserve=4096)
    assert terms(limit, rules=[MeterRule("egress", Measured("response.bytes"))]).fixed_costs == (4096,)


def test_a_request_that_turns_out_not_to_count_settles_to_nothing():
    here = terms(Limit("a", "quota", 10))
    assert here.costs(request()) == (1,)
    assert here.truth(here.measure(Facts(status=503))) == (0,)


def test_a_slot_is_given_back_in_every_ending():
    # eliza #9904: the truth of a slot is unlike its cost, so it is always settled.
    here = terms(Limit("slots", "concurrency", 4, meter=""))
    for status in (200, 404, 502):
        assert here.truth(here.measure(Facts(status=status))) == (0,)


def test_costs_by_method_are_shared_between_requests():
    rule = MeterRule("calls", Lookup("method", {"GET": 1, "POST": 5}, 2))
    here = terms(Limit("a", "quota", 10, meter="calls"), rules=[rule])
    assert here.fixed_costs is None
    assert [here.costs(request(method)) for method in ("GET", "POST", "PUT")] == [(1,), (5,), (2,)]
    assert here.costs(request("POST")) is here.costs(request("POST"))


def test_costs_by_header_are_worked_out_for_each_request():
    rule = MeterRule("calls", Lookup("header.x-tier", {"gold": 10}, 1))
    here = terms(Limit("a", "quota", 10, meter="calls"), rules=[rule])
    assert here.costs(request(**{"x-tier": b"gold"})) == (10,)
    assert here.costs(request()) == (1,)


def test_usage_that_depends_on_the_status_alone_is_measured_once_and_shared():
    here = terms(Limit("a", "quota", 10))
    first = here.measure(Facts())
    assert here.measure(Facts(method="POST")) is first
    assert here.truth(first) is here.truth(first)
    assert here.measure(Facts(status=500)) == {"requests": 0}


def test_usage_by_method_is_not_shared_between_methods():
    # Fails if the memo's key leaves the method out.
    here = terms(rules=[MeterRule("writes", when=When(methods=frozenset({"POST"})))])
    assert [here.measure(Facts(method=method))["writes"] for method in ("GET", "POST", "GET")] == [0, 1, 0]


def test_usage_of_bytes_is_measured_for_each_exchange():
    here = terms(
        Limit("a", "quota", 9, meter="egress"), rules=[REQUESTS, MeterRule("egress", Measured("response.bytes"))]
    )
    for size in (0, 5, 7):
        usage = here.measure(Facts(response_bytes=size))
        assert usage == {"requests": 1, "egress": size}  # litellm #37992: an explicit 0 is stated
        assert here.truth(usage) == (size,)


def test_every_meter_is_measured_whether_a_limit_uses_it_or_not():
    here = terms(rules=[REQUESTS, MeterRule("calls", Count(3))])
    assert here.measure(Facts()) == {"requests": 1, "calls": 3}


def test_terms_are_compared_by_object():
    one, other = Terms(Plan("p", "p@1"), Route("r"), ()), Terms(Plan("p", "p@1"), Route("r"), ())
    assert one != other
    assert all(pair[0] is pair[1] or pair[0] != pair[1] for pair in product((one, other), repeat=2))
