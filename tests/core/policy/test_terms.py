"""Mirrors sidecar/core/policy/terms.py."""

from itertools import product
from types import SimpleNamespace

from sidecar.core.policy import Limit, Plan, Route, Terms
from sidecar.core.usage import REQUESTS, Count, Lookup, Measured, MeterRule, When, meter_for


def terms(*limits, rules=(REQUESTS,), route=None, plan="pro"):
    route = route or Route("r")
    found = [meter_for(rule, route.id) for rule in rules]
    return Terms(Plan(plan, f"{plan}@3", limits), route, [meter for meter in found if meter is not None])


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


def test_constant_costs_are_known_without_a_request():
    here = terms(Limit("a", "quota", 10), Limit("b", "concurrency", 4, meter=""))
    assert here.fixed_costs == (1, 1)
    assert here.costs(request()) is here.fixed_costs


def test_a_limit_over_a_meter_that_cannot_apply_on_a_route_is_not_asked_there():
    rule = MeterRule("m", when=When(routes=frozenset({"other"})))
    assert terms(Limit("a", "quota", 1, meter="m"), rules=[rule]).limits == ()


def test_terms_carry_the_label_of_the_plan():
    assert terms().plan == "pro@3"


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
