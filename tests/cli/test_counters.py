import json
from datetime import UTC, datetime
from functools import partial

import pytest

from sidecar.edge.clock import SystemClock
from sidecar.edge.journal.command_source import CommandSource, PendingRecord
from tests.edge.ledger.events import usage
from tests.edge.ledger.ledgers import load

pytestmark = pytest.mark.redis


def test_accept_loss_ends_what_a_marker_says_and_says_so(sidecar, folder, redis_clean):
    where = {"SIDECAR_REDIS__URL": redis_clean.url}
    assert sidecar("counters", "accept-loss", "-c", "sidecar.yaml", **where)[:2] == (0, "no loss is recorded\n")
    redis_clean.cli.set("sc:store:mark", "ID 1700000000000000 0 2")
    assert sidecar("counters", "accept-loss", "-c", "sidecar.yaml", **where)[:2] == (
        0, "1 loss accepted: limits with `on_store_loss: deny` admit again within a second\n"
    )  # fmt: skip
    id_, lost_us, accepted_us, _ = redis_clean.cli.get("sc:store:mark").split()
    assert (id_, lost_us) == (b"ID", b"1700000000000000")
    assert int(accepted_us) > int(lost_us)
    assert sidecar("counters", "accept-loss", "-c", "sidecar.yaml", **where)[1] == "no loss is recorded\n"


def test_accept_loss_without_redis_is_wrong_usage(sidecar, folder):
    status, _, err = sidecar("counters", "accept-loss", "-c", "sidecar.yaml")
    assert status == 2
    assert "redis.url is not set" in err


@pytest.fixture
def used(folder, redis_clean):
    """A ledger with ten requests of a customer this month, of which Redis has counted seven; the counter's key."""
    now = datetime.fromtimestamp(int(redis_clean.cli.time()[0]), UTC)
    decision = {"mode": "exact", "limits": [{"id": "monthly", "period": "", "used": 1, "limit": 10000}]}
    records = [
        usage(number, plan="free@1", route="default", period_time=f"{now:%Y-%m-%dT%H:%M:%SZ}", decision=decision)
        for number in range(1, 11)
    ]
    load(folder / "data" / "ledger", records)
    key = f"sc:{{acme}}:q=monthly:cacme:{now:%Y-%m}"
    redis_clean.cli.set(key, 7)
    return key


def test_a_counter_below_its_records_is_raised(in_process, used, redis_clean):
    # Fails if a dry run changes it, or a limit that is not asked for is changed.
    where = {"SIDECAR_REDIS__URL": redis_clean.url}
    status, out, err = in_process("counters", "drift", "--metrics", "drift.prom", **where)
    assert (status, out.split("\t")[:3]) == (1, ["monthly", "acme", "customer acme"])
    assert out.rstrip().split("\t")[-3:] == ["7", "10", "-3"]
    assert "1 of 1 counters differ" in err
    assert "1 below: load corrections that were just recorded" in err
    assert "above" not in err
    assert in_process("counters", "rebuild", "--dry-run", **where)[0] == 1
    assert in_process("counters", "rebuild", "--limit", "other", **where)[0] == 0
    assert redis_clean.cli.get(used) == b"7"
    status, out, err = in_process("counters", "rebuild", "--customer", "acme", "--json", **where)
    assert (status, json.loads(out)["counters"][0]["difference"]) == (0, -3)
    assert "Next: `sidecar counters accept-loss`" in err
    assert redis_clean.cli.get(used) == b"10"
    assert in_process("counters", "drift", **where)[:2] == (0, "")


def test_a_counter_above_its_records_stays_unless_it_is_to_be_exact(in_process, used, redis_clean):
    # Fails if units in flight are taken out of a counter while nodes serve.
    where = {"SIDECAR_REDIS__URL": redis_clean.url}
    redis_clean.cli.set(used, 12)
    redis_clean.cli.set("sc:store:mark", "ID 1700000000000000 0 2")
    status, out, err = in_process("counters", "rebuild", **where)
    assert (status, out, redis_clean.cli.get(used)) == (0, "", b"12")
    assert "1 counter above the records stay" in err
    _, _, err = in_process("counters", "rebuild", "--exact", "--accept-loss", **where)
    assert redis_clean.cli.get(used) == b"10"
    assert "1 loss accepted" in err


def test_counters_of_a_node_without_redis_are_raised_in_its_files(in_process, used):
    # Fails if the state of the node is not saved: the next command would find the counters as they were.
    status, out, _ = in_process("counters", "drift")
    assert (status, out.rstrip().split("\t")[-3:]) == (1, ["0", "10", "-10"])
    status, _, err = in_process("counters", "rebuild")
    assert (status, "accept-loss" in err, "grant balances again: `sidecar ledger query" in err) == (0, False, True)
    assert in_process("counters", "drift")[:2] == (0, "")
    status, _, err = in_process("counters", "rebuild", "--accept-loss")
    assert (status, "redis.url is not set" in err) == (2, True)


def test_rebuild_without_a_ledger_says_what_is_missing(in_process, folder, redis_clean):
    status, _, err = in_process("counters", "drift", SIDECAR_REDIS__URL=redis_clean.url)
    assert (status, "`sidecar ledger load` makes one" in err) == (1, True)


def test_records_of_the_journal_that_are_not_loaded_count_too(in_process, used, folder, redis_clean):
    # Fails if only the ledger counts: what was not shipped at the loss would be admitted again.
    known, fresh = usage(1, plan="free@1"), usage(11, plan="free@1", route="default", decision=None, outcome="crashed")
    fresh["data"]["period_time"] = f"{datetime.fromtimestamp(int(redis_clean.cli.time()[0]), UTC):%Y-%m-%dT%H:%M:%SZ}"
    with CommandSource(folder / "data" / "journal", "//sidecar/test/n", SystemClock()) as commands:
        commands.write(
            [PendingRecord(each["id"].encode(), "acme", partial(_body, each)) for each in (known, fresh)], "1"
        )
    status, _, err = in_process("counters", "rebuild", SIDECAR_REDIS__URL=redis_clean.url)
    assert (status, redis_clean.cli.get(used)) == (0, b"11")
    assert "3 records of the journal are not in the ledger yet" in err


def _body(record, *_):
    return json.dumps(record).encode()
