"""Mirrors sidecar/config/plans.py: plans, prices, balances and a customer's own terms, through the load."""

import pytest

from sidecar.core.policy import Limit
from sidecar.core.price import Price

CHAT = "routes: [{id: chat, match: {path: /chat}}]\n"
USD = "plans: {p: {currency: usd, prices: {requests: {per_unit: 1}}, limits: [%s]}}"
PREPAID = """\
meters:
  rows: { value: { json: response, pointer: /rows } }
  fax: {}
plans:
  prepaid:
    version: 2
    currency: usd
    anchor: subscription
    zone: Europe/Berlin
    prices:
      requests: { included: 10, per_unit: "0.01" }
      rows: { price: "1.50", per: 1000, reserve: 200 }
      fax: { per_unit: 1, currency: credits }
    limits:
      - { id: monthly, quota: 100/month, per_seat: true }
      - { id: daily, quota: 100/day, anchor: calendar, zone: UTC }
      - { id: credit, balance: usd, offline: "0.10", link: "https://example.com", routes: [api] }
      - { id: slots, concurrency: 2 }
routes: [{ id: api, match: { path: /** } }]
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "plans:\n  p:\n    limits:\n      - {id: a, meter: requets, quota: 1/day}",
            "p.yaml:4: plans.p.limits[0].meter: 'requets' is not defined; did you mean 'requests'?",
        ),
        (
            CHAT + "plans:\n  p:\n    limits: [{id: a, quota: 1/day, routes: [caht]}]",
            "p.yaml:4: plans.p.limits[0].routes[0]: 'caht' is not defined; did you mean 'chat'?",
        ),
        (
            "plans:\n  p:\n    limits:\n    - {id: a, rate: 1/s}\n    - {id: a, quota: 1/day}",
            "p.yaml:5: plans.p.limits[1].id: 'a' is already a limit of this plan, at p.yaml:4",
        ),
        (
            "plans:\n  p:\n    limits: [{id: a, quota: 5/mon}]",
            "p.yaml:3: plans.p.limits[0].quota: unknown calendar unit 'mon'; did you mean 'month'?",
        ),
        ("plans: {p: {limits: [{id: a, window: 1125899906842624/366d}]}}", "p.yaml:1: plans.p.limits[0].window: "),
        (
            USD % "{id: a, balance: usd}, {id: b, balance: usd}",
            "plans.p.limits[1].balance: 'usd' is paid for by p.yaml:1 already",
        ),
        (
            USD % "{id: a, balance: eur}",
            "plans.p.limits[0].balance: pays for prices in eur, but the plan has prices in usd",
        ),
        (
            "plans: {p: {limits: [{id: a, balance: usd}]}}",
            "pays for prices in usd, but the plan has no prices: write them under",
        ),
        (
            "plans:\n  p:\n    prices:\n      requests: {per_unit: 1}",
            "p.yaml:4: plans.p.prices.requests: is in which currency?",
        ),
        (
            "plans: {p: {currency: usd, prices: {reqests: {per_unit: 1}}}}",
            "plans.p.prices.reqests: 'reqests' is not defined; did you mean",
        ),
        (
            "plans:\n  p:\n    currency: usd\n    prices:\n      requests: {}\n      requests: {per_unit: 2}",
            "p.yaml:6: plans.p.prices.requests: is given twice (first on line 5)",
        ),
        (
            "plans: {p: {currency: usd, prices: {requests: {per_unit: 0.5}}}}",
            'prices.requests.per_unit: 0.5 has been rounded by YAML already: write "0.5"',
        ),
        ("plans: {p: {zone: Mars}}", "plans.p.zone: unknown time zone 'Mars'"),
        (
            "plans: {p: {prices_period: fortnight}}",
            "plans.p.prices_period: should be 'hour', 'day', 'week', 'month' or 'year'",
        ),
        ("plans: {p: {}}\ncustomers: {c: {plan: q}}", "p.yaml:2: customers.c.plan: 'q' is not defined; known: p"),
        (
            "plans: {p: {}}\ncustomers: {c: {plan: p, seats: 5}}",
            "customers.c.seats: multiply limits that are per_seat: true, and the plan has none",
        ),
        (
            "plans: {p: {}}\ncustomers: {c: {plan: p, seats: 0}}",
            "customers.c.seats: should be greater than or equal to 1",
        ),
        (
            "plans: {p: {}}\ncustomers: {c: {plan: p, limits: [{id: a, quota: 1/mon}]}}",
            "customers.c.limits[0].quota: unknown calendar unit 'mon'",
        ),
        (USD % "{id: q, quota: 4503599627370496/day, per_seat: true}", "plans.p.limits[0].quota: amount"),
        (
            USD % "{id: q, quota: 1125899906842624/day, per_seat: true}" + "\ncustomers: {c: {plan: p, seats: 8}}",
            "plans.p.limits[0].quota: for 8 seats: amount",
        ),
        (
            USD % "{id: q, quota: 1/day}" + "\ncustomers: {c: {plan: p, limits: [{id: q, quota: 2/month}]}}",
            "p.yaml:2: customers.c.limits[0].id: 'q' is the counter of p.yaml:1 too, but differs (calendar month here",
        ),
        (
            USD % "{id: a, balance: usd}, {id: a.requests, quota: 1/day}",
            "'a.requests' is the counter of p.yaml:1 too: give one another id",
        ),
        (
            "plans: {p: {limits: [" + ",".join(f"{{id: l{i}, quota: 1/day}}" for i in range(41)) + "]}}",
            "plans.p: has 41 limits and paid prices on route 'default': at most 40",
        ),
    ],
)
def test_each_fault_is_told_at_its_line_with_what_would_be_right(faults, text, said):
    assert faults(text)[0].startswith(said) or said in faults(text)[0]


def limits(policy, customer="", plan="prepaid"):
    return {limit.id: limit for limit in policy.terms(plan, policy.routes[0], customer).limits}


def test_a_balance_pays_for_each_price_in_its_unit_just_before_it(load):
    found = limits(load(PREPAID))
    assert list(found) == ["monthly", "daily", "credit.requests", "credit.rows", "credit", "slots"]
    periods = {"calendar": "month", "zone": "Europe/Berlin", "anchored": True}
    where = {"scope": "customer", "routes": frozenset({"api"}), "unit": "usd"}
    assert found["credit.requests"] == Limit(
        "credit.requests", "priced", 0, "requests", over="allow", price=Price("per_unit", 10_000_000, included=10),
        **periods, **where,
    )  # fmt: skip
    assert found["credit.rows"] == Limit(
        "credit.rows", "priced", 0, "rows", over="allow", price=Price("per_unit", 1_500_000), reserve=200,
        **periods, **where,
    )  # fmt: skip
    assert found["credit"].kind == "balance"
    assert (found["credit"].offline, found["credit"].link) == (100_000_000, "https://example.com")


def test_a_quota_has_the_periods_of_its_plan_unless_it_says_otherwise(load):
    found = limits(load(PREPAID))
    assert (found["monthly"].anchored, found["monthly"].zone) == (True, "Europe/Berlin")
    assert (found["daily"].anchored, found["daily"].zone) == (False, "UTC")


def test_prices_that_no_balance_pays_for_are_rated_downstream(load):
    policy = load("plans: {p: {currency: usd, prices: {requests: {per_unit: 1}}, limits: [{id: a, quota: 1/day}]}}")
    assert list(limits(policy, plan="p")) == ["a"]


def test_two_balances_pay_each_for_what_is_priced_in_its_unit(load):
    policy = load(PREPAID.replace("- { id: slots", "- { id: c2, balance: credits }\n      - { id: slots"))
    found = limits(policy)
    assert list(found) == ["monthly", "daily", "credit.requests", "credit.rows", "credit", "c2.fax", "c2", "slots"]
    assert found["c2.fax"].unit == "credits"


OWN = """\
customers:
  cust-9:
    plan: prepaid
    version: acme-1
    seats: 12
    limits: [{ id: daily, quota: 7/day }, { id: extra, rate: 1/s }]
    prices: { requests: { per_unit: "0.007" } }
    features: [big]
"""


def test_terms_of_one_customer_replace_by_id_and_by_meter_and_add_the_rest(load):
    policy = load(PREPAID + OWN)
    own, others = limits(policy, "cust-9"), limits(policy, "cust-1")
    assert others == limits(policy)
    assert [name for name in own if own[name] != others.get(name)] == ["monthly", "daily", "credit.requests", "extra"]
    assert (own["monthly"].amount, others["monthly"].amount) == (1_200, 100)
    assert (own["daily"].amount, own["daily"].anchored) == (7, True)
    assert own["credit.requests"].price == Price("per_unit", 7_000_000)
    assert policy.offering("big") == ()


def test_the_records_of_own_terms_name_the_plan_and_the_terms(load):
    policy = load(PREPAID + OWN)
    route = policy.routes[0]
    assert policy.terms("prepaid", route, "cust-1").plan == "prepaid@2"
    assert policy.terms("prepaid", route, "cust-9").plan == "prepaid@2+acme-1"


def test_own_terms_without_a_version_are_named_by_what_they_say(load):
    text = "plans: {p: {version: 1}}\ncustomers: {c: {plan: p, limits: [{id: q, quota: %s/day}]}}"
    first, second = (load(text % amount) for amount in (2, 3))
    labels = [policy.terms("p", policy.routes[0], "c").plan for policy in (first, second)]
    assert all(label.startswith("p@1+") for label in labels)
    assert len(set(labels)) == 2


def test_a_customer_on_another_plan_than_its_own_terms_has_the_plan_s(load):
    policy = load(
        "plans: {p: {}, q: {limits: [{id: a, rate: 1/s}]}}\ncustomers: {c: {plan: p, limits: [{id: b, rate: 1/s}]}}"
    )
    assert [list(limits(policy, "c", plan)) for plan in ("p", "q")] == [["b"], ["a"]]


def test_what_is_wrong_with_a_plan_is_told_once_though_customers_have_it_too(faults):
    said = faults(USD % "{id: a, balance: eur}" + "\ncustomers: {c: {plan: p}, d: {plan: p}}")
    assert len(said) == 1


def test_an_edit_of_a_price_keeps_the_counter_of_what_it_prices(load):
    before, after = (limits(load(PREPAID.replace("0.01", price)))["credit.requests"] for price in ("0.01", "0.02"))
    assert before.price != after.price
    assert before.id == after.id
