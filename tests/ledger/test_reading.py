"""Questions: sums add up over any cut of time, and lead to their records."""

import random
import re

import pytest

from sidecar.core.errors import SinkError
from sidecar.core.usage import Aggregate
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import LedgerFolder
from sidecar.edge.ledger.queries import DIMENSIONS, Scope
from sidecar.ledger.compacting import Retention, compact
from sidecar.ledger.reading import open_ledger
from tests.edge.ledger.events import BEGIN, change, event, record_id, usage
from tests.edge.ledger.ledgers import TOPIC, damage_page, load

MEMORY = "512MB"
START_US = int(BEGIN.timestamp()) * 1_000_000


def opened(folder):
    return open_ledger(folder, memory=MEMORY, threads=1)


@pytest.fixture
def folder(tmp_path):
    chance = random.Random(5)
    records = [
        usage(
            number, {"requests": 1, "tokens": chance.randrange(99)}, customer=f"c{number % 3}", billable=number % 10 > 0
        )
        for number in range(1, 301)
    ]
    load(tmp_path, records[:100], records[100:])
    return tmp_path


def test_sums_by_every_dimension_are_the_same_sum(folder):
    with opened(folder) as ledger:
        ((units, rest, records),) = ledger.totals([], Scope()).rows
        assert (records, rest > 0) == (300, True)
        for name in DIMENSIONS:
            answer = ledger.totals([name], Scope()).as_dicts()
            assert sum(row["units"] for row in answer) == units
            assert sum(row["not_billable"] for row in answer) == rest


# Fails if a bound is included on both sides, or on none.
def test_periods_that_tile_time_sum_up_to_the_whole(folder):
    with opened(folder) as ledger:
        (whole,) = ledger.totals([], Scope()).rows
        for cut in (1, 150_000, 150_001, 299_999, 300_000):
            parts = [Scope(None, START_US + cut), Scope(START_US + cut, None)]
            sums = [ledger.totals([], part).rows[0] for part in parts]
            assert tuple(map(sum, zip(*sums, strict=True))) == whole


def test_a_sum_is_traced_to_its_records_and_a_record_to_its_decision(folder):
    load(folder, [change(400, record_id(7), {"tokens": -5}, customer="c1"),
                  event(401, "posting", {"customer": "c1", "change": "settle", "delta": -3}, causationid=record_id(7))],
         part=1, topic="file.0000000000000000")  # fmt: skip
    scope = Scope(START_US, START_US + 200_000, "c1", "tokens")
    with opened(folder) as ledger:
        customers = [name for (name, *_) in ledger.totals(["customer"], Scope()).rows]
        rows = ledger.records_of(scope, 0).as_dicts()
        ((_, _, units, rest, count),) = ledger.totals(["customer", "meter"], scope).rows
        assert sum(row["units"] for row in rows) == units + rest
        assert (len(rows), [row["kind"] for row in rows].count("correction")) == (count, 1)
        assert len(ledger.records_of(scope, 5).rows) == 5
        kinds = [row["kind"] for row in ledger.record(record_id(7)).as_dicts()]
        assert kinds == ["usage", "usage", "correction", "posting"]
        assert ledger.record(record_id(7)).as_dicts()[0]["decision"] == '{"mode":"exact","limits":[]}'
        assert ledger.record("nobody").rows == []
        assert (ledger.names("customer"), "tokens" in ledger.names("meter")) == (customers, True)


def test_a_query_only_reads_and_only_the_ledger(folder, tmp_path):
    (tmp_path / "outside.csv").write_text("1\n")
    with opened(folder) as ledger:
        for sql in ("COPY usage TO 'x.csv'", "SELECT 1; SELECT 2", "DROP VIEW usage", "INSTALL httpfs", ""):
            with pytest.raises((ValueError, SinkError)):
                ledger.query(sql)
    with opened(folder) as ledger:
        names, parts = ledger.query("SELECT customer, sum(units) FROM usage GROUP BY 1 ORDER BY 1")
        assert names == ["customer", "sum(units)"]
        assert [row[0] for part in parts for row in part] == ["c0", "c1", "c2"]
        with pytest.raises(SinkError, match=r"[Pp]ermission"):
            ledger.query("SELECT * FROM read_csv('/etc/passwd')")


def test_files_that_a_compaction_took_away_do_not_fail_a_question(folder):
    with opened(folder) as ledger:
        before = ledger.totals(["customer", "meter"], Scope()).rows
        with Engine(folder=folder) as engine:
            assert compact(LedgerFolder(folder), engine, Retention()).joined
        # Fails if the question is not asked again of the files that are there.
        assert ledger.totals(["customer", "meter"], Scope()).rows == before


def test_what_is_wrong_with_the_files_is_said(folder):
    next((folder / TOPIC).glob("*099.*.parquet")).write_text("cut")
    with opened(folder) as ledger:
        ((fault),) = ledger.faults
        assert "damaged" in fault
        assert ledger.totals([], Scope()).rows[0][2] == 200


def test_a_folder_that_is_not_a_ledger_is_named(tmp_path):
    with pytest.raises(SinkError, match="not a ledger"), opened(tmp_path / "no"):
        pass


def test_meters_with_an_aggregate_have_its_quantity_and_are_in_no_sum_over_meters(folder):
    # Fails if a maximum is summed up, or if it is added to the units of other meters.
    aggregates = {"tokens": Aggregate("max")}
    with opened(folder) as ledger:
        plain = {
            (row["customer"], row["meter"]): row for row in ledger.totals(["customer", "meter"], Scope()).as_dicts()
        }
        mixed = ledger.totals(["customer", "meter"], Scope(), aggregates).as_dicts()
        ((whole, *_),), ((without, *_),) = ledger.totals([], Scope()).rows, ledger.totals([], Scope(), aggregates).rows
        counts = [
            ledger.totals([], Scope(), each).rows[0][2] for each in ({}, aggregates, {"requests": Aggregate("max")})
        ]
        only = ledger.totals(["customer"], Scope(meter="tokens"), aggregates).as_dicts()
    assert [(row["customer"], row["meter"]) for row in mixed] == sorted(plain)
    for row in mixed:
        if row["meter"] == "requests":
            assert row == plain[row["customer"], "requests"]
        else:
            assert 90 < row["units"] < 99
            assert row["not_billable"] == 0
    assert whole - without == sum(row["units"] for key, row in plain.items() if key[1] == "tokens")
    assert counts == [300] * 3  # a record counts though one of its meters is left out
    assert only == [{name: value for name, value in row.items() if name != "meter"} for row in mixed
                    if row["meter"] == "tokens"]  # fmt: skip


def test_an_average_without_a_period_is_refused(folder):
    with (
        opened(folder) as ledger,
        pytest.raises(ValueError, match="meter 'tokens': an average over time needs a period"),
    ):
        ledger.totals(["customer", "meter"], Scope(meter="tokens"), {"tokens": Aggregate("time_weighted")})


# Fails if the error is DuckDB's alone, which may not say of which file it is.
def test_a_damaged_page_that_a_question_meets_is_named(folder):
    path = LedgerFolder(folder).at(LedgerFolder(folder).listing().files[1])
    damage_page(path, "units")
    with opened(folder) as ledger:
        with pytest.raises(SinkError, match=rf"^{TOPIC}/{re.escape(path.name)}: damaged, or another file in its place"):
            ledger.totals(["meter"], Scope())
        with pytest.raises(SinkError, match=re.escape(path.name)):
            ledger.query("SELECT sum(units) FROM usage")
        with pytest.raises(SinkError, match="Binder Error"):
            ledger.query("SELECT nothing FROM usage")
