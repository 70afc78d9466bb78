"""`sidecar ledger totals`, `query` and `trace` as a user calls them."""

import json
from datetime import UTC, datetime

from tests.edge.ledger.events import instant, lines, record_id, usage


def test_a_sum_is_traced_and_a_record_is_shown(sidecar, records):
    sidecar("ledger", "load")
    sum_ = ("--customer", "c0", "--meter", "tokens", "--period", "2026-11")
    rows = json.loads(sidecar("ledger", "trace", *sum_, "--json")[1])
    assert (len(rows), sum(row["units"] for row in rows)) == (6, 28)
    status, out, _ = sidecar("ledger", "trace", record_id(2))
    assert status == 0
    assert "decision" in out
    assert "typo" in out
    assert sidecar("ledger", "trace", "nobody")[::2] == (1, "sidecar: the ledger has no record nobody\n")
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


def test_a_query_is_a_table_json_or_csv(sidecar, records):
    sidecar("ledger", "load")
    sql = "SELECT customer, sum(units)::BIGINT AS units FROM usage GROUP BY ALL ORDER BY ALL"
    assert sidecar("ledger", "query", sql)[1].split() == ["customer", "units", "c0", "33", "c1", "30"]
    assert sidecar("ledger", "query", sql, "--csv")[1] == "customer,units\nc0,33\nc1,30\n"
    assert json.loads(sidecar("ledger", "query", sql, "--json")[1])[0] == {"customer": "c0", "units": 33}
    status, _, err = sidecar("ledger", "query", "DROP VIEW usage")
    assert (status, "never changed" in err) == (2, True)
    assert sidecar("ledger", "query", "SELECT nothing FROM usage")[0] == 1
    assert sidecar("ledger", "query", "SELECT customer FROM usage WHERE false")[1:] == ("", "sidecar: no rows\n")


def test_a_meter_with_an_aggregate_has_its_quantity(sidecar, records, folder):
    # Fails if the policies are not read: peaks would be summed up.
    sidecar("ledger", "load")
    policy = "meters: { tokens: { count: 1, aggregate: max }, requests: { count: 1 } }\n"
    (folder / "p.yaml").write_text(policy)
    _, out, err = sidecar("ledger", "totals", "--period", "2026-11")
    assert [line.split()[:3] for line in out.splitlines() if "tokens" in line] == [
        ["c0", "tokens", "10"], ["c1", "tokens", "9"],
    ]  # fmt: skip
    assert err == ""
    assert "do not add up: tokens" in sidecar("ledger", "totals", "--by", "customer")[2]
    (folder / "p.yaml").write_text(policy.replace("max", "time_weighted"))
    status, out, err = sidecar("ledger", "totals")  # Fails if one meter keeps the others from being shown.
    assert (status, "tokens" in out, "requests" in out) == (0, False, True)
    assert "meter 'tokens' is left out: an average over time needs a period" in err
    status, _, err = sidecar("ledger", "totals", "--meter", "tokens")
    assert (status, "needs a period" in err) == (2, True)
    (folder / "p.yaml").unlink()
    status, out, err = sidecar("ledger", "totals", "--period", "2026-11")
    assert (status, "all meters are summed up" in err) == (0, True)
