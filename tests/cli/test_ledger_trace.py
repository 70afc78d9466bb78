"""`sidecar ledger trace` as a user calls it."""

import json
from datetime import UTC, datetime

from sidecar.cli import tables
from sidecar.cli.ledger_trace import _print_records
from tests.edge.ledger.events import change, event, instant, lines, record_id, usage


def load(sidecar, folder, *records):
    path = folder / "data" / "records.jsonl"
    path.parent.mkdir()
    path.write_bytes(lines(*records))
    sidecar("ledger", "load")


def test_a_sum_is_traced_and_a_record_is_shown(sidecar, records):
    sidecar("ledger", "load")
    sum_ = ("--customer", "c0", "--meter", "tokens", "--period", "2026-11")
    rows = json.loads(sidecar("ledger", "trace", *sum_, "--json")[1])
    assert (len(rows), sum(row["units"] for row in rows)) == (6, 28)
    status, out, _ = sidecar("ledger", "trace", record_id(2))
    assert status == 0
    assert "decision" in out
    assert "typo" in out
    unknown = "sidecar: the ledger has no record {}; a new one is in it after `sidecar ledger load`{}\n"
    form = "; an id has 26 letters and digits, as 01M8NXEFA000A1604YF8Y20000"
    assert sidecar("ledger", "trace", "nobody")[::2] == (1, unknown.format("nobody", form))
    assert sidecar("ledger", "trace", record_id(999))[::2] == (1, unknown.format(record_id(999), ""))
    status, _, err = sidecar("ledger", "trace")
    assert (status, "name either" in err) == (2, True)


def test_the_rows_of_a_sum_are_a_table_of_80_columns_that_says_how_many_more_there_are(sidecar, folder):
    # Fails if all columns are printed, if a model is cut at its end, or if the rest is not counted.
    models = [f"claude-sonnet-4-5-2025{number:04}" for number in (929, 930, 1001)]
    path = folder / "data" / "records.jsonl"
    path.parent.mkdir()
    path.write_bytes(lines(*[
        usage(number, {"tokens": 10**number}, billable=number != 2, dims={"model": model})
        for number, model in enumerate(models, 1)
    ]))  # fmt: skip
    sidecar("ledger", "load")
    sum_ = ("ledger", "trace", "--customer", "acme", "--meter", "tokens", "--period", "2026-11")
    status, out, err = sidecar(*sum_)
    head, *rows = out.splitlines()
    assert (status, head.split(), err) == (0, ["2026,", "UTC", "id", "units", "billable", "model"], "")
    assert max(map(len, out.splitlines())) <= 80
    assert [row.split()[2:5] for row in rows] == [
        [record_id(number), str(10**number), "no" if number == 2 else "yes"] for number in (1, 2, 3)
    ]
    assert rows[0].split()[:2] == ["11-21", "01:03:26"]
    shortened = [row.split()[5] for row in rows]
    assert [(each[:3], each[-3:]) for each in shortened] == [("cla", model[-3:]) for model in models]
    status, out, err = sidecar(*sum_, "-n", "1")
    assert (status, len(out.splitlines()), err) == (0, 2, "sidecar: and 2 more rows; `-n 0` shows all\n")
    status, out, err = sidecar(*sum_, "-n", "2", "--json")
    assert ([row["model"] for row in json.loads(out)], err) == (
        models[:2], "sidecar: and 1 more row; `-n 0` shows all\n",
    )  # fmt: skip
    assert sidecar(*sum_, "-n", "3")[2] == ""


def test_the_rows_of_a_sum_say_what_the_question_leaves_open(sidecar, folder):
    # Fails if units of two meters cannot be told apart, or times of two years.
    path = folder / "data" / "records.jsonl"
    path.parent.mkdir()
    old = datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC)
    path.write_bytes(lines(usage(1, {"tokens": 5, "pages": 2}), usage(2, period_time=instant(0, old))))
    sidecar("ledger", "load")
    head, *rows = sidecar("ledger", "trace", "--period", "2026-11")[1].splitlines()
    assert head.split() == ["2026,", "UTC", "id", "customer", "meter", "units", "billable", "model"]
    assert sorted(row.split()[3:6] for row in rows) == [["acme", "pages", "2"], ["acme", "tokens", "5"]]
    head, first, *_ = sidecar("ledger", "trace", "--customer", "acme")[1].splitlines()
    assert (head.split()[0], first.split()[:2]) == ("UTC", ["2025-12-31", "23:59:59"])


def test_a_time_that_the_calendar_does_not_have_is_shown_as_it_is(sidecar, folder):
    # Fails if it ends the command: one record of a producer with a wrong clock would hide the whole sum.
    path = folder / "data" / "records.jsonl"
    path.parent.mkdir()
    path.write_bytes(lines(*[
        usage(number, period_time=time) for number, time in enumerate(("12026-01-01T00:00:00Z", "infinity"), 1)
    ]))  # fmt: skip
    sidecar("ledger", "load")
    out = sidecar("ledger", "trace", "--customer", "acme")[1]
    assert [line.split()[0] for line in out.splitlines()] == ["UTC", "317336745600000000", "-"]


def test_a_record_is_shown_with_its_fields_once_and_its_units_in_a_table(sidecar, folder):
    # Fails if each meter repeats the fields, or times are numbers.
    line = [{"model": "m", "usage": {"tokens": 60}}, {"model": "n", "usage": {"tokens": 30}}]
    load(sidecar, folder, usage(1, {"requests": 1, "tokens": 90}, usage_lines=line), usage(2))
    out = sidecar("ledger", "trace", record_id(1))[1]
    assert [line.split() for line in out.splitlines()[-4:]] == [
        ["line", "model", "meter", "units"],
        ["0", "-", "requests", "1"], ["0", "m", "tokens", "60"], ["1", "n", "tokens", "30"],
    ]  # fmt: skip
    names = [line.split()[0] for line in out.splitlines()[1:-4]]
    assert len(names) == len(set(names)) > 20
    assert not {"line", "model", "meter", "units", "first"} & set(names)
    assert f"  time                 {instant(1)}\n  period_time          {instant(1)}\n" in out
    rows = json.loads(sidecar("ledger", "trace", record_id(1), "--json")[1])
    assert ([row["units"] for row in rows], {row["customer"] for row in rows}) == ([1, 60, 30], {"acme"})


def test_a_record_is_shown_with_the_postings_of_its_charge_and_of_its_changes(sidecar, folder):
    # Fails if only what the record itself led to is listed: credit that a void gave back would not be seen.
    def posting(number, cause, delta):
        data = {"customer": "acme", "change": "settle", "delta": delta}
        return event(number, "posting", data, causationid=cause)

    correction, void = (change(3, record_id(1), {"requests": 1}), change(5, record_id(1), {"requests": -2}, "void"))
    load(sidecar, folder, usage(1), posting(2, record_id(1), -5), correction, posting(4, correction["id"], -1),
         void, posting(6, void["id"], 6), usage(7), posting(8, record_id(7), -9))  # fmt: skip
    rows = json.loads(sidecar("ledger", "trace", record_id(1), "--json")[1])
    assert [row["kind"] for row in rows] == ["usage", "posting", "correction", "posting", "void", "posting"]
    out = sidecar("ledger", "trace", record_id(1))[1]
    assert [number for number in ("-5", "-1", "6", "-9") if f'"delta":{number}' in out] == ["-5", "-1", "6"]


def test_long_json_is_folded_on_a_terminal(monkeypatch, capsys):
    decision = json.dumps({"limits": [{"limit": f"l{number}", "units": 1} for number in range(9)]})
    row = {"topic": "t", "part": 0, "offset": 1, "first": True, "decision": decision}
    _print_records([row])
    assert f"  decision             {decision}\n" in capsys.readouterr().out
    monkeypatch.setattr(tables, "terminal_width", lambda: 80)
    _print_records([row])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "".join(line[23:] for line in out.splitlines()[4:]) == decision.rstrip()
