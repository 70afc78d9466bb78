"""Maxima, latest and unique values and averages of a period, by SQL, held against the same in plain Python."""

import random
from collections import defaultdict

import pytest

from sidecar.core.usage import Aggregate
from sidecar.edge.ledger.aggregates import fault_of, quantity
from sidecar.edge.ledger.queries import Scope
from tests.edge.ledger.events import BEGIN, change, event, instant, record_id, usage
from tests.edge.ledger.ledgers import TOPIC, load, views

START_US = int(BEGIN.timestamp()) * 1_000_000
SCOPE = Scope(START_US, START_US + 10_000_000, meter="m")


def reading(number, units, at=None, **more):
    subject = more.pop("subject", "app")
    time = instant(number if at is None else at)
    return usage(number, {"m": units, "other": 7}, period_time=time, envelope={"subject": subject}, **more)


def asked(folder, aggregate, by=(), scope=SCOPE):
    with views(folder) as (engine, _):
        return engine.run(*quantity(by, scope, aggregate))


def one(folder, aggregate, scope=SCOPE):
    ((units, _),) = asked(folder, aggregate, scope=scope)
    return units


def test_the_highest_the_last_and_the_different_values_of_a_period(tmp_path):
    # Fails if a value of another period, another meter or one that is not billed is looked at.
    load(tmp_path, [
        reading(1, 50, at=-1), reading(2, 7, subject="a"), reading(3, 9, subject="b"), reading(4, 8, subject="b"),
        reading(5, 99, billable=False, subject="c"), reading(6, 0, subject="d"), reading(7, 60, at=10_000),
    ])  # fmt: skip
    assert asked(tmp_path, Aggregate("max")) == [(9, 4)]
    assert asked(tmp_path, Aggregate("latest")) == [(0, 4)]
    assert asked(tmp_path, Aggregate("unique", "subject")) == [(2, 4)]
    assert asked(tmp_path, Aggregate("max"), by=("customer", "day")) == [("acme", "2026-11-21", 9, 4)]


def test_the_highest_sum_of_a_window_is_of_windows_that_tile_time(tmp_path):
    # Fails if the highest single value is taken, or if a window begins with the first record.
    load(tmp_path, [reading(number, 1, at=number) for number in (1, 400, 900, 1_100, 1_200, 1_300, 1_400, 2_000)])
    second = START_US % 1_000_000
    assert second == 0
    assert one(tmp_path, Aggregate("max", window_us=1_000_000)) == 4
    assert one(tmp_path, Aggregate("max", window_us=60_000_000)) == 8


@pytest.mark.parametrize(
    ("readings", "average"),
    [
        ([(-5_000, 4), (0, 10), (5_000, 30)], 20),
        ([(5_000, 30)], 15),  # nothing is known before
        ([(-5_000, 4)], 4),  # holds through the period
        ([(-5_000, 4), (2_500, 8)], 7),
        ([(0, 1), (5_000, 2)], 2),  # 1.5, rounded half up
        ([(20_000, 9)], None),
    ],
)
def test_an_average_weighs_each_value_by_how_long_it_held(tmp_path, readings, average):
    # Fails if the value before the period is forgotten, or if the length is what is left of the period.
    load(tmp_path, [reading(number, units, at=at) for number, (at, units) in enumerate(readings, 1)])
    found = asked(tmp_path, Aggregate("time_weighted"))
    assert [units for units, _ in found] == ([] if average is None else [average])


def test_a_corrected_reading_is_the_corrected_value_and_a_void_one_is_nothing(tmp_path):
    # Fails if a correction is a reading of its own: a maximum would never be corrected down.
    load(tmp_path, [
        reading(1, 100), reading(2, 70), reading(3, 60), change(4, record_id(1), {"m": -90}),
        change(5, record_id(2), {"m": -70}, kind="void"),
    ])  # fmt: skip
    assert one(tmp_path, Aggregate("max")) == 60
    assert one(tmp_path, Aggregate("max", window_us=1_000_000)) == 70


def test_usage_lines_of_one_exchange_are_one_value_unless_models_are_asked_for(tmp_path):
    lines = [{"model": "a", "kinds": {}, "usage": {"m": 4}}, {"model": "b", "kinds": {}, "usage": {"m": 5}}]
    load(tmp_path, [reading(1, 9, usage_lines=lines), reading(2, 6)])
    assert one(tmp_path, Aggregate("max")) == 9
    assert asked(tmp_path, Aggregate("max"), by=("model",)) == [("a", 4, 1), ("b", 5, 1), (None, 6, 1)]


def test_an_average_has_a_period_and_is_not_cut():
    average = Aggregate("time_weighted")
    assert "needs a period" in fault_of((), Scope(meter="m"), average)
    assert "leave hour out" in fault_of(("customer", "hour"), SCOPE, average)
    assert fault_of(("customer",), SCOPE, average) == fault_of(("hour",), Scope(), Aggregate("max")) == ""


class Plain:
    """The quantities in plain Python, of (time in ms, customer, subject, units) that are billed."""

    def __init__(self, rows):
        self.rows = sorted(rows, key=lambda row: (row[0], row[4]))

    def of(self, kind, customer, start, end):
        here = [row for row in self.rows if row[1] == customer and start <= row[0] < end]
        if kind == "time_weighted":
            before = [row for row in self.rows if row[1] == customer and row[0] < start][-1:]
            known = [*before, *here]
            if not known:
                return None
            bounds = [max(row[0], start) for row in known] + [end]
            weight = sum(row[3] * (until - since) for row, since, until in zip(known, bounds, bounds[1:], strict=False))
            return (2 * weight + (end - start)) // (2 * (end - start))
        if not here:
            return None
        if kind == "max":
            return max(row[3] for row in here)
        if kind == "latest":
            return here[-1][3]
        if kind == "unique":
            return len({row[2] for row in here if row[3]})
        sums = defaultdict(int)
        for row in here:
            sums[(START_US // 1_000 + row[0]) // 500] += row[3]
        return max(sums.values())


@pytest.mark.parametrize("seed", range(6))
def test_they_are_what_plain_python_makes_of_the_same_records_in_any_order(tmp_path, seed):
    chance = random.Random(seed)
    rows = [
        (
            chance.randrange(-3_000, 12_000),
            f"c{chance.randrange(3)}",
            f"s{chance.randrange(9)}",
            chance.randrange(50),
            id_,
        )
        for id_ in range(1, 300)
    ]
    records = [
        reading(number, units, at=at, customer=customer, subject=subject, time=None)
        for at, customer, subject, units, number in rows
    ]
    chance.shuffle(records)
    cut = chance.randrange(1, 299)
    load(tmp_path, records[:cut], records[cut:])
    plain = Plain(rows)
    aggregates = {
        "max": Aggregate("max"), "latest": Aggregate("latest"), "unique": Aggregate("unique", "subject"),
        "time_weighted": Aggregate("time_weighted"), "peak": Aggregate("max", window_us=500_000),
    }  # fmt: skip
    for kind, aggregate in aggregates.items():
        found = {customer: units for customer, units, _ in asked(tmp_path, aggregate, by=("customer",))}
        expected = {f"c{n}": plain.of(kind, f"c{n}", 0, 10_000) for n in range(3)}
        assert found == {name: units for name, units in expected.items() if units is not None}, kind


def test_records_of_other_kinds_are_in_no_quantity(tmp_path):
    load(tmp_path, [reading(1, 5), event(2, "checkpoint", {"totals": {"m": 99}, "highest": {}})], topic=TOPIC)
    assert one(tmp_path, Aggregate("max")) == 5
