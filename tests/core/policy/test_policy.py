"""Mirrors sidecar/core/policy/policy.py."""

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.identity import Source
from sidecar.core.policy import CACHED_PATHS, Limit, Plan, Policy, Route, regex, specificity
from sidecar.core.usage import REQUESTS, Exclusion, Json, JsonTest, Measured, MeterRule, When, meter_for

SEGMENT = st.sampled_from(["a", "b", "ab", "*", "**", "x.y"])
PATTERN = st.lists(SEGMENT, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
PATH = st.lists(st.sampled_from(["a", "b", "ab", "", "x.y", "xzy"]), min_size=1, max_size=6).map(
    lambda parts: "/" + "/".join(parts)
)
METHODS = st.sampled_from([frozenset(), frozenset({"GET"}), frozenset({"GET", "POST"}), frozenset({"POST"})])


def policy(routes, plans=(), rules=(REQUESTS,), **more):
    def meters(route):
        found = [meter_for(rule, route.id, route.usage) for rule in rules]
        return [meter for meter in found if meter is not None]

    return Policy("v", routes, plans, meters, **more)


@given(st.lists(st.tuples(PATTERN, METHODS), min_size=1, max_size=6), PATH, st.sampled_from(["GET", "POST", "PUT"]))
def test_the_most_specific_of_all_matching_routes_wins(given_routes, path, method):
    routes = [Route(str(index), pattern, methods) for index, (pattern, methods) in enumerate(given_routes)]
    matching = [
        route for route in routes if (not route.methods or method in route.methods) and regex(route.pattern)(path)
    ]
    best = max(map(specificity, matching), default=None)
    here = policy(routes)
    for _ in range(2):  # the second time from the cache
        found = here.match(method, path)
        assert (found is None) is (best is None)
        assert found is None or (found in matching and specificity(found) == best)


def test_a_route_with_methods_beats_the_same_path_without():
    here = policy([Route("any", "/a"), Route("post", "/a", frozenset({"POST"}))])
    assert here.match("POST", "/a").id == "post"
    assert here.match("GET", "/a").id == "any"


def test_a_route_is_chosen_by_host_then_path_then_headers():
    # Mutation: the chosen route is cached by method and path alone: the second request gets the route of the first.
    beta = ((b"x-beta", frozenset({b"1"})),)
    here = policy(
        [
            Route("all"),
            Route("chat", "/chat"),
            Route("beta", "/chat", headers=beta),
            Route("eu", host="eu.example.com"),
            Route("any", "/chat", host="*.example.com"),
        ]
    )
    asked = [
        ("/chat", b"h", {}, "chat"),
        ("/chat", b"h", {b"x-beta": b"1"}, "beta"),
        ("/chat", b"h", {b"x-beta": b"2"}, "chat"),
        ("/chat", b"eu.example.com", {b"x-beta": b"1"}, "eu"),
        ("/chat", b"us.example.com", {}, "any"),
        ("/x", b"us.example.com", {}, "all"),
        ("/x", b"EU.example.com:80", {}, "eu"),
    ]
    for _ in range(2):  # the second time from the cache
        found = [here.match("GET", path, host, fields).id for path, host, fields, _ in asked]
        assert found == [name for *_, name in asked]


def test_a_single_route_with_a_host_is_not_for_other_hosts():
    here = policy([Route("eu", host="eu.example.com")])
    assert here.match("GET", "/", b"eu.example.com", {}).id == "eu"
    assert here.match("GET", "/", b"us.example.com", {}) is None


def test_paths_that_no_host_or_header_decides_are_looked_up_without_them():
    # Routes without them cost nothing more. Fails if all paths of a policy with such a route go the longer way.
    here = policy([Route("a", "/a"), Route("b", "/b", host="b.example"), Route("b2", "/b")])
    assert here.match("GET", "/a").id == "a"
    here._tries = ()
    here._choices = None
    assert here.match("GET", "/a").id == "a"


def test_the_order_of_the_routes_does_not_matter():
    routes = [Route("all"), Route("chat", "/v1/chat"), Route("v1", "/v1/**")]
    for order in (routes, routes[::-1]):
        assert policy(order).match("GET", "/v1/chat").id == "chat"


def test_no_route_matches_what_no_pattern_names():
    assert policy([Route("chat", "/v1/chat")]).match("GET", "/v2") is None


def test_a_scan_of_made_up_paths_does_not_grow_the_cache():
    # litellm #12685. Fails if `_match` never clears.
    here = policy([Route("a", "/a/*"), Route("h", "/h/*", host="h"), Route("all")])
    for number in range(CACHED_PATHS * 2 + 10):
        assert here.match("GET", f"/x/{number}").id == "all"
        assert here.match("GET", f"/h/{number}", b"h").id == "h"
    assert sum(map(len, here._paths.values())) + len(here._choices) <= CACHED_PATHS
    assert here.match("GET", "/a/1").id == "a"


def test_an_unknown_plan_has_no_terms_and_nobody_has_terms_without_limits():
    here = policy([Route("r")], [Plan("p", "p@1", (Limit("a", "quota", 1),))])
    assert here.terms("nope", here.routes[0]) is None
    nobody = here.terms("", here.routes[0])
    assert (nobody.limits, nobody.plan, [meter.id for meter in nobody.meters]) == ((), "", ["requests"])


def test_a_limit_holds_on_its_own_routes_only():
    chat, rest = Route("chat", "/chat"), Route("rest")
    here = policy([chat, rest], [Plan("p", "p@1", (Limit("a", "quota", 1, routes=frozenset({"chat"})),))])
    assert [len(here.terms("p", route).limits) for route in (chat, rest)] == [1, 0]


def test_a_route_with_a_feature_is_for_plans_that_have_it():
    route = Route("r", feature="chat")
    here = policy([route], [Plan("free", "free@1"), Plan("pro", "pro@1", features=frozenset({"chat"}))])
    assert [here.terms(plan, route).entitled for plan in ("free", "pro", "")] == [False, True, False]


def test_a_route_says_which_bodies_are_read_there_and_a_plain_one_none():
    rows = MeterRule("rows", Json("response", "/rows"), When(routes=frozenset({"data"})))
    dry = Exclusion("dry", When(routes=frozenset({"try"}), json=(JsonTest("request", "/dry"),)))
    routes = [Route("data", "/data"), Route("chat", "/chat", usage="openai"), Route("try", "/try"), Route("rest")]
    here = policy(routes, rules=[REQUESTS, rows], exclusions=[dry])
    reads = {route.id: set(route.reads) for route in here.routes}
    assert reads == {"data": {"response"}, "chat": {"request", "response"}, "try": {"request"}, "rest": set()}
    assert here.match("GET", "/data").reads == {"response"}
    assert here.terms("", here.match("GET", "/data")).reads == {"response"}


def test_an_exclusion_is_looked_at_on_its_own_routes_only():
    health = Exclusion("health", When(routes=frozenset({"health"})))
    here = policy([Route("health", "/health"), Route("rest")], exclusions=[health])
    assert {route.id: [found.id for found in here.terms("", route).exclusions] for route in here.routes} == {
        "health": ["health"],
        "rest": [],
    }
    assert here.exclusions == (health,)


def test_a_customer_with_terms_of_its_own_gets_them_on_top_of_its_plan_and_no_other():
    # Fails if the plan is left out of what they are found by: a customer who changes plans would keep the old terms.
    pro, free = Plan("pro", "pro@1", (Limit("a", "quota", 1),)), Plan("free", "free@1")
    own = Plan("pro", "pro@1+cust-9", (Limit("a", "quota", 5),), frozenset({"big"}))
    here = policy([Route("r", feature="big")], [pro, free], customers={"cust-9": own})
    route = here.routes[0]
    assert [here.terms("pro", route, who).limits[0].amount for who in ("cust-9", "cust-1", "")] == [5, 1, 1]
    assert [here.terms("pro", route, who).entitled for who in ("cust-9", "cust-1")] == [True, False]
    assert here.terms("free", route, "cust-9").plan == "free@1"
    assert here.terms("nope", route, "cust-9") is None
    assert here.terms("pro", route, "cust-9").plan == "pro@1+cust-9"
    assert here.terms("pro", route, "cust-9") is here.terms("pro", route, "cust-9")


def test_a_feature_is_offered_by_the_plans_that_have_it():
    plans = [Plan("free", ""), Plan("pro", "", (), frozenset({"big"})), Plan("max", "", (), frozenset({"big", "x"}))]
    here = policy([Route("r")], plans)
    assert [here.offering(feature) for feature in ("big", "x", "none")] == [("pro", "max"), ("max",), ()]


# Fails if the headers of one of meters, exclusions, routes and credentials are left out, or those of one route alone
# are taken.
def test_a_policy_tells_the_headers_that_it_reads():
    rows = MeterRule("rows", Measured("request.header.x-rows"), When(routes=frozenset({"a"})))
    here = policy(
        [
            Route("a", "/a", headers=((b"x-beta", frozenset()),)),
            Route("b", "/b", sources=(Source("header", "X-Token"), Source("query", "key"))),
        ],
        rules=(REQUESTS, rows),
        exclusions=(Exclusion("retry", When(routes=frozenset({"b"})), retries_us=1),),
    )
    assert here.headers == {b"x-rows", b"idempotency-key", b"x-beta"}
    assert here.carriers == {b"x-api-key", b"authorization", b"x-token"}
    assert here.late == here.headers | here.carriers
