"""`sidecar ledger totals` and `query` as a user calls them."""

import json
import subprocess
import sys


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


def test_the_lines_of_csv_end_as_lines_of_unix_do(sidecar, records):
    # Fails if they end with CR LF: `cut` and `sort` would have a CR in the last column.
    sidecar("ledger", "load")
    sql = "SELECT customer, sum(units)::BIGINT AS units FROM usage GROUP BY ALL ORDER BY ALL"
    command = [sys.executable, "-m", "sidecar", "ledger", "query", sql, "--csv"]
    done = subprocess.run(command, cwd=records.parents[1], capture_output=True, check=True)
    assert done.stdout == b"customer,units\nc0,33\nc1,30\n"


def test_a_sum_without_rows_names_what_is_unknown_and_what_is_near(sidecar, records):
    # Fails if a misspelt customer looks like one without usage: nothing would be billed.
    sidecar("ledger", "load")
    for command in ("totals", "trace"):
        _, out, err = sidecar("ledger", command, "--customer", "cc0", "--meter", "tokns")
        assert (out, err.splitlines()) == ("", [
            "sidecar: the ledger has no usage of the customer 'cc0': did you mean 'c0'?",
            "sidecar: the ledger has no usage of the meter 'tokns': did you mean 'tokens'?",
        ])  # fmt: skip
        _, _, err = sidecar("ledger", command, "--customer", "zzz")
        assert err == "sidecar: the ledger has no usage of the customer 'zzz': known: c0, c1\n"
        _, _, err = sidecar("ledger", command, "--customer", "c0", "--period", "2026-12")
        assert err == "sidecar: the ledger has no usage of that; new usage is in it after `sidecar ledger load`\n"


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
