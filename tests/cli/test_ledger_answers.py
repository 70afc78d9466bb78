"""`sidecar ledger totals`, `query` and `trace` as a user calls them."""

import json

from tests.edge.ledger.events import record_id


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
