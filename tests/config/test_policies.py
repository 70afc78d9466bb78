"""Mirrors sidecar/config/policies.py: the words of a document, and what is said of those that are none."""

from pathlib import Path

import pytest

from sidecar.config.document import read
from sidecar.config.models import validate
from sidecar.config.policies import PolicyDoc
from sidecar.core.errors import PolicyError


def faults(text):
    with pytest.raises(PolicyError) as caught:
        validate(PolicyDoc, read(Path("p.yaml"), text))
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prices: {}", "prices: does not belong here: prices are a plan's"),
        (
            "wallets: {}",
            "wallets: does not belong here: a plan's limits say what a balance pays for, and `sidecar wallet",
        ),
        ("plans: {p: {balance: usd}}", "plans.p.balance: does not belong here: a balance is a limit: write limits: [{"),
        (
            "plans: {p: {grants: []}}",
            "plans.p.grants: does not belong here: grants are made with `sidecar wallet grant`",
        ),
        ("plans: {p: {seats: 5}}", "plans.p.seats: does not belong here: seats are a customer's"),
        (
            "plans: {p: {limits: [{id: a, quota: 1/day, price: 5}]}}",
            "limits[0].price: does not belong here: prices are the",
        ),
        (
            "plans: {p: {limits: [{id: a, quota: 1/day, alerts: 5}]}}",
            "limits[0].alerts: does not belong here: write alert:",
        ),
    ],
)
def test_a_word_that_belongs_elsewhere_is_refused_with_where(text, said):
    [told] = faults(text)
    assert said in told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("meter: {}", "meter: is not known here; did you mean 'meters'?"),
        ("plans: {p: {limit: []}}", "plans.p.limit: is not known here; did you mean 'limits'?"),
        ("plans: {p: {limits: [{id: a, rat: 5/s}]}}", "plans.p.limits[0].rat: is not known here; did you mean 'rate'?"),
        ("plans: {p: {limits: [{id: a, expiri: 5s}]}}", "did you mean 'expiry'?"),
        (
            "meters: {m: {value: {lookup: method, table: {GET: 1}, defualt: 1}}}",
            "meters.m.value.defualt: is not known here; did you mean 'default'?",
        ),
        ("routes: [{id: r, match: {pth: /}}]", "routes[0].match.pth: is not known here; did you mean 'path'?"),
        ("routes: [{id: r}]", "routes[0].match: is missing"),
        (
            "routes: [{id: r, match: {path: /, methods: [get]}}]",
            "'get' is not right: write a method in capitals, as in GET",
        ),
        ("routes: [{id: r, match: {path: /}, credentials: [bearr]}]", "did you mean 'bearer'?"),
        ("routes: [{id: r, match: {path: /}, credentials: []}]", "routes[0].credentials: is empty: give at least one"),
        (
            "plans: {p: {limits: [{id: a b, rate: 5/s}]}}",
            "plans.p.limits[0].id: 'a b' is not right: write 1 to 63 letters",
        ),
        ("plans: {'': {}}", "'' is not right: write 1 to 63 letters"),
        ("plans: {p: {limits: [{id: a, rate: 5}]}}", "plans.p.limits[0].rate: 5 per what? write for example 5/s"),
        (
            "plans: {p: {limits: [{id: a, rate: 5/s, scope: keys}]}}",
            "should be 'key', 'subject' or 'customer', not 'keys'",
        ),
        ("plans: {p: {limits: [{id: a, concurrency: 0}]}}", "should be greater than or equal to 1, not 0"),
        ("meters: {m: {count: 9007199254740992}}", "should be less than or equal to 9007199254740991"),
        ("meters: {m: {value: {lookup: method, table: {}}}}", "meters.m.value.table: is empty: give at least one"),
        ("plans: [free]", "plans: should be a mapping of names to values"),
        ("routes: {chat: {}}", "routes: should be a list"),
    ],
)
def test_each_fault_says_where_it_is_and_what_would_be_right(text, said):
    assert any(said in fault for fault in faults(text))


@pytest.mark.parametrize(
    "text",
    [
        "meters: {m: {count: 1.5}}",
        "meters: {m: {value: {lookup: method, table: {GET: 0.5}, default: 1}}}",
        "plans: {p: {limits: [{id: a, concurrency: 2.5}]}}",
        "meters: {m: {count: true}}",
    ],
)
def test_a_fraction_is_refused_and_tenths_are_offered(text):
    # Nango #6523: fractions were rounded, and the cap drifted from the bill.
    assert "is not a whole number; for fractions count in tenths: 15 for 1.5" in faults(text)[0]


def test_one_may_be_written_for_a_list_of_one():
    text = "meters: {m: {when: {status: 2xx, route: r, method: GET, header: {X-A: b}}}}"
    when = validate(PolicyDoc, read(Path("p.yaml"), text)).meters["m"].when
    assert (when.status, when.route, when.method, when.header) == (("2xx",), ("r",), ("GET",), {"X-A": ("b",)})


def test_a_plan_s_version_may_be_a_number():
    assert validate(PolicyDoc, read(Path("p.yaml"), "plans: {p: {version: 3}}")).plans["p"].version == "3"


def test_no_and_on_are_names_like_any_other():
    assert set(validate(PolicyDoc, read(Path("p.yaml"), "plans: {no: {}, on: {}}")).plans) == {"no", "on"}
