"""Files into ClickHouse: each record once, whatever is killed, repeated or compacted between."""

import random

import pytest

from sidecar.core.errors import SinkError
from sidecar.core.usage import Aggregate
from sidecar.edge.ledger.clickhouse import ClickHouse
from sidecar.edge.ledger.clickhouse_tables import ROWS, ClickHouseTables
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import LedgerFile, LedgerFolder
from sidecar.edge.ledger.queries import DIMENSIONS, Scope
from sidecar.edge.ledger.schema import NAMES, selection
from sidecar.edge.ledger.views import VIEWS
from sidecar.ledger.compacting import Retention, compact
from sidecar.ledger.pushing import Push, PushOptions, missing_ranges, push
from sidecar.ledger.reading import open_clickhouse, open_ledger
from tests.edge.ledger.clickhouses import new_url
from tests.edge.ledger.events import BEGIN, change, event, instant, record_id, usage
from tests.edge.ledger.ledgers import TOPIC, load

START_US = int(BEGIN.timestamp()) * 1_000_000
END_US = START_US + 10_000_000
CUSTOMERS = ("acme", "it's", "b\\slash", "ümlaut", "?")


def push_all(folder, url, tables=ClickHouseTables, **options):
    done = Push()
    with ClickHouse(url) as clickhouse, Engine() as engine:
        push(LedgerFolder(folder), engine, tables(clickhouse), done, PushOptions(**options))
    return done


def ask(url, sql):
    with ClickHouse(url) as clickhouse:
        return clickhouse.run(sql)


def random_records(count, seed=11):
    chance = random.Random(seed)
    records = []
    for number in range(1, count + 1):
        customer = chance.choice(CUSTOMERS)
        units = {meter: chance.choice([0, 1, 7, 2**62]) for meter in chance.sample(["requests", "tokens", "gb"], 2)}
        records.append(
            usage(
                number, units, customer=customer, billable=chance.choice([True, True, False, None]),
                plan=chance.choice(["pro@3", "free@1", None]), route=chance.choice(["chat", "files", None]),
                quality=chance.choice(["exact", "estimated"]), period_time=instant(chance.randrange(9_000)),
                dims={"model": chance.choice(["m1", "m2"]), "service_tier": chance.choice(["flex", None])},
                envelope={"subject": chance.choice(["app", "web"])},
            )
        )  # fmt: skip
    for number in range(1, count, 9):
        customer = records[number - 1]["data"]["customer"]
        kind = chance.choice(["correction", "void"])
        records.append(change(count + number, record_id(number), {"tokens": -3}, kind, customer=customer))
    records.append(change(9_001, "01M8N-NOT-HERE", {"tokens": -3}))
    records += [
        event(9_100, "posting", {"customer": "acme", "unit": "USD", "digits": 9, "change": "settle", "delta": -3,
              "balance": 2**60, "charges": [{"meter": "tokens", "amount": 3}]}, causationid=record_id(1)),
        event(9_101, "checkpoint", {"highest": {"a": 3}, "totals": {"tokens": 2**63}, "final": True, "denials": 0}),
        event(9_102, "source", {"state": "start", "highest": {"b": 1}, "version": "1"}),
        event(9_103, "denial", {"customer": "acme", "reason": "quota", "decision": {"violated": "day"}}),
        event(9_104, "alert", {"customer": "acme", "limit": "day", "percent": 80, "used": 8, "amount": 10}),
        event(9_105, "policy", {"policy": "abc", "state": "applied", "plans": ["pro@3"], "files": {"a": "b"}}),
        event(9_106, "audit", {"action": "void", "actor": "ann", "before": {"x": None}, "after": "text"}),
        records[3], b"not a record", b'{"type": "sidecar.usage.v1"}',
    ]  # fmt: skip
    return records


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same ledger in files and in ClickHouse."""
    folder = tmp_path_factory.mktemp("ledger")
    records = random_records(600)
    load(folder, records[:250], records[250:], threads=1)
    load(folder, random_records(60, seed=12), part=3)
    url = new_url()
    push_all(folder, url)
    with open_ledger(folder, memory="512MB", threads=1) as files, open_clickhouse(url) as clickhouse:
        yield files, clickhouse


@pytest.mark.parametrize("by", [[], *[[name] for name in DIMENSIONS], ["customer", "meter", "model", "day"]])
def test_totals_are_the_same_in_both_engines(both, by):
    # Fails if sums are of 64 bits, if the units of a copy are added, or if NULL sorts or compares in another way.
    files, clickhouse = both
    for scope in (
        Scope(),
        Scope(START_US + 1_000_000, END_US - 2_000_000),
        *[Scope(customer=c) for c in CUSTOMERS if not by],
    ):
        assert clickhouse.totals(by, scope) == files.totals(by, scope)
    assert clickhouse.totals(by[:1], Scope(meter="none")) == files.totals(by[:1], Scope(meter="none"))
    assert files.totals(["customer"], Scope(customer=CUSTOMERS[1])).rows


@pytest.mark.parametrize(
    "aggregate",
    [Aggregate("max"), Aggregate("max", window_us=1_000_000), Aggregate("latest"), Aggregate("unique", "subject"),
     Aggregate("time_weighted")],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("by", [["plan", "meter", "route"], []])
def test_aggregates_are_the_same_in_both_engines(both, aggregate, by):
    # Fails if the latest value is of the first of equal times, or if an average is rounded in another way.
    files, clickhouse = both
    for scope in (Scope(START_US, END_US, meter="tokens"), Scope(START_US + 4_000_000, START_US + 5_000_000)):
        rules = {"tokens": aggregate}
        assert clickhouse.totals(by, scope, rules) == files.totals(by, scope, rules)
    nothing = Scope(5, 6, meter="tokens")
    assert clickhouse.totals(by, nothing, {"tokens": aggregate}) == files.totals(by, nothing, {"tokens": aggregate})


def test_units_of_which_nobody_says_whether_they_are_billed_are_in_the_sum_of_the_rest(both):
    # Fails if NULL is neither billed nor not: both engines would lose the same units.
    for ledger in both:
        ((units, rest, _),) = ledger.totals([], Scope()).rows
        _, parts = ledger.query("SELECT sum(units), count(*) FILTER (WHERE billable IS NULL) FROM usage")
        ((whole, unknown),) = next(parts)
        assert units + rest == whole
        assert unknown > 0


def test_the_progress_goes_from_the_first_offset_that_is_missing_to_the_end_of_the_partition(tmp_path):
    # Fails if a partition is only reported after its first insert: a bar would have no total until then.
    load(tmp_path, [usage(1)], [usage(2), usage(3)])
    url, seen = new_url(), []
    push_all(tmp_path, url)
    load(tmp_path, [usage(4)], [usage(5), usage(6)])
    load(tmp_path, [usage(7)], part=1)
    push_all(tmp_path, url, on_progress=seen.append)
    assert [each[1:] for each in seen if each.part == 0] == [(0, 3, 6), (0, 4, 6), (0, 6, 6)]
    assert [each[1:] for each in seen if each.part == 1] == [(1, 0, 1), (1, 1, 1)]
    assert {each[1:] for each in seen[:2]} == {(0, 3, 6), (1, 0, 1)}


def test_a_trace_has_the_same_rows_in_both_engines(both):
    files, clickhouse = both
    for id_ in (record_id(1), record_id(4), record_id(19), "01M8N-NOT-HERE", "none"):
        assert clickhouse.record(id_) == files.record(id_)
    for scope in (Scope(customer="acme"), Scope(customer="b\\slash", meter="tokens"), Scope(meter="none")):
        for limit in (0, 7):
            assert clickhouse.records_of(scope, limit) == files.records_of(scope, limit)
        assert clickhouse.count_of(scope) == files.count_of(scope) == len(files.records_of(scope, 0).rows)


def rows_of(ledger, view):
    names, parts = ledger.query(f"SELECT * FROM {view}")
    rows = [dict(zip(names, row, strict=True)) for part in parts for row in part]
    for row in rows:
        for name in ("highest", "totals"):  # a map of ClickHouse cannot be NULL
            if row.get(name, 0) is None:
                row[name] = {}
    return sorted(rows, key=str)


@pytest.mark.parametrize("view", ["ledger", *VIEWS])
def test_each_view_has_the_same_rows_in_both_engines(both, view):
    # Fails if a member of `data` is read as another type, or a column is missing.
    files, clickhouse = both
    assert rows_of(clickhouse, view) == rows_of(files, view) != []


def test_a_query_reads_and_does_nothing_else(both):
    # Fails if the server is not asked to refuse writes.
    _, clickhouse = both
    for sql in ("DROP TABLE ledger_rows", "SELECT 1; DROP TABLE ledger_rows", "INSERT INTO ledger_files VALUES (1)"):
        with pytest.raises(ValueError, match="one SELECT is needed"):
            clickhouse.query(sql)
    with pytest.raises(SinkError, match="readonly"):
        clickhouse.query("SELECT * FROM file('/etc/hostname', 'LineAsString')")
    with pytest.raises(SinkError, match="yntax"):
        clickhouse.query("SELEC 1")
    assert clickhouse.query("SELECT id FROM usage WHERE false")[0] == ["id"]


class KilledError(Exception):
    """The end of a process."""


class KilledBeforeNote(ClickHouseTables):
    """Ends after an insert, before it is noted."""

    def note(self, pushed):
        raise KilledError


TOTAL = "SELECT count(*), sum(units) FROM usage"


def test_a_push_that_was_killed_after_an_insert_doubles_nothing(tmp_path):
    # Fails if nothing is noted. ClickHouse 26.9 knows equal bytes also without a token: the next test has others.
    url = new_url()
    load(tmp_path, [usage(number) for number in range(1, 11)], [usage(number) for number in range(11, 21)])
    for _ in range(2):
        with pytest.raises(KilledError):
            push_all(tmp_path, url, KilledBeforeNote)
    assert ask(url, f"SELECT count(*) FROM {ROWS}") == [(10,)]
    assert [each.first for each in push_all(tmp_path, url).last] == [0, 10]
    assert ask(url, TOTAL) == [(20, 20)]
    assert push_all(tmp_path, url).files == 0


def test_a_repeated_insert_is_known_by_its_files_name_whatever_its_bytes(tmp_path):
    # Fails without the token, and if it is not the same each time: a newer DuckDB may write other bytes of equal rows.
    url = new_url()
    load(tmp_path, [usage(number) for number in range(1, 11)])
    (file,) = LedgerFolder(tmp_path).listing().files
    with pytest.raises(KilledError):
        push_all(tmp_path, url, KilledBeforeNote)
    with ClickHouse(url) as clickhouse, Engine() as engine:
        clickhouse.execute(f"SYSTEM STOP MERGES {ROWS}")
        for number, token in enumerate((str(file), "another")):
            path = tmp_path / f"{number}.parquet"
            rows = (
                f"SELECT '{file.topic}' AS topic, {selection()} FROM read_parquet('{LedgerFolder(tmp_path).at(file)}')"
            )
            engine.run(f"COPY ({rows} ORDER BY \"offset\" DESC LIMIT 9) TO '{path}' (FORMAT parquet)")
            clickhouse.insert_file(ROWS, ["topic", *NAMES], path, token)
            assert clickhouse.run(f"SELECT count(*) FROM {ROWS}") == [((10, 19)[number],)]
        assert clickhouse.run(TOTAL) == [(10, 10)]


def test_a_file_that_was_compacted_between_two_pushes_adds_only_what_is_new(tmp_path):
    # Fails if a file is inserted whole though a part of it is in, or not at all.
    url = new_url()
    load(tmp_path, [usage(number) for number in range(1, 11)])
    push_all(tmp_path, url)
    load(tmp_path, [usage(number) for number in range(11, 26)])
    with Engine() as engine:
        compact(LedgerFolder(tmp_path), engine, Retention())
    done = push_all(tmp_path, url)
    assert [each[2:] for each in done.last] == [(10, 24, 15)]
    assert ask(url, f"SELECT count(*) FROM {ROWS}") == [(25,)]


def test_compaction_after_a_kill_doubles_nothing(tmp_path):
    # Fails if the view reads without FINAL: the union has another token than its parts.
    url = new_url()
    load(tmp_path, [usage(number) for number in range(1, 11)], [usage(number) for number in range(11, 26)])
    with pytest.raises(KilledError):
        push_all(tmp_path, url, KilledBeforeNote)
    with Engine() as engine:
        compact(LedgerFolder(tmp_path), engine, Retention())
    push_all(tmp_path, url)
    assert ask(url, f"SELECT count(*) FROM {ROWS}") == [(35,)]
    assert ask(url, TOTAL) == [(25, 25)]


def test_a_damaged_file_is_named_and_comes_later(tmp_path):
    # Fails if the highest offset says what is in.
    url = new_url()
    load(tmp_path, *[[usage(number)] for number in range(1, 4)])
    path = LedgerFolder(tmp_path).at(LedgerFolder(tmp_path).listing().files[1])
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes(len(whole) - 108) + whole[-8:])
    done = push_all(tmp_path, url)
    assert (done.files, [fault.partition(":")[0] for fault in done.faults]) == (2, [f"{TOPIC}/{path.name}"])
    with open_clickhouse(url) as ledger:
        assert ledger.faults == [f"{TOPIC} partition 0: offsets 1 to 1 are not in ClickHouse: `sidecar ledger push`"]
    path.write_bytes(whole)
    assert push_all(tmp_path, url).rows == 1
    with open_clickhouse(url) as ledger:
        assert ledger.faults == []


def test_a_database_without_a_ledger_says_how_to_get_one(tmp_path):
    with pytest.raises(SinkError, match="`sidecar ledger push` makes it"), open_clickhouse(new_url()):
        pass
    with pytest.raises(SinkError, match="not a ledger"):
        push_all(tmp_path, new_url())


@pytest.mark.parametrize(
    ("ranges", "missing"),
    [
        ([], [(10, 20)]),
        ([(0, 9), (21, 30)], [(10, 20)]),
        ([(10, 20)], []),
        ([(0, 40), (12, 13)], []),
        ([(0, 12), (15, 15)], [(13, 14), (16, 20)]),
        ([(15, 99), (10, 10)], [(11, 14)]),
    ],
)
def test_the_offsets_that_are_missing_are_what_no_range_has(ranges, missing):
    assert missing_ranges(LedgerFile(TOPIC, 0, 10, 20), ranges) == missing
