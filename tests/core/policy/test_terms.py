"""Mirrors sidecar/core/policy/terms.py."""

import json
from itertools import product
from types import SimpleNamespace

import pytest

from sidecar.core.identity import Identity
from sidecar.core.policy import Limit, Plan, Route, Terms
from sidecar.core.price import Price
from sidecar.core.usage import (
    REQUESTS,
    Bodies,
    Count,
    Exclusion,
    Json,
    Lookup,
    Measured,
    MeterRule,
    Usage,
    When,
    meter_for,
)


def terms(*limits, rules=(REQUESTS,), route=None, plan="pro", exclusions=(), features=()):
    route = route or Route("r")
    found = [meter_for(rule, route.id, route.usage) for rule in rules]
    return Terms(
        Plan(plan, f"{plan}@3", limits, frozenset(features)),
        route,
        [meter for meter in found if meter is not None],
        [exclusion.on(route.id) for exclusion in exclusions],
    )


def request(method="GET", **fields):
    return SimpleNamespace(method=method, fields={name.encode(): value for name, value in fields.items()})


class Facts(SimpleNamespace):
    status = 200
    method = "GET"
    bytes_in = 10
    bytes_out = 2_000
    duration_us = 1_500
    tap = None

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
    assert here.actual_units(here.measure(Facts())) == (2_000,)


def test_an_estimate_is_reserved_where_the_limit_says_so():
    limit = Limit("bytes", "quota", 10_000, meter="egress", reserve=4096)
    assert terms(limit, rules=[MeterRule("egress", Measured("response.bytes"))]).fixed_costs == (4096,)


def test_a_request_that_turns_out_not_to_count_settles_to_nothing():
    here = terms(Limit("a", "quota", 10))
    assert here.costs(request()) == (1,)
    assert here.actual_units(here.measure(Facts(status=503))) == (0,)


def test_a_slot_is_given_back_in_every_ending():
    # eliza #9904: the truth of a slot is unlike its cost, so it is always settled.
    here = terms(Limit("slots", "concurrency", 4))
    for status in (200, 404, 502):
        assert here.actual_units(here.measure(Facts(status=status))) == (0,)


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
    assert here.actual_units(first) is here.actual_units(first)
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
        usage = here.measure(Facts(bytes_out=size))
        assert usage == {"requests": 1, "egress": size}  # litellm #37992: an explicit 0 is stated
        assert here.actual_units(usage) == (size,)


def test_every_meter_is_measured_whether_a_limit_uses_it_or_not():
    here = terms(rules=[REQUESTS, MeterRule("calls", Count(3))])
    assert here.measure(Facts()) == {"requests": 1, "calls": 3}


def test_terms_are_compared_by_object():
    one, other = Terms(Plan("p", "p@1"), Route("r"), ()), Terms(Plan("p", "p@1"), Route("r"), ())
    assert one != other
    assert all(pair[0] is pair[1] or pair[0] != pair[1] for pair in product((one, other), repeat=2))


# --- Bodies ----------------------------------------------------------------------------------------------------------


def tap(request=None, response=None, **read):
    found = Bodies()
    for side, body in (("request", request), ("response", response)):
        found.take(side, None if body is None else json.dumps(body).encode())
    return SimpleNamespace(
        calls=found.calls, known=found.known, number=found.number, text=found.text, model="",
        tokens=lambda kind, adapter: read.get(kind),
    )  # fmt: skip


ROWS = MeterRule("rows", Json("response", "/rows", default=3))
IMAGES = MeterRule("images", Json("request", "/n", default=1))
OUTPUT = MeterRule("output", Usage("output"))
CALLS = MeterRule("calls", Lookup("json_rpc_method", {"eth_getLogs": 75}, 10))


@pytest.mark.parametrize(
    ("rules", "route", "reads"),
    [
        ([REQUESTS, MeterRule("egress", Measured("response.bytes"))], Route("r"), set()),
        ([REQUESTS, ROWS], Route("r"), {"response"}),
        ([CALLS], Route("r"), {"request"}),
        ([IMAGES, ROWS], Route("r"), {"request", "response"}),
        ([OUTPUT], Route("r"), set()),  # no AI answers come here
        ([OUTPUT], Route("r", usage="openai"), {"request", "response"}),
        ([], Route("r", usage="auto"), {"request", "response"}),
        ([], Route("r", models=(("gpt-4*", "big"),)), {"request"}),
    ],
)
def test_a_body_is_read_only_where_something_looks_at_it(rules, route, reads):
    assert terms(rules=rules, route=route).reads == reads


def test_costs_in_the_request_s_body_are_worked_out_for_each_request():
    here = terms(Limit("a", "quota", 100, meter="calls"), Limit("b", "rate", 9), rules=[CALLS, REQUESTS])
    assert here.fixed_costs is None
    assert here.costs(request(), tap({"method": "eth_getLogs"})) == (75, 1)
    assert here.costs(request(), tap([{"method": "a"}, {"method": "eth_getLogs"}])) == (85, 1)
    assert here.costs(request(), tap(None)) == here.costs(request()) == (10, 1)


def test_what_only_the_answer_s_body_tells_costs_the_same_each_time():
    # Fails if a meter of answers is asked of each request: a route of rows would pay for it on every arrival.
    limit = Limit("a", "quota", 100, meter="rows", reserve=50)
    here = terms(limit, rules=[ROWS])
    assert here.fixed_costs == (50,)
    usage = here.measure(Facts(tap=tap(response={"rows": 7})))
    assert (usage, here.actual_units(usage)) == ({"rows": 7}, (7,))


def test_tokens_are_held_as_estimated_or_else_as_the_limit_says():
    here = terms(
        Limit("a", "quota", 10**6, meter="output", reserve=500), rules=[OUTPUT], route=Route("r", usage="openai")
    )
    assert here.costs(request(), tap(output=256)) == (256,)
    assert here.costs(request(), tap()) == (500,)
    assert here.actual_units(here.measure(Facts(tap=tap(output=95)))) == (95,)


def test_usage_of_bodies_is_measured_for_each_exchange():
    here = terms(rules=[REQUESTS, ROWS])
    for rows in (1, 0, 2):
        assert here.measure(Facts(tap=tap(response={"rows": rows}))) == {"requests": 1, "rows": rows}


def test_what_a_body_did_not_yield_is_named_and_has_its_default():
    here = terms(rules=[REQUESTS, ROWS, IMAGES])
    facts = Facts(tap=tap({"n": 2}, {"other": 1}))
    assert (here.measure(facts), here.missing(facts)) == ({"requests": 1, "rows": 3, "images": 2}, ("rows",))
    assert here.missing(Facts(tap=None)) == ("rows", "images")
    assert terms().missing(Facts()) == ()


# --- Balances --------------------------------------------------------------------------------------------------------

PRICE = Price("per_unit", 5)


def priced(meter="requests", unit="usd", **more):
    return Limit(f"credit.{meter}", "priced", 0, meter, calendar="month", unit=unit, price=PRICE, **more)


def balance(unit="usd", **more):
    return Limit("credit", "balance", 0, unit=unit, period_us=1, **more)


def test_a_priced_limit_costs_its_meter_and_a_balance_nothing_of_its_own():
    here = terms(
        priced(),
        priced("egress", reserve=1_000),
        balance(),
        rules=[REQUESTS, MeterRule("egress", Measured("response.bytes"))],
    )
    assert here.fixed_costs == (1, 1_000, 0)
    assert here.actual_units(here.measure(Facts())) == (1, 2_000, 0)


def test_a_balance_applies_where_one_of_the_limits_that_it_pays_for_does():
    # Fails if it always applies: a wallet that is empty would close routes that cost nothing.
    nowhere = [MeterRule("egress", Measured("response.bytes"), When(routes=frozenset({"other"})))]
    assert terms(priced("egress"), balance(), rules=nowhere).limits == ()
    assert [limit.kind for limit in terms(priced(), balance()).limits] == ["priced", "balance"]
    assert terms(balance(), priced()).limits == (priced(),)  # it pays for those before it
    assert [limit.unit for limit in terms(priced(unit="gpu"), balance("usd"), balance("gpu")).limits] == ["gpu", "gpu"]
    assert terms(priced(), balance(), balance()).limits == (priced(), balance())  # what is paid is paid once
    assert terms(priced(routes=frozenset({"x"})), balance()).limits == ()


# --- What is not billed ----------------------------------------------------------------------------------------------

ANN, US = Identity("k", "s", "cust-9", "pro"), Identity("k", "s", "cust-us", "pro")
INTERNAL = Exclusion("internal", customers=frozenset({"cust-us"}))
RETRY = Exclusion("retry", retries_us=86_400_000_000)


def test_the_first_exclusion_that_holds_is_the_reason():
    here = terms(exclusions=[RETRY, INTERNAL, Exclusion("bad", When(statuses=frozenset({404})))])
    assert here.excluded(Facts(status=404), US) == "internal"
    assert here.excluded(Facts(status=404), ANN) == "bad"
    assert here.excluded(Facts(), ANN) == ""


def test_a_retry_is_excluded_only_where_it_is_one():
    here = terms(exclusions=[RETRY])
    assert here.retries_us == 86_400_000_000
    assert [here.excluded(Facts(), ANN, retry=retry) for retry in (True, False)] == ["retry", ""]
    assert terms(exclusions=[INTERNAL]).retries_us == terms().retries_us == 0


def test_what_is_excluded_charges_nothing_that_is_sold_and_still_counts_for_what_protects():
    # Fails if a rate is given back: one Idempotency-Key, sent again and again, would know no rate limit.
    limits = (
        Limit("m", "quota", 9), priced(), balance(), Limit("r", "rate", 9), Limit("w", "window", 9),
        Limit("c", "concurrency", 2, meter=""),
    )  # fmt: skip
    here = terms(*limits)
    usage = here.measure(Facts())
    assert here.actual_units(usage) == (1, 1, 0, 1, 1, 0)
    assert here.actual_units(usage, billable=False, excluded=True) == (0, 0, 0, 1, 1, 0)
    assert here.actual_units(usage, billable=False) == (
        1,
        0,
        0,
        1,
        1,
        0,
    )  # not billed, as what failed: it takes no money
    assert usage == {"requests": 1}  # it is recorded all the same


# --- Models ----------------------------------------------------------------------------------------------------------


def test_a_model_is_for_plans_that_have_its_feature():
    route = Route("r", models=(("gpt-4*", "big"), ("o1*", "reasoning")))
    poor, rich = terms(route=route), terms(route=route, features=["big", "reasoning"])
    assert [poor.lacks(model) for model in ("gpt-4o", "o1-mini", "gpt-3.5")] == ["big", "reasoning", ""]
    assert [rich.lacks(model) for model in ("gpt-4o", "o1-mini", "gpt-3.5", "")] == [""] * 4
    # A body that is too large to be read must not be the way to a model that was not paid for.
    assert poor.lacks("") == "big"
    assert poor.lacks(" GPT-4O ") == "big"  # APIs take it


BY_CALL = MeterRule("calls", Count(1), When(json_rpc=("*",)))


def refuses(*limits, unread="deny", plan="pro", rules=(REQUESTS, BY_CALL)):
    bodies = Bodies()
    bodies.take("request", b"{")
    here = terms(*limits, rules=rules, route=Route("r", unread=unread), plan=plan)
    assert here.unread(request("POST"), bodies) is here.refuses_unread
    return here.refuses_unread


# Fails if a meter that nobody limits may be free: it is recorded, and billed.
def test_what_cannot_be_read_is_refused_where_it_decides_or_is_billed():
    def limit(stage, kind="quota"):
        return Limit("a", kind, 10, meter="calls", stage=stage, calendar="month")

    assert refuses()
    assert refuses(limit("enforce"))
    assert refuses(limit("shadow"), Limit("b", "quota", 10, meter="calls", calendar="month"))
    assert not refuses(limit("shadow"))
    assert not refuses(limit("soft"))
    assert not refuses(limit("enforce"), unread="allow")
    assert not refuses(rules=(REQUESTS,))
    # Nobody's requests are billed to nobody.
    found = meter_for(BY_CALL, "r")
    assert not Terms(Plan("", ""), Route("r"), [found]).refuses_unread
