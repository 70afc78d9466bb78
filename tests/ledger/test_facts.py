"""The facts that SQL collects are those that a reading of all records by hand gives, whatever is lost."""

from itertools import pairwise
from random import Random

import pytest

from sidecar.core.billing.sealing import MARGIN_US, Numbers, verdicts
from sidecar.core.instants import instant
from sidecar.ledger.connection import open_ledger
from sidecar.ledger.facts import EXAMPLES, NOTHING_PROVEN, Proven, numbers_by_source, source_facts
from tests.core.billing.test_sealing import END_US, Life, facts_of
from tests.ledger.parquet import checkpoint, event, write


def usages(source, *sequences, **more):
    return [event("usage", source, sequence, usage={"a": 1}, **more) for sequence in sequences]


def numbers(folder, *records):
    write(folder, records)
    with open_ledger(folder) as ledger:
        return numbers_by_source(ledger.engine, NOTHING_PROVEN)


def as_events(records):
    """The records of a simulated life as those of a ledger."""
    for source, number, kind, facts in records:
        if kind == "checkpoint":
            seen = facts["seen"]
            open_ = {"oldest_open": instant(seen.oldest_open_us)} if seen.oldest_open_us else {}
            final = {"final": True} if seen.is_final else {}
            data = {"highest": dict(seen.highest), "totals": {}, **open_, **final}
            yield event("checkpoint", source, number, data, time_us=seen.time_us)
        elif kind == "closed":
            yield event(
                "source", source, number, {"state": "closed", "about": facts["about"], "highest": facts["highest"]}
            )
        elif kind == "started":
            data = {"state": "started", "about": source} | {name: each for name, each in facts.items() if each}
            yield event("source", source, number, data)
        else:
            yield event(kind, source, number, usage={"a": 1}, period_us=facts["period_us"])


@pytest.mark.parametrize("seed", range(5))
def test_verdicts_by_sql_are_those_by_hand(tmp_path, seed):
    # Fails if a checkpoint that fits is chosen by time, if the rule of fitting differs from the pure one, or if a
    # source that is only named is left out.
    random = Random(seed)
    records = [each for place in range(3) for each in Life(seed * 10 + place, 30, place).records]
    kept = [record for record in records[: random.randrange(len(records) // 2, len(records))] if random.random() > 0.02]
    write(tmp_path, list(as_events(kept)))
    expected = verdicts(facts_of(kept), END_US)
    with open_ledger(tmp_path) as ledger:
        assert verdicts(source_facts(ledger.engine, END_US, NOTHING_PROVEN), END_US) == expected


@pytest.mark.parametrize(
    ("sequences", "expected"),
    [
        ((1, 2, 3), (Numbers(1, 3), 3, True)),
        ((3, 1, 2), (Numbers(1, 3), 3, True)),
        ((1, 2, 4, 7), (Numbers(1, 7, ((3, 3), (5, 6))), 4, False)),
        ((3, 4), (Numbers(3, 4), 2, False)),
    ],
)
def test_numbers_have_their_gaps(tmp_path, sequences, expected):
    assert numbers(tmp_path, *usages("s", *sequences))["s"][:3] == expected


def test_a_number_used_twice_does_not_hide_a_gap(tmp_path):
    # Fails if only numbers are counted: four of 1..4 are here. In the second case also if their sum is all.
    twice = event("usage", "s", 2, id_="other", usage={"a": 1})
    assert numbers(tmp_path, *usages("s", 1, 2, 4), twice)["s"][:3] == (Numbers(1, 4, ((3, 3),)), 3, False)
    again = [event("usage", "s", number, id_=f"again {number}", usage={"a": 1}) for number in (3, 4)]
    hidden = numbers(tmp_path / "other", *usages("s", 1, 3, 4, 6), *again)["s"]  # of 1..6: as many, and the same sum
    assert (hidden.numbers.gaps, hidden.present) == (((2, 2), (5, 5)), 4)


def test_a_copy_under_a_number_of_its_own_is_there_and_one_of_the_same_number_counts_once(tmp_path):
    # Fails if copies are left out of the numbers, or counted as more.
    copied = event("usage", "s", 2, id_="s 1", usage={"a": 1})
    again = event("usage", "t", 1, usage={"a": 1})
    found = numbers(tmp_path, *usages("s", 1), copied, *usages("s", 3), again, again)
    assert {source: each[:2] for source, each in found.items()} == {"s": (Numbers(1, 3), 3), "t": (Numbers(1, 1), 1)}


def test_examples_of_gaps_are_bounded_and_what_is_missing_is_counted(tmp_path):
    found = numbers(tmp_path, *usages("s", *range(1, 201, 2)))["s"]
    assert (len(found.numbers.gaps), found.present, found.numbers.last) == (EXAMPLES, 100, 199)


def test_a_copy_under_the_last_number_is_there(tmp_path):
    # Fails if only sources whose other numbers have gaps are looked at with their copies.
    copied = event("usage", "s", 2, id_="s 1", usage={"a": 1})
    assert numbers(tmp_path, *usages("s", 1), copied)["s"][:2] == (Numbers(1, 2), 2)


def test_the_first_checkpoint_that_fits_is_chosen(tmp_path):
    # Fails if `oldest_open` is not looked at in SQL: number 5 is of a later period, and would be waited for.
    after_us = END_US + MARGIN_US
    records = [
        checkpoint("s", 2, after_us, oldest_open=instant(END_US - 1)),
        checkpoint("s", 4, after_us + 1),
        checkpoint("s", 6, after_us + 2),
    ]
    write(tmp_path, [*usages("s", 1, 3), *records])
    with open_ledger(tmp_path) as ledger:
        [found] = verdicts(source_facts(ledger.engine, END_US, NOTHING_PROVEN), END_US)
    assert (found.is_complete, found.highest["records"]) == (True, 4)


@pytest.mark.parametrize("proven", [0, 700, 3000])
def test_gaps_over_many_blocks_are_those_of_a_set(tmp_path, proven):
    # Fails if gaps that touch at the bounds of blocks are several, or absent blocks are not between two that are there.
    lost = {*range(1000, 1030), 1500, *range(2047, 5200), 5999, 6000, *range(7168, 8192)}
    present = sorted(set(range(3, 9300)) - lost)
    write(tmp_path, usages("s", *present))
    with open_ledger(tmp_path) as ledger:
        [found] = numbers_by_source(ledger.engine, Proven({"s": proven} if proven else {}, {})).values()
    expected = sorted({*present, *range(1, proven + 1)})
    gaps = [(a + 1, b - 1) for a, b in pairwise(expected) if b > a + 1]
    assert found[:2] == (Numbers(expected[0], expected[-1], tuple(gaps)), len(expected))
    assert found.is_cut == bool(proven)
