"""Copies are marked wherever they come again, and corrections belong to what they correct."""

from itertools import pairwise

import pytest

from sidecar.core.errors import SinkError
from sidecar.edge.ledger.earlier import UNKNOWN
from tests.edge.ledger.events import change, event, instant, record_id, usage
from tests.edge.ledger.ledgers import ask, damage_page, load

FILE = "file.0123456789abcdef"
COPIES = 'SELECT topic, "offset" FROM copies ORDER BY ALL'
SUM = "SELECT sum(units) FROM usage"


# Fails if only the batch is looked at, or only the file before.
@pytest.mark.parametrize("cuts", [[4], [1, 3], [2, 2], [1, 1, 1, 1]])
def test_a_copy_is_marked_and_in_no_sum(tmp_path, cuts):
    records = [usage(1), usage(2), usage(3), usage(1, envelope={"sequence": "000000000000000077"})]
    places = [sum(cuts[:number]) for number in range(len(cuts) + 1)]
    loaded = load(tmp_path, *[records[a:b] for a, b in pairwise(places)])
    assert sum(each.copies for each in loaded) == 1
    assert ask(tmp_path, COPIES) == [("usage.records", 3)]
    assert ask(tmp_path, SUM) == [(3,)]


def test_a_sink_file_is_compared_with_all_and_a_topic_with_sink_files(tmp_path):
    load(tmp_path, [usage(1)], part=3)
    load(tmp_path, [usage(1), usage(2)], topic=FILE)
    load(tmp_path, [usage(2), usage(3)], part=4)
    assert ask(tmp_path, COPIES) == [(FILE, 0), ("usage.records", 0)]
    # A key is on one partition, so the others are not read for it.
    load(tmp_path, [usage(3)], part=5)
    assert len(ask(tmp_path, COPIES)) == 2


def test_an_alert_that_comes_again_is_not_a_fault(tmp_path):
    (loaded,) = load(
        tmp_path, [event(1, "alert", {"customer": "a"}, id="A"), event(2, "alert", {"customer": "a"}, id="A")]
    )
    assert loaded.copies == 0
    assert ask(tmp_path, "SELECT count(*) FROM alerts") == [(1,)]


TERMS = "SELECT kind, plan, route, model, billable, key_id, account, period_us, units FROM usage WHERE kind <> 'usage'"


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("kind", ["correction", "void"])
def test_a_change_has_the_terms_of_its_original(tmp_path, kind, together):
    original = usage(1, {"tokens": 90}, dims={"model": "m"}, account="root", billable=False)
    changed = change(5, record_id(1), {"tokens": -30}, kind, key_id="other")
    load(tmp_path, *([[original, changed]] if together else [[original], [changed]]))
    ((*terms, period_us, units),) = ask(tmp_path, TERMS)
    assert terms == [kind, "pro@3", "chat", "m", False, "k_acme", "root"]
    # Fails if the change stays in the period of its own time.
    assert ask(tmp_path, f"SELECT count(*) FROM usage WHERE period_us = {period_us}") == [(2,)]
    assert units == -30
    assert ask(tmp_path, "SELECT sum(units) FROM usage") == [(60,)]


@pytest.mark.parametrize("cuts", [[3], [1, 2], [2, 1], [1, 1, 1]])
def test_a_change_of_a_change_has_the_terms_of_the_first_record(tmp_path, cuts):
    first = change(2, record_id(1), {"requests": 5})
    records = [usage(1), first, change(3, first["id"], {"requests": -2})]
    places = [sum(cuts[:number]) for number in range(len(cuts) + 1)]
    load(tmp_path, *[records[a:b] for a, b in pairwise(places)])
    assert ask(tmp_path, "SELECT DISTINCT plan, billable FROM usage") == [("pro@3", True)]
    assert ask(tmp_path, SUM) == [(4,)]


def test_a_change_without_its_original_says_so(tmp_path):
    # Also one that comes before its original: with another cut of the stream it would be the same.
    load(tmp_path, [change(1, record_id(99), {"requests": 5}), change(2, record_id(3), {"requests": 1}), usage(3)])
    assert ask(tmp_path, "SELECT reason, billable FROM usage WHERE kind = 'correction'") == [(UNKNOWN, None)] * 2


def test_a_change_without_its_original_is_billed_as_it_states(tmp_path):
    # Fails if `billable` of the change is dropped: the sum would differ from `sidecar records count`.
    made = [change(number, record_id(99), {"requests": number}, billable=number != 2) for number in (1, 2)]
    load(tmp_path, [*made, change(4, record_id(99), {"requests": 4})], [usage(5)])
    sql = "SELECT units, reason, billable FROM usage WHERE kind = 'correction' ORDER BY units"
    assert ask(tmp_path, sql) == [(1, UNKNOWN, True), (2, UNKNOWN, False), (4, UNKNOWN, None)]


def test_ids_of_any_length_are_compared(tmp_path):
    # Parquet has no statistics for long texts: such a file is always read.
    long = "x" * 5_000
    load(tmp_path, [usage(1, envelope={"id": long})], [usage(2)], [usage(3, envelope={"id": long})])
    assert ask(tmp_path, COPIES) == [("usage.records", 2)]
    assert instant(0).endswith("Z")


def test_a_damaged_file_that_a_copy_is_looked_for_in_is_named(tmp_path):
    # Fails if the error is DuckDB's alone, which does not say of which file it is.
    [first, _] = load(tmp_path, [usage(1)], [usage(2)])
    damage_page(tmp_path / "usage.records" / first.file.name, "id")
    with pytest.raises(SinkError, match=f"^{first.file}: damaged, or another file in its place"):
        load(tmp_path, [usage(1)])
