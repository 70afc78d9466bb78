"""`sidecar ledger verify | seal | retire` on files of a ledger; the record of a retirement is loaded again."""

import json
import socket
import time
from datetime import UTC, datetime, timedelta
from unittest.mock import ANY

import orjson
import pytest
from click.testing import CliRunner

from sidecar.cli import ledger_proof
from sidecar.core.errors import SidecarError
from sidecar.edge.clock import SystemClock
from sidecar.edge.journal.command_source import COMMANDS
from tests.edge.journal.logs import entries
from tests.edge.kafka.test_bulk import producer, transaction
from tests.edge.kafka.topics import make_topic
from tests.ledger.parquet import BASE_US, checkpoint, event, write
from tests.ledger.test_verify import LATER_US, S, denial, good, usage


@pytest.fixture
def run(folder, monkeypatch):
    """Run a command on `folder`'s ledger: its exit status, standard output and standard error."""
    monkeypatch.chdir(folder)
    with (folder / "sidecar.yaml").open("a") as settings:
        settings.write("ledger: { dir: ledger }\n")

    def command(name, *arguments):
        done = CliRunner().invoke(getattr(ledger_proof, name), arguments, standalone_mode=False)
        if done.exception is not None:
            raise done.exception
        return done.return_value or 0, done.stdout, done.stderr

    return command


@pytest.fixture
def ledger(folder):
    write(folder / "ledger", good())
    write(folder / "ledger", [denial()], topic="usage.denials")
    return folder / "ledger"


def test_a_whole_ledger_is_verified_and_sealed(run, ledger):
    status, out, err = run("verify")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == (
        "whole: 0 missing, 0 numbers used again, 0 differences of units, 0 rejected, 0 without original, 0 copies"
    )
    status, out, err = run("seal_", "--period", "2026-11")
    assert (status, out) == (0, f"{S}\tcomplete\t7\t\n")
    assert err.startswith("2026-11: sealed at 20")
    status, out, _ = run("seal_", "--period", "2026-11", "--json")
    sealed = json.loads(out)
    assert (status, sealed["sealed"], sealed["new"], sealed["sources"][0]["complete"]) == (0, True, False, True)
    assert sealed["over"] is True
    status, out, _ = run("seal_", "--period", "2099-01", "--json")
    assert (status, json.loads(out)["sealed"], json.loads(out)["over"]) == (1, False, False)
    assert "2099-01: not sealed: it is not over" in run("seal_", "--period", "2099-01")[2]
    # Fails if the sources are shown as they are now: a month that is sealed would look incomplete.
    write(ledger, [event("source", "//later", 1, {"state": "started", "about": "//later"})], part=1)
    assert run("seal_", "--period", "2026-11")[:2] == (0, f"{S}\tcomplete\t7\t\n")


def test_what_is_missing_is_status_1_and_in_words(run, ledger):
    # Fails if the status does not follow the verdict.
    write(ledger, [event("usage", S, 9, usage={"tokens": 5}), usage(9, id_="x")])
    status, out, err = run("verify")
    assert (status, out.splitlines()[-1].partition(",")[0]) == (1, "NOT whole: 1 missing")
    assert err.splitlines() == [
        f"missing: {S}: 8 to 8; 8 numbers are here",
        "  next: `sidecar ledger load`; then `sidecar ledger seal --period 2026-11` says why",
        f"number used again: {S} 9: 2 ids",
    ]
    status, out, _ = run("verify", "--json")
    report = json.loads(out)
    assert (status, report["whole"], report["sources"][S]["gaps"]) == (1, False, [[8, 8]])
    status, out, err = run("seal_", "--period", "2027-01")
    assert (status, out) == (1, f"{S}\tincomplete\t9\tnumbers 8 to 8\n")  # number 9 contradicts its end
    other = "//sidecar/eu/n/1/1"
    write(ledger, [event("source", other, 1, {"state": "started", "about": other})], part=1)
    status, out, err = run("seal_", "--period", "2026-11")
    assert (status, out) == (
        1,
        f"{S}\tcomplete\t7\t\n{other}\tincomplete\t1\tno checkpoint after the end; nor before it\n",
    )
    assert err == "2026-11: not sealed: 1 source of 2 incomplete\n"
    assert not (ledger / "sealed" / "2026-11.json").exists()


def test_a_source_is_retired_by_a_record_after_which_the_month_can_be_sealed(run, folder):
    # Fails if the retirement is about another source, or its own source is not complete.
    ledger = folder / "ledger"
    write(ledger, [usage(1), usage(3), checkpoint(S, 4, BASE_US, open_exchanges=1)])
    assert run("seal_", "--period", "2026-11")[0] == 1
    status, out, err = run("retire", S, "--reason", "the machine burned", "--actor", "ann")
    assert (status, err) == (0, f"{S}: retired\n")
    assert "may be missing: numbers 2 to 2\n" in out
    records = [orjson.loads(entry.body) for entry in entries(folder / "data" / "journal", COMMANDS)]
    assert [record["type"].split(".")[1] for record in records] == ["source", "source", "audit", "checkpoint"]
    loaded = [
        event(record["type"].split(".")[1], record["source"], int(record["sequence"]), record["data"],
              id_=record["id"], time_us=LATER_US)
        for record in records
    ]  # fmt: skip
    write(ledger, loaded, part=1)
    status, out, _ = run("seal_", "--period", "2026-11", "--json")
    assert (status, [each["state"] for each in json.loads(out)["sources"]]) == (0, ["retired", "complete"])
    status, out, err = run("retire", S, "--reason", "again", "--json")
    assert (status, json.loads(out)["done"]) == (0, "exists")
    assert len(entries(folder / "data" / "journal", COMMANDS)) == len(records)


def test_the_command_that_an_unknown_source_is_answered_with_lists_every_source_that_can_be_retired(run, ledger):
    # Fails if `verify` is named there: it lists only sources with gaps, and none that is only named by another.
    write(ledger, [event("source", "//n/2", 1, {"state": "started", "about": "//n/2", "predecessor": "//n/1"})], part=1)
    with pytest.raises(SidecarError, match="`sidecar ledger seal --period 2026-11` lists all sources"):
        run("retire", "//n/3", "--reason", "lost")
    _, out, _ = run("seal_", "--period", "2026-11")
    assert [line.split("\t")[0] for line in out.splitlines()] == ["//n/1", "//n/2", S]
    assert run("verify")[1:] == (ANY, "")


def test_a_rejected_line_keeps_the_month_open_until_it_is_accepted_and_the_seal_has_the_number(run, ledger):
    # Fails if the month is sealed: a line that is in no sum may be usage that is to be billed.
    write(ledger, [b"{half"], part=1)
    status, _, err = run("seal_", "--period", "2026-11")
    assert (status, err) == (
        1, ("2026-11: not sealed: 1 rejected line may be of it: `sidecar ledger query 'FROM rejected'`; "
        "--accept-rejected seals it all the same\n")
    )  # fmt: skip
    assert json.loads(run("seal_", "--period", "2026-11", "--json")[1])["rejected"] == 1
    status, out, _ = run("seal_", "--period", "2026-11", "--accept-rejected", "--json")
    assert (status, json.loads(out)["document"]["rejected"]) == (0, 1)


def test_a_month_that_was_sealed_says_so_and_how_many_records_came_after_it(run, ledger):
    # Fails if late records are only in `verify`: who repeats a seal before billing would not know of them.
    _, _, first = run("seal_", "--period", "2026-11")
    sealed = first.removeprefix("2026-11: ").rstrip()
    assert run("seal_", "--period", "2026-11")[2] == f"2026-11: already {sealed}\n"
    write(ledger, [usage(8), event("void", S, 9, {"usage": {"tokens": -5}, "reason": "r"}, cause=f"{S} 2")])
    status, _, err = run("seal_", "--period", "2026-11")
    assert (status, err.splitlines()) == (0, [
        "late: 2026-11: 1 record loaded after it was sealed: requests +1, tokens +5",
        "late: 2026-11: 1 record recorded by operators after it was sealed: tokens -5",
        f"2026-11: already {sealed}",
        ("sidecar: the units of late records are in `sidecar ledger totals --period 2026-11` and not in the seal: "
        "bill or credit the difference with the next invoice"),
    ])  # fmt: skip
    late = json.loads(run("seal_", "--period", "2026-11", "--json")[1])["late"]
    assert [(each["by_operator"], each["records"]) for each in late] == [(False, 1), (True, 1)]


@pytest.mark.parametrize("period", ["2026", "2026-13", "2026-11-01", "x"])
def test_a_period_that_is_not_a_month_is_wrong_usage(run, ledger, period):
    with pytest.raises(Exception, match="is not a month: write 2026-11"):
        run("seal_", "--period", period)


CONFIG = 'kafka: {{ bootstrap_servers: "{}", topics: {{ records: "{}", denials: "{}.denials" }} }}\n'


# Fails if Kafka is not asked, or its silence is taken for a yes.
def test_a_month_stays_open_while_kafka_does_not_answer_unless_it_is_not_to_be_asked(run, ledger, folder):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with (folder / "sidecar.yaml").open("a") as settings:
            settings.write(CONFIG.format(f"127.0.0.1:{closed.getsockname()[1]}", "r", "r"))
        status, _, err = run("seal_", "--period", "2026-11")
        assert (status, err.splitlines()[-1]) == (1, "2026-11: not sealed: records are not loaded")
        assert "Kafka may have records that are not loaded: repeat it, or seal with --without-kafka" in err
        status, out, _ = run("seal_", "--period", "2026-11", "--json")
        assert (status, len(json.loads(out)["unread"]), json.loads(out)["sealed"]) == (1, 1, False)
        status, out, _ = run("seal_", "--period", "2026-11", "--without-kafka", "--json")
        assert (status, json.loads(out)["document"]["kafka_asked"]) == (0, False)


@pytest.mark.kafka
def test_a_month_is_sealed_when_all_of_it_is_loaded_beside_records_of_the_next(sidecar, folder, kafka_server):
    bootstrap, topic = kafka_server.bootstrap, f"s{time.monotonic_ns()}"
    make_topic(bootstrap, topic, 2)
    make_topic(bootstrap, f"{topic}.denials", 1)
    with (folder / "sidecar.yaml").open("a") as settings:
        settings.write("ledger: { dir: ledger }\n" + CONFIG.format(bootstrap, topic, topic))
    made = producer(bootstrap, topic)
    transaction(made, topic, [orjson.dumps(record) for record in good()])
    assert sidecar("ledger", "load")[0] == 0
    transaction(made, f"{topic}.denials", [orjson.dumps(denial())])
    transaction(made, topic, [orjson.dumps(event("usage", S, 8, {"usage": {"tokens": 1}}, time_us=LATER_US))])
    status, _, err = sidecar("ledger", "seal", "--period", "2026-11")
    assert (status, err.splitlines()[0]) == (
        1, f"sidecar: {topic}.denials partition 0: 2 offsets are not loaded: `sidecar ledger load`"
    )  # fmt: skip
    assert sidecar("ledger", "load")[0] == 0
    transaction(made, topic, [orjson.dumps(event("usage", S, 9, {"usage": {"tokens": 1}}, time_us=LATER_US))])
    status, out, err = sidecar("ledger", "seal", "--period", "2026-11", "--json")
    assert (status, json.loads(out)["document"]["kafka_asked"]) == (0, True), err


def test_a_month_is_backfilled_shipped_loaded_sealed_and_changed(sidecar, folder):
    # Fails if a command's source is not complete by itself, if its totals count other units than the ledger's rows, or
    # if a void after the seal is a fault.
    with (folder / "sidecar.yaml").open("a") as settings:
        settings.write("ledger: { dir: ledger }\n")
    month = datetime.fromtimestamp(SystemClock().now_us() / 1e6, UTC).replace(day=1) - timedelta(days=2)
    period = f"{month:%Y-%m}"
    line = {
        "customer": "acme", "key_id": "k", "subject": "app", "plan": "pro@3", "route": "api",
        "time": f"{period}-21T14:03:20Z", "usage": {"requests": 120},
    }  # fmt: skip
    (folder / "lost.jsonl").write_text(json.dumps(line) + "\n")
    assert sidecar("records", "backfill", "--file", "lost.jsonl", "--batch", "b", "--reason", "outage")[0] == 0
    assert sidecar("ship")[0] == 0
    assert sidecar("ledger", "load")[0] == 0
    status, out, err = sidecar("ledger", "verify")
    assert (status, out.splitlines()[-1][:17]) == (0, "whole: 0 missing,"), err
    status, out, _ = sidecar("ledger", "seal", "--period", period, "--json")
    assert (status, json.loads(out)["document"]["units"]) == (0, {"requests": {"billable": 120, "not_billable": 0}})
    [id_] = [
        record["id"]
        for record in map(json.loads, (folder / "data" / "records.jsonl").read_text().splitlines())
        if record["type"] == "sidecar.usage.v1"
    ]
    assert sidecar("records", "void", id_, "--reason", "test")[0] == 0
    assert sidecar("ship")[0] == 0
    assert sidecar("ledger", "load")[0] == 0
    status, _, err = sidecar("ledger", "verify")
    assert (status, err) == (0, f"late: {period}: 1 record recorded by operators after it was sealed: requests -120\n")
