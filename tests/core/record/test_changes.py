"""Corrections and voids: what they add, in whose period, and that a void takes back everything once."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from sidecar.core.errors import SidecarError
from sidecar.core.policy import Hashes
from sidecar.core.record import record_schema
from sidecar.core.record.changes import CHANGES, History, correction_of, void_of
from sidecar.core.usage import Count, MeterRule, PolicySource, Sum

validator = Draft202012Validator(record_schema())
ID = "01M8N97TG90000000000000001"


def original(usage, *, lines=None, type_="usage", **more):
    data = {
        "customer": "acme",
        "account": "group",
        "key_id": "k",
        "usage": usage,
        **({"usage_lines": lines} if lines else {}),
    }
    return {
        "type": f"sidecar.{type_}.v1", "id": ID, "subject": "app", "time": "2026-12-01T00:00:01.000000Z",
        "data": data | {"period_time": "2026-11-30T23:59:59.000000Z"}, **more,
    }  # fmt: skip


def record(change, sequence=1):
    made = orjson.loads(change.render(1_796_000_000_000_000, "//sidecar/l/n/commands/1", sequence))
    assert validator.is_valid(made), next(validator.iter_errors(made))
    return made


def after(history, change):
    return History(history.record, (*history.changes, record(change)))


def correct(history, key="a", **units):
    return correction_of(history, units, key, "counted twice", "ann")


def void(history):
    return void_of(history, "test traffic", "ann")


def test_a_change_belongs_to_the_customer_and_the_period_of_its_original():
    # Fails if `time` of the original decides (it ended in another month), or the account is left out.
    made = record(correct(History(original({"tokens": 9})), tokens=-2))
    assert (made["causationid"], made["subject"], made["partitionkey"]) == (ID, "app", "acme")
    assert made["data"] == {
        "customer": "acme", "account": "group", "key_id": "k", "usage": {"tokens": -2},
        "period_time": "2026-11-30T23:59:59.000000Z", "reason": "counted twice", "actor": "ann",
    }  # fmt: skip
    early = original({"tokens": 9})  # nor does it say `billable`, so its void does not
    del early["data"]["period_time"]  # a record of 0.1
    assert record(void(History(early)))["data"]["period_time"] == early["time"]


@pytest.mark.parametrize("billable", [True, False])
def test_a_change_says_whether_its_original_is_billed(billable):
    # Fails if it is left out: `records count` would add units of what is not billed.
    unbilled = original({"tokens": 9})
    unbilled["data"]["billable"] = billable
    history = History(unbilled)
    assert [record(change)["data"]["billable"] for change in (correct(history, tokens=-2), void(history))] == [
        billable,
        billable,
    ]


UNITS = st.integers(0, 1000)
LINES = st.lists(
    st.fixed_dictionaries({"tokens": UNITS, "words": UNITS}).map(
        lambda usage: {"model": "m", "kinds": {"input": 3}, "usage": usage}
    ),
    max_size=3,
)


def in_total(record):
    """Σ of the lines, and of the meters that no line has, on the first; as the ledger reads a record."""
    data = record["data"]
    lines = [line["usage"] for line in data.get("usage_lines", ())]
    return [{meter: line[meter] for meter in ("tokens", "words")} for line in lines], data["usage"]


@given(LINES, UNITS, st.lists(st.integers(-50, 50).filter(bool), max_size=4))
def test_a_void_takes_back_everything_meter_by_meter_and_line_by_line(lines, requests, deltas):
    # Fails if corrections are left out of `History.usage`, or of `_void_lines`.
    usage = {"requests": requests}
    for meter in ("tokens", "words"):
        usage[meter] = sum(line["usage"][meter] for line in lines)
    history = History(original(usage, lines=lines))
    for number, delta in enumerate(deltas):
        if history.usage["tokens"] + delta >= 0:
            history = after(history, correct(history, f"{number}", tokens=delta))
    made = void(history)
    history = after(history, made)
    assert set(history.usage.values()) == {0}
    if lines:
        back, total = in_total(record(made))
        corrected = sum(change["data"]["usage"]["tokens"] for change in history.changes[:-1])
        assert [line["usage"]["tokens"] + taken["tokens"] for line, taken in zip(lines, back, strict=True)] == [
            -corrected,
            *[0] * (len(lines) - 1),
        ]
        assert sum(line["tokens"] for line in back) == total["tokens"]  # else no line of it is read


def test_a_line_without_units_of_meters_is_taken_back_by_kinds():
    history = History(original({"tokens": 5}, lines=[{"model": "m", "kinds": {"input": 5}}]))
    assert void(history).usage_lines == [{"model": "m", "kinds": {"input": -5}}]
    assert void(after(history, correct(history, tokens=-1))).usage_lines == [{"model": "m", "kinds": {"input": -5}}]


def test_a_second_void_has_the_id_of_the_first_and_is_known_as_recorded():
    # Fails if the id is random, or made of the time of the void.
    history = History(original({"tokens": 5}))
    first = void(history)
    assert first.id[:10] == ID[:10].encode()
    second = void(after(history, first))
    assert (second.id, first.is_recorded, second.is_recorded) == (first.id, False, True)
    assert void(History(original({"tokens": 5}, id="01M8N97TG90000000000000002"))).id != first.id


def test_a_correction_is_recorded_once_for_its_name():
    history = History(original({"tokens": 5}))
    first = correct(history, tokens=-1)
    history = after(history, first)
    assert correct(history, tokens=-1).is_recorded
    other = correct(history, "b", tokens=-1)
    assert (other.is_recorded, other.id == first.id) == (False, False)
    with pytest.raises(SidecarError, match="exists, and adds tokens -1: choose another --id"):
        correct(history, tokens=-2)


def test_a_correction_leaves_no_meter_below_zero_and_adds_none():
    # Fails if earlier corrections are not counted.
    history = History(original({"tokens": 5}))
    history = after(history, correct(history, tokens=-3))
    with pytest.raises(SidecarError, match=f"record {ID} has 2 tokens: this correction would leave -1"):
        correct(history, "b", tokens=-3)
    with pytest.raises(SidecarError, match="has no meter 'token'; it has tokens"):
        correct(history, "b", token=1)


def test_a_correction_adds_no_more_than_a_counter_holds():
    history = History(original({"tokens": 5}))
    assert correct(history, tokens=2**51 - 5)
    with pytest.raises(SidecarError, match=f"would have {2**51 + 1} tokens: a counter holds at most {2**51}"):
        correct(history, tokens=2**51 - 4)


def policy(**weights):
    """A policy with `tokens`, `calls`, and `work`: the sum of both with these factors."""
    rules = (
        MeterRule("tokens"),
        MeterRule("calls"),
        MeterRule("work", Sum(tuple(weights.items())) if weights else Count()),
    )
    return PolicySource("v", (), (), {rule.id: rule for rule in rules}, (), {}, Hashes({}, {"pro@3": ""}))


SUM = policy(tokens=10, calls=1)


def summed(tokens=5, calls=2):
    history = History(original({"tokens": tokens, "calls": calls, "work": 10 * tokens + calls}))
    history.record["data"]["plan"] = "pro@3"
    return history


def correct_by(policy, history, key="a", **units):
    return correction_of(history, units, key, "counted twice", "ann", policy)


def test_a_correction_moves_the_meters_that_are_computed_of_it():
    history = summed()
    first = correct_by(SUM, history, tokens=-2)
    assert (record(first)["data"]["usage"], first.computed.units) == ({"tokens": -2, "work": -20}, {"work": -20})
    history = after(history, first)
    assert correct_by(SUM, history, "b", work=-1).usage == {"work": -1}
    left = correct_by(policy(tokens=9), history, "b", tokens=-1)
    assert (left.usage, left.computed.left) == (
        {"tokens": -1},
        {"work": "the record has 52, where the policy computes 45"},
    )
    assert void(history).usage == {"tokens": -3, "calls": -2, "work": -32}


def test_bounds_hold_for_computed_meters_too():
    history = summed()
    history = after(history, correct_by(SUM, history, work=-45))  # by its name alone
    with pytest.raises(SidecarError, match="has 7 work: this correction would leave -3"):
        correct_by(SUM, history, "b", tokens=-1)
    with pytest.raises(SidecarError, match=f"work: a counter holds at most {2**51}"):
        correct_by(SUM, history, "b", tokens=2**50)


@pytest.mark.parametrize("later", [SUM, policy(tokens=9), None])
def test_a_repetition_is_known_by_the_named_units_whatever_the_policy_computes_now(later):
    # Fails if computed units are compared: a script that is repeated after a change of the policy would fail.
    history = summed()
    history = after(history, correct_by(SUM, history, tokens=-2))
    again = correct_by(later, history, tokens=-2)
    assert (again.is_recorded, again.usage, again.computed.units) == (True, {"tokens": -2, "work": -20}, {"work": -20})
    assert correct_by(later, history, tokens=-2, work=-20).is_recorded
    for other in ({"tokens": -1}, {"tokens": -2, "work": -19}, {"tokens": -2, "calls": -1}):
        with pytest.raises(SidecarError, match="adds tokens -2, work -20: choose another --id"):
            correct_by(later, history, **other)


def test_a_repetition_that_leaves_out_a_measured_meter_is_another_correction():
    history = summed()
    history = after(history, correct_by(SUM, history, tokens=-2, calls=-1))
    with pytest.raises(SidecarError, match="adds tokens -2, calls -1, work -21: choose another --id"):
        correct_by(SUM, history, tokens=-2)


def test_what_is_void_is_corrected_no_more_but_a_repetition_is_known():
    history = History(original({"tokens": 5}))
    history = after(history, correct(history, tokens=-3))
    history = after(history, void(history))
    with pytest.raises(SidecarError, match="is void"):
        correct(history, "b", tokens=1)
    assert correct(history, tokens=-3).is_recorded


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("denial", "is a denial"),
        ("unattributed", "has no customer"),
        ("void", f"is itself a change: name the record that it changes, {ID[:-1]}9"),
        ("checkpoint", "has no usage"),
    ],
)
def test_only_usage_of_a_customer_can_be_changed(kind, reason):
    history = History(original({"tokens": 1}, type_=kind, causationid=f"{ID[:-1]}9"))
    for change in (void, lambda history: correct(history, tokens=1)):
        with pytest.raises(SidecarError, match=reason):
            change(history)


def test_the_kinds_of_changes():
    assert CHANGES == ("sidecar.correction.v1", "sidecar.void.v1")
