"""Mirrors sidecar/core/usage/computed.py: corrections of meters that others are computed of."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.policy import Hashes
from sidecar.core.usage import (
    REQUESTS,
    Aggregate,
    Count,
    Lookup,
    Measured,
    MeterRule,
    PolicySource,
    Scaled,
    Sum,
    When,
    meters_for,
)
from sidecar.core.usage.computed import UNREADABLE, computed_changes, is_measured

SENT = Measured("request.bytes")
BY_ROUTE = Lookup("route", {"r": 3}, 1)
BY_HEADER = Lookup("header.x-tier", {"gold": 2, "lead": 0}, 1)


def policy(*rules, labels=("pro@3",)):
    made = {rule.id: rule for rule in (REQUESTS, *rules)}
    return PolicySource("v", (), (), made, (), {}, Hashes({}, dict.fromkeys(labels, "")))


def record(**usage):
    return {"plan": "pro@3", "route": "r", "method": "GET", "usage": usage}


def computed(source, data, earlier=(), **changes):
    usage = dict(data["usage"])
    for change in earlier:
        usage |= {meter: usage[meter] + units for meter, units in change.items()}
    return computed_changes(source, data, usage, changes)


MEASURED = (
    MeterRule("sent", SENT),
    MeterRule("by_route", Scaled(SENT, BY_ROUTE)),
    MeterRule("by_header", Scaled(SENT, BY_HEADER)),
    MeterRule("by_method", Scaled(SENT, Lookup("method", {"GET": 5}, 7))),
    MeterRule("used", Scaled(SENT, BY_ROUTE), aggregate=Aggregate("count")),
    MeterRule("work", Sum((("requests", 10), ("by_route", 1), ("sent", 2), ("elsewhere", 5)))),
    MeterRule("any", Sum((("sent", 1),)), aggregate=Aggregate("count")),
    MeterRule("elsewhere", SENT, when=When(routes=frozenset({"s"}))),
)


def measured(bytes_in, tier):
    """The usage of an exchange, by the meters that the gateway asks."""
    fields = {b"x-tier": tier}
    facts = SimpleNamespace(
        bytes_in=bytes_in, method="GET", status=200, tap=None, request_header=fields.get, response_header=fields.get
    )
    return {meter.id: meter.measure(facts) for meter in meters_for((REQUESTS, *MEASURED), "r")}


@given(st.integers(1, 1000), st.integers(0, 1000), st.sampled_from([b"gold", b"lead", b"", b"tin"]))
def test_a_corrected_record_has_what_the_meters_would_have_measured(before, after, tier):
    # Fails if a factor is lost, a sum is computed before its parts, or a count is not at most 1.
    was, would_be = measured(before, tier), measured(after, tier)
    assert "elsewhere" not in was
    if before == after:
        return
    units, left = computed(policy(*MEASURED), record(**was), sent=after - before)
    units["sent"] = after - before
    assert left == {}
    assert {meter: was[meter] + units.get(meter, 0) for meter in was} == would_be
    assert 0 not in units.values()


def test_a_named_meter_is_not_computed_and_counts_in_the_sums_of_it():
    source, data = policy(*MEASURED), record(sent=10, by_route=30, work=60, requests=1)
    assert computed(source, data, sent=-1, by_route=-5).units == {"work": -7}
    assert computed(source, data, work=-1) == ({}, {})
    assert computed(source, data, requests=-1) == ({"work": -10}, {})


def test_earlier_corrections_are_in_the_usage_and_not_in_the_definition():
    # An older version changed `sent` alone: the rest of `by_route` changes with this correction, and no more.
    source, data = policy(*MEASURED[:2]), record(sent=10, by_route=30)
    assert computed(source, data, [{"sent": -2}], sent=-8).units == {"by_route": -24}


WEIGHTED = MeterRule("weighted", Scaled(SENT, BY_HEADER))


@pytest.mark.parametrize(
    ("rules", "data", "reason"),
    [
        ((MEASURED[0],), record(sent=10, weighted=20), "no such meter any more"),
        ((MEASURED[0], WEIGHTED), record(sent=10, weighted=20) | {"plan": "pro@2"}, "its plan pro@2 is not in the"),
        ((MEASURED[0], WEIGHTED), record(sent=10, weighted=40), "does not show which factor"),
        ((MEASURED[0], WEIGHTED), record(sent=10, weighted=21), "does not show which factor"),
        ((MEASURED[0], WEIGHTED), record(sent=0, weighted=0), "does not show which factor"),
        (
            (MEASURED[0], MeterRule("weighted", Scaled(SENT, BY_ROUTE))),
            record(sent=10, weighted=20),
            "the record has 20, where the policy computes 30",
        ),
        (
            (MEASURED[0], MeterRule("weighted", Sum((("sent", 3),)))),
            record(sent=10, weighted=20),
            "the record has 20, where the policy computes 30",
        ),
    ],
)
def test_a_meter_whose_definition_does_not_give_the_record_stays_as_it_is(rules, data, reason):
    units, left = computed(policy(*rules), data, sent=-1)
    assert (units, list(left)) == ({}, ["weighted"])
    assert reason in left["weighted"]


def test_without_policies_nothing_is_computed():
    assert computed(None, record(sent=10, work=20), sent=-1) == ({}, {"work": UNREADABLE})


def test_a_meter_of_another_quantity_or_condition_does_not_move():
    others = (
        MeterRule("other", Scaled(Measured("response.bytes"), BY_ROUTE)),
        MeterRule("got", Scaled(SENT, BY_ROUTE), when=When(methods=frozenset({"GET"}))),
        MeterRule("same", SENT),
    )
    assert computed(policy(MEASURED[0], *others), record(sent=1, other=3, got=3, same=1), sent=5) == ({}, {})
    counted = MeterRule("sent", SENT, aggregate=Aggregate("count"))
    assert computed(policy(counted, WEIGHTED), record(sent=1, weighted=9), sent=-1) == ({}, {})


def test_which_meters_are_measured():
    source = policy(*MEASURED, MeterRule("plain", Count(2)))
    assert [meter for meter in ("requests", "plain", "by_route", "work", "nowhere") if is_measured(source, meter)] == [
        "requests",
        "plain",
    ]
    assert not is_measured(None, "plain")
