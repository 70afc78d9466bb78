"""Rows of records: Σ units is the record's usage, and nothing that came is lost."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.edge.ledger.events import event, record_id, usage
from tests.edge.ledger.ledgers import ask, load

PARTS = "SELECT line, model, meter, units FROM usage ORDER BY line, meter"


def line(model, units=None):
    return {"model": model, "kinds": {}} | ({} if units is None else {"usage": units})


def test_a_record_has_a_row_for_each_meter_and_its_facts_once(tmp_path):
    load(tmp_path, [usage(1, {"requests": 1, "tokens": 90}, usage_lines=[line("m")], dims={"service_tier": "flex"})])
    assert ask(tmp_path, PARTS) == [(0, "m", "requests", 1), (0, "m", "tokens", 90)]
    # Fails if `first` is true on each row, or duration_us is repeated: sums over rows would count it twice.
    assert ask(tmp_path, "SELECT count(*) FILTER (first), sum(duration_us), count(decision) FROM usage") == [(1, 10, 1)]
    row = "SELECT DISTINCT customer, account, key_id, plan, route, tier, status, billable, reason, sequence FROM usage"
    assert ask(tmp_path, row) == [
        ("acme", "acme", "k_acme", "pro@3", "chat", "flex", 200, True, "plan:pro", 1)
    ]  # fmt: skip


def test_the_period_is_that_of_the_reservation(tmp_path):
    before = usage(1, period_time="2026-10-31T23:59:59.999999Z", envelope={"time": "2026-11-01T00:00:01.000000Z"})
    load(tmp_path, [before, usage(2, period_time=None, envelope={"time": "2026-11-01T00:00:00.000000Z"})])
    # Fails if period_us is the record's time: the exchange would be in November.
    assert ask(tmp_path, "SELECT epoch_us(make_timestamp(period_us)) - 1793491200000000 FROM usage ORDER BY 1") == [
        (-1,),
        (0,),
    ]


def test_a_record_without_usage_has_one_row(tmp_path):
    load(tmp_path, [usage(1, {}), usage(2, {}, usage_lines=[line("m", {}), line("n", {})])])
    assert ask(tmp_path, "SELECT meter, units, first FROM usage") == [(None, None, True)] * 2


# Fails if a line's units are added to the record's, or the rest is left out.
def test_several_lines_have_rows_of_their_own_and_the_rest_belongs_to_no_model(tmp_path):
    lines = [line("m", {"tokens": 60}), line("n", {"tokens": 30})]
    load(tmp_path, [usage(1, {"requests": 1, "tokens": 90}, usage_lines=lines)])
    assert ask(tmp_path, PARTS) == [(0, None, "requests", 1), (0, "m", "tokens", 60), (1, "n", "tokens", 30)]
    assert ask(tmp_path, "SELECT count(*) FILTER (first) FROM usage") == [(1,)]


@pytest.mark.parametrize(
    "lines",
    [
        [line("m", {"tokens": 61}), line("n", {"tokens": 30})],
        [line("m", {"tokens": 60}), line("n", {"tokens": 30, "other": 1})],
        [line("m", {"tokens": 60}), line("n", {"tokens": 30.5})],
        [line("m"), line("n")],
    ],
)
def test_lines_that_do_not_add_up_are_not_taken(tmp_path, lines):
    load(tmp_path, [usage(1, {"requests": 1, "tokens": 90}, usage_lines=lines)])
    assert ask(tmp_path, PARTS) == [(0, None, "requests", 1), (0, None, "tokens", 90)]


FAULTY = {
    "not JSON": b"{nonsense",
    "not JSON ": b"",
    "not a JSON object": b"[1]",
    "no source": usage(1, envelope={"source": ""}),
    "no id": usage(1, envelope={"id": ""}),
    "sequence: not a number from 1 to 68719476735": usage(1, envelope={"sequence": "0"}),
    "sequence: not a number from 1 to 68719476735 ": usage(1, envelope={"sequence": "68719476736"}),
    "time: not a time": usage(1, envelope={"time": "soon"}),
    "type: not sidecar.KIND.vN": usage(1, envelope={"type": "other"}),
    "data: not an object": usage(1, envelope={"data": [1]}),
    "data.customer: missing": usage(1, customer=None, envelope={"partitionkey": "x"}),
    "data.period_time: not a time": usage(1, period_time="never"),
    "data.billable: missing": usage(1, billable=None),
    "data.usage: missing, or not an object": usage(1, [1]),
    "data.usage: units that are not integers of 64 bits": usage(1, {"requests": 1.5}),
    "data.usage: units that are not integers of 64 bits ": usage(1, {"requests": "1"}),
    "data.usage: units that are not integers of 64 bits  ": usage(1, {"requests": None}),
    "data.usage: units that are not integers of 64 bits   ": usage(1, {"requests": 2**63}),
    "data.usage: units below 0": usage(1, {"requests": -1}),
    "data.status: not a status": usage(1, status=10**12),
    "data.attempts: too many": usage(1, attempts=2**31),
    "data.usage_lines: more than 1000": usage(1, {"requests": 0}, usage_lines=[{"model": "m", "usage": {}}] * 1001),
    "data.highest: not whole numbers by stream": event(1, "checkpoint", {"highest": {"records": 2**63}, "totals": {}}),
    "data.totals: not whole numbers by meter": event(
        1, "checkpoint", {"highest": {"records": 1}, "totals": {"requests": "many"}}
    ),
}


# Fails if DuckDB's casts decide: they read 1.5 as 2, "1" as 1 and null as nothing.
@pytest.mark.parametrize("fault", FAULTY)
def test_a_record_that_is_wrong_is_set_aside_with_its_text(tmp_path, fault):
    given_text = FAULTY[fault] if isinstance(FAULTY[fault], bytes) else orjson.dumps(FAULTY[fault])
    (loaded,) = load(tmp_path, [given_text, usage(2)])
    assert (loaded.records, loaded.rejected) == (2, 1)
    rejected = 'SELECT "offset", fault, data FROM rejected'
    assert ask(tmp_path, rejected) == [(0, fault.rstrip(), given_text.decode())]
    assert ask(tmp_path, "SELECT sum(units), count(*) FROM usage") == [(1, 1)]


def test_texts_that_are_not_a_line_are_carried_whole(tmp_path):
    pretty = orjson.dumps(usage(1), option=orjson.OPT_INDENT_2)
    bad = [b"\xff\xfe", b"a\nb\x01c\r\n", b"\x00"]
    (loaded,) = load(tmp_path, [pretty, *bad, usage(2, customer="Ærø ¯\\_(ツ)_/¯ \x7f")])
    assert (loaded.records, loaded.rejected) == (5, 3)
    texts = [orjson.loads(text) for (text,) in ask(tmp_path, 'SELECT data FROM rejected ORDER BY "offset"')]
    assert texts == ["\\xff\\xfe", "a\nb\x01c\r\n", "\x00"]
    assert ask(tmp_path, 'SELECT customer FROM usage ORDER BY "offset"') == [("acme",), ("Ærø ¯\\_(ツ)_/¯ \x7f",)]


def test_other_kinds_have_one_row_with_their_data(tmp_path):
    data = {"customer": "acme", "unit": "USD", "digits": 9, "change": "settle", "delta": -5, "balance": 95}
    unknown = {"anything": [1, {"usage": {"a": 1}}], "usage": {"x": 1, "y": 2}}
    later = event(3, "usage", {}, type="sidecar.usage.v2")
    load(tmp_path, [event(1, "posting", data, causationid=record_id(9)), event(2, "future", unknown), later])
    assert ask(tmp_path, "SELECT kind FROM records ORDER BY kind") == [("future",), ("posting",), ("usage.v2",)]
    assert ask(tmp_path, "SELECT change, delta, cause, unit FROM postings") == [("settle", -5, record_id(9), "USD")]
    assert orjson.loads(ask(tmp_path, "SELECT data FROM ledger WHERE kind = 'future'")[0][0]) == unknown
    assert ask(tmp_path, "SELECT count(*) FROM usage") == [(0,)]


def test_a_line_longer_than_duckdb_expects_is_read(tmp_path):
    (loaded,) = load(tmp_path, [usage(1, path="/" + "é" * 3_000_000)])
    assert (loaded.records, loaded.rejected) == (1, 0)


UNITS = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(0, 1 << 62), max_size=3)


# Fails if a meter that some lines have and the record does not is kept, or the rest is put on each line.
@settings(max_examples=10)
@given(records=st.lists(st.tuples(UNITS, st.lists(UNITS, max_size=3), st.booleans()), max_size=12))
def test_the_sum_over_rows_is_the_records_usage(tmp_path_factory, records):
    folder = tmp_path_factory.mktemp("ledger")
    made, expected = [], {}
    for number, (units, parts, adds_up) in enumerate(records, 1):
        total = dict(units)
        for part in parts if adds_up else ():
            for meter, amount in part.items():
                if total.get(meter, 0) + amount < 1 << 63:
                    total[meter] = total.get(meter, 0) + amount
        made.append(usage(number, total, usage_lines=[line(f"m{n}", part) for n, part in enumerate(parts)] or None))
        expected[record_id(number)] = total
    load(folder, [*made, usage(999_999, {})])
    sums = "SELECT id, coalesce(map(list(meter), list(units)), MAP {}) FROM (SELECT id, meter, sum(units) AS units FROM usage WHERE meter IS NOT NULL GROUP BY ALL) GROUP BY id"  # noqa: E501
    assert {id_: dict(units) for id_, units in ask(folder, sums)} == {i: u for i, u in expected.items() if u}
    assert ask(folder, "SELECT count(*) FROM records") == [(len(records) + 1,)]
