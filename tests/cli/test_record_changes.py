"""`sidecar records void | correct | backfill`, as an operator uses them: the records arrive where others do."""

import gzip
import json
import os
import pwd
import shutil
from datetime import UTC, datetime

import pytest

from sidecar.core.record.frame import RECORD, encode_frame, segment_name

ID = "01M8N97TG90000000000000001"
DATA = {
    "customer": "acme", "key_id": "k", "plan": "free@1", "route": "api", "method": "GET", "path": "/", "status": 200,
    "usage": {"requests": 1, "tokens": 9}, "quality": "exact", "billable": True, "billable_reason": "plan:free",
    "outcome": "ok", "dims": {}, "attempts": 1, "client_disconnected": False, "duration_us": 1, "upstream_us": 1,
    "bytes_in": 0, "bytes_out": 0,
}  # fmt: skip
USAGE = {
    "specversion": "1.0", "type": "sidecar.usage.v1", "dataschema": "urn:sidecar:schema/usage.v1.json",
    "source": "//sidecar/local/n/0/1", "sequence": f"{1:018d}", "id": ID, "subject": "app", "partitionkey": "acme",
    "time": "2026-11-30T03:51:06.505000Z", "data": DATA,
}  # fmt: skip
LINE = {
    "customer": "acme", "key_id": "k_7f", "subject": "app", "plan": "pro@3", "route": "api",
    "time": "2026-11-21T14:03:20Z", "usage": {"requests": 120},
}  # fmt: skip


@pytest.fixture
def place(folder):
    worker = folder / "data" / "journal" / "0"
    worker.mkdir(parents=True)
    frame = encode_frame(RECORD, "records", 1, ID.encode(), b"acme", json.dumps(USAGE).encode())
    (worker / segment_name(1, 1)).write_bytes(frame)
    return folder


def records(folder):
    return [json.loads(line) for line in (folder / "data" / "records.jsonl").read_text().splitlines()]


def test_a_record_is_corrected_and_void_and_the_stream_stays_whole(sidecar, place):
    # Fails if the change gets the number of a worker's source, or the journal of commands is not shipped.
    status, out, err = sidecar("records", "correct", ID, "--units", "tokens=-2", "--id", "t1", "--reason", "twice")
    assert (status, len(out)) == (0, 27)
    assert f"recorded a correction of {ID}: tokens -2, customer acme, 2026-11-30T03:51:06.505000Z" in err
    status, out, _ = sidecar("records", "void", ID, "--reason", "test", "--actor", "ann", "--json")
    done = json.loads(out)
    assert (status, done["done"], done["usage"]) == (0, "recorded", {"requests": -1, "tokens": -7})
    assert sidecar("ship")[0] == 0
    status, out, err = sidecar("records", "void", ID, "--reason", "again")
    assert (status, out.strip()) == (0, done["id"])
    assert err.startswith(
        f"{ID} is already void; nothing was recorded\nnothing given back: the key k is not registered"
    )
    assert sidecar("records", "verify")[0] == 0
    status, out, _ = sidecar("records", "count", "--json")
    assert json.loads(out)["totals"] == {"acme": {"requests": 0, "tokens": 0}}
    user = pwd.getpwuid(os.getuid()).pw_name
    assert [record["data"]["actor"] for record in records(place) if "causationid" in record] == [user, "ann"]


@pytest.mark.parametrize("billable", [True, False])
def test_changes_are_in_the_same_sums_of_records_and_of_the_ledger(sidecar, place, billable):
    # Fails if a change does not say `billable`, or one of the two does not read it.
    worker = place / "data" / "journal" / "0"
    usage = USAGE | {"data": DATA | {"billable": billable}}
    frame = encode_frame(RECORD, "records", 1, ID.encode(), b"acme", json.dumps(usage).encode())
    (worker / segment_name(1, 1)).write_bytes(frame)
    assert sidecar("records", "correct", ID, "--units", "tokens=-2", "--reason", "twice")[0] == 0
    assert sidecar("ship")[0] == 0
    with_original = place / "data" / "records.jsonl"
    (place / "later.jsonl").write_text("".join(with_original.read_text().splitlines(True)[1:]))
    for file, tokens in ((with_original, 7), (place / "later.jsonl", -2)):
        ledger = place / file.stem
        status, out, _ = sidecar("records", "count", "--file", str(file), "--may-begin-late", "--json")
        counted = json.loads(out)["totals"].get("acme", {}).get("tokens", 0)
        assert (status, counted) == (0, tokens if billable else 0)
        assert sidecar("ledger", "load", "--file", str(file), SIDECAR_LEDGER__DIR=str(ledger))[0] == 0
        out = sidecar("ledger", "totals", "--meter", "tokens", "--json", SIDECAR_LEDGER__DIR=str(ledger))[1]
        [sums] = json.loads(out)["totals"]
        assert (sums["units"], sums["not_billable"]) == ((tokens, 0) if billable else (0, tokens))


@pytest.fixture
def rotated(sidecar, place):
    """The record is in the rotated file, and a correction of 7 of its 9 tokens in the sink's file."""
    assert sidecar("ship")[0] == 0
    sink = place / "data" / "records.jsonl"
    sink.rename(place / "data" / "records.jsonl.1")
    arguments = ("records", "correct", ID, "--units", "tokens=-7", "--id", "t1", "--reason", "twice")
    assert sidecar(*arguments, "--file", "data/records.jsonl.1")[0] == 0
    assert sidecar("ship")[0] == 0
    assert len(records(place)) >= 3
    shutil.rmtree(place / "data" / "journal")  # it has the last records of a source after they were shipped too
    return place


@pytest.mark.parametrize("file", [(), ("--file", "data/records.jsonl.1")])
def test_changes_are_seen_in_all_files_after_a_rotation(sidecar, rotated, file):
    # Fails if `--file` is read instead of the sink's file, or the sink's file without those it was rotated to.
    status, _, err = sidecar("records", "correct", ID, "--units", "tokens=-7", "--reason", "again", *file)
    assert (status, f"record {ID} has 2 tokens: this correction would leave -5" in err) == (1, True)
    status, out, _ = sidecar("records", "void", ID, "--reason", "test", "--json", *file)
    assert (status, json.loads(out)["usage"]) == (0, {"requests": -1, "tokens": -2})
    assert sidecar("ship")[0] == 0
    assert sidecar("records", "verify")[0] == 0
    out = sidecar("records", "count", "--json")[1]
    assert json.loads(out)["totals"] == {"acme": {"requests": 0, "tokens": 0}}


def test_a_change_is_refused_while_earlier_ones_may_be_in_a_compressed_file(sidecar, rotated):
    # Fails if compressed files are passed over: the second correction would leave -5 tokens.
    data = rotated / "data"
    sink = data / "records.jsonl"
    (data / "records.jsonl.1").rename(data / "records.jsonl.2")
    (data / "records.jsonl.1.gz").write_bytes(gzip.compress(sink.read_bytes()))
    sink.rename(rotated / "copy")
    arguments = ("records", "correct", ID, "--units", "tokens=-7", "--reason", "again")
    status, out, err = sidecar(*arguments)
    assert (status, out) == (1, "")
    assert "records.jsonl.1.gz was not read, since compressed: unpack with `gunzip -k`" in err
    for file in ("--file", "copy"), ():
        if not file:
            shutil.copy(rotated / "copy", data / "records.jsonl.1")
        status, _, err = sidecar(*arguments, *file)
        assert (status, "has 2 tokens: this correction would leave -5" in err) == (1, True)
    (data / "records.jsonl.1").unlink()
    os.utime(data / "records.jsonl.1.gz", (1_600_000_000, 1_600_000_000))  # before the record: nothing of it is there
    assert sidecar("records", "correct", ID, "--units", "tokens=+1", "--reason", "more")[0] == 0


def test_a_record_that_may_be_in_a_compressed_file_is_said_to_be_unread(sidecar, rotated):
    data = rotated / "data"
    (data / "records.jsonl.1.gz").write_bytes(gzip.compress((data / "records.jsonl.1").read_bytes()))
    (data / "records.jsonl.1").unlink()
    status, _, err = sidecar("records", "void", ID, "--reason", "test")
    assert (status, f"no record has the id {ID}" in err, "records.jsonl.1.gz was not read" in err) == (1, True, True)


METERS = """\
meters:
  tokens: { value: response.bytes }
  credits: { value: response.bytes, times: { lookup: route, table: { default: 3 } } }
  work: { sum: { requests: 10, credits: 1 } }
plans: { free: { version: "1" } }
"""


def test_a_correction_of_a_meter_corrects_what_is_computed_of_it_and_says_so(sidecar, place):
    # Fails if the policies are not given to the correction, or the message is about the named meters alone.
    worker = place / "data" / "journal" / "0"
    usage = USAGE | {"data": DATA | {"route": "default", "usage": DATA["usage"] | {"credits": 27, "work": 37}}}
    frame = encode_frame(RECORD, "records", 1, ID.encode(), b"acme", json.dumps(usage).encode())
    (worker / segment_name(1, 1)).write_bytes(frame)
    (place / "p.yaml").write_text(METERS)
    arguments = ("records", "correct", ID, "--units", "tokens=-2", "--reason", "twice")
    status, _, err = sidecar(*arguments, "--id", "t1")
    assert (status, "tokens -2, credits -6 (computed), work -6 (computed), customer acme" in err) == (0, True)
    (place / "p.yaml").write_text(METERS.replace("3 }", "4 }"))
    status, out, err = sidecar(*arguments, "--id", "t1", "--json")
    done = json.loads(out)
    assert (status, done["done"], done["usage"]) == (0, "exists", {"tokens": -2, "credits": -6, "work": -6})
    status, _, err = sidecar(*arguments, "--id", "t1")
    added = "tokens -2, credits -6 (computed), work -6 (computed)"
    assert err.startswith(f"the correction of {ID} already exists: {added}; nothing was recorded\n")
    status, out, err = sidecar(*arguments, "--json")
    done = json.loads(out)
    why = "the record has 27, where the policy computes 36"
    assert (done["usage"], done["computed"], done["not_computed"]) == ({"tokens": -2}, {}, {"credits": why})
    (place / "p.yaml").unlink()
    status, _, err = sidecar(*arguments)
    why = "the policies cannot be read (`sidecar check` says why)"
    kept = f"not computed: requests, credits, work: {why}: to change it, name it with --units"
    assert (status, err.splitlines()[2]) == (0, kept)
    assert sidecar("ship")[0] == 0
    out = sidecar("records", "count", "--json")[1]
    assert json.loads(out)["totals"] == {"acme": {"requests": 1, "tokens": 3, "credits": 21, "work": 31}}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("void", "x", "--reason", "r"), "'x' is not the id of a record: 26 characters"),
        (("void", ID, "--reason", " "), "is recorded: write a text, such as --reason 'ticket 4711'"),
        (("correct", ID, "--units", "tokens", "--reason", "r"), "'tokens': write each meter once, as tokens=-12"),
        (("correct", ID, "--units", "a=0", "--reason", "r"), "'a=0': write each meter once"),
        (("correct", ID, "--units", "tokens=+1_0", "--reason", "r"), "'tokens=+1_0': write each meter once"),
        (("correct", ID, "--units", "tokens= 1", "--reason", "r"), "'tokens= 1': write each meter once"),
        (("correct", ID, "--units", "tokens=-\u0661", "--reason", "r"), "write each meter once"),
        (("correct", ID, "--units", "tokens=1", "--reason", "r", "--id", ""), "is empty: write a name, or leave --id"),
        (("void", "x\x1b[31m", "--reason", "r"), "'x\\x1b[31m' is not the id of a record: 26 characters"),
    ],
)
def test_wrong_usage_says_what_would_be_right(sidecar, place, arguments, reason):
    status, _, err = sidecar("records", *arguments)
    assert status == 2
    assert reason in " ".join(err.split())


def test_lost_usage_is_recorded_from_a_file_after_all_of_it_was_checked(sidecar, place):
    # Fails if the lines before a fault are recorded.
    lost = place / "lost.jsonl"
    lost.write_text(f"{json.dumps(LINE)}\n{json.dumps(LINE | {'usage': {'requests': -1}})}\n")
    arguments = ("records", "backfill", "--file", "lost.jsonl", "--batch", "outage", "--reason", "ticket 4711")
    status, _, err = sidecar(*arguments)
    assert (status, err.splitlines()[0]) == (2, "lost.jsonl:2: usage.requests: -1 is less than the minimum of 0")
    assert not (place / "data" / "journal" / "commands").exists()
    lost.write_text(f"{json.dumps(LINE)}\n{json.dumps(LINE)}\n")
    assert sidecar(*arguments, "--check")[:2] == (0, "checked 2 records: requests 240\n")
    assert sidecar(*arguments)[:2] == (0, "recorded 2 records: requests 240\n")
    assert sidecar("ship")[0] == 0
    status, out, _ = sidecar("records", "verify", "--json")
    report = json.loads(out)
    assert (status, report["totals"]) == (0, {"acme": {"requests": 241, "tokens": 9}})
    [audit] = [record["data"] for record in records(place) if record["type"] == "sidecar.audit.v1"]
    assert (audit["target"], audit["reason"], audit["after"]["records"]) == ("batch/outage", "ticket 4711", 2)
    [final] = [record["data"] for record in records(place) if record["type"] == "sidecar.checkpoint.v1"]
    assert (final["totals"], final["final"]) == ({"requests": 240}, True)


@pytest.mark.redis
def test_what_a_store_that_was_away_did_not_give_back_a_repetition_gives_back_once(sidecar, place, redis_clean):
    # Fails if the change counts as done although nothing was given back, or if a repetition gives back twice.
    now = datetime.fromtimestamp(int(redis_clean.cli.time()[0]), UTC)
    limits = [{"id": "monthly", "period": f"{now:%Y-%m}", "used": 1, "limit": 10000}]
    decision = {"mode": "exact", "limits": limits}
    more = {"route": "default", "period_time": f"{now:%Y-%m-%dT%H:%M:%S.000000Z}", "decision": decision}
    frame = encode_frame(RECORD, "records", 1, ID.encode(), b"acme", json.dumps(USAGE | {"data": DATA | more}).encode())
    (place / "data" / "journal" / "0" / segment_name(1, 1)).write_bytes(frame)
    key = f'{{ id: k, hash: "sha256:{"0" * 64}", customer: acme, subject: app, plan: free }}'
    (place / "keys.yaml").write_text(f"keys:\n  - {key}\n")
    counter = f"sc:{{acme}}:q=monthly:cacme:{now:%Y-%m}"
    redis_clean.cli.set(counter, 10, px=600_000)
    void = ("records", "void", ID, "--reason", "test")
    status, _, err = sidecar(*void, SIDECAR_REDIS__URL="redis://127.0.0.1:1")
    assert (status, "nothing given back yet: " in err, "repeat the command" in err) == (1, True, True)
    for done in ("changed", "had changed before", "had changed before"):
        status, _, err = sidecar(*void, SIDECAR_REDIS__URL=redis_clean.url)
        assert (status, f"counters of its period {done}: monthly -1" in err) == (0, True), err
        assert redis_clean.cli.get(counter) == b"9"


def test_a_batch_that_is_recorded_changes_nothing_and_says_so(sidecar, place):
    # Fails if it is recorded again: `verify` finds copies then. Also after it was rotated away.
    (place / "lost.jsonl").write_text(f"{json.dumps(LINE)}\n{json.dumps(LINE)}\n")
    arguments = ("records", "backfill", "--file", "lost.jsonl", "--batch", "outage", "--reason", "ticket 4711")
    assert sidecar(*arguments) == (0, "recorded 2 records: requests 240\n", "")
    repeated = (0, "recorded before, nothing changed: 2 records: requests 240\n", "")
    assert sidecar(*arguments) == repeated
    assert sidecar("ship")[0] == 0
    data = place / "data"
    shutil.rmtree(data / "journal")
    (data / "records.jsonl").rename(data / "records.jsonl.1")
    assert sidecar(*arguments) == repeated
    done = json.loads(sidecar(*arguments, "--json")[1])
    assert (done["done"], done["records"], done["recorded_before"], done["source"]) == ("exists", 2, 2, "")
    (place / "lost.jsonl").write_text(f"{json.dumps(LINE)}\n" * 3)
    status, out, err = sidecar(*arguments)
    assert (status, out) == (0, "recorded 3 records: requests 360\n")
    assert err == "2 of them had been recorded before: consumers drop these copies by their ids\n"


def test_a_line_that_differs_from_what_its_batch_recorded_is_refused(sidecar, place):
    # Fails if the ids alone are compared: the new content was dropped as a copy, and "recorded" was said.
    lost = place / "lost.jsonl"
    arguments = ("records", "backfill", "--file", "lost.jsonl", "--reason", "ticket 4711", "--batch")
    lost.write_text(f"{json.dumps(LINE)}\n" * 2)
    assert sidecar(*arguments, "outage")[0] == 0
    changed = LINE | {"usage": {"requests": 121}}
    for shipped in (False, True):
        if shipped:
            assert sidecar("ship")[0] == 0
        lost.write_text(f"{json.dumps(LINE)}\n{json.dumps(changed)}\n{json.dumps(LINE)}\n")
        status, out, err = sidecar(*arguments, "outage")
        assert (status, out) == (2, "")
        assert err.startswith("lost.jsonl:2: differs from what was recorded under this batch as 01")
        assert ": choose another --batch\n" in err
    assert sidecar(*arguments, "another")[:2] == (0, "recorded 3 records: requests 361\n")


def test_what_could_not_be_read_for_a_batch_is_said(sidecar, place):
    (place / "lost.jsonl").write_text(f"{json.dumps(LINE)}\n")
    arguments = ("records", "backfill", "--file", "lost.jsonl", "--batch", "outage", "--reason", "ticket 4711")
    status, out, err = sidecar(*arguments, SIDECAR_SINK__STDOUT="true")
    assert (status, out) == (0, "recorded 1 record: requests 120\n")
    assert err.startswith("not known whether they had been recorded before: records go to standard output")


def test_what_records_name_does_not_command_a_terminal(sidecar, place):
    # Fails if a text of a record is printed as it is. Backfill refuses such texts; an older version did not.
    worker = place / "data" / "journal" / "0"
    hostile = "a\x1b[31mred\nx"
    usage = USAGE | {"data": DATA | {"customer": hostile, "billable_reason": "\x9b31m"}}
    body = json.dumps(usage, separators=(",", ":"), ensure_ascii=False).encode()
    (worker / segment_name(1, 1)).write_bytes(encode_frame(RECORD, "records", 1, ID.encode(), b"acme", body))
    escaped = "a\\x1b[31mred\\nx"
    status, _, err = sidecar("records", "correct", ID, "--units", "tokens=-2", "--id", "t1", "--reason", "twice")
    assert (status, f"customer {escaped}" in err, "\x1b" in err) == (0, True, False)
    status, _, err = sidecar("records", "correct", ID, "--units", "to\x1bkens=-2", "--reason", "twice")
    assert (status, "to\\x1bkens" in err, "\x1b" in err) == (1, True, False)
    assert sidecar("ship")[0] == 0
    status, out, _ = sidecar("records", "count")
    assert (status, f"  {escaped}  tokens\n" in out, "\x1b" in out) == (0, True, False)


def test_a_change_of_a_sealed_month_is_a_warning(sidecar, place):
    # Fails if the month of now, or that of `time` instead of `period_time`, is looked at.
    sealed = place / "ledger" / "sealed"
    sealed.mkdir(parents=True)
    (sealed / "2026-11.json").write_text("{}")
    environment = {"SIDECAR_LEDGER__DIR": str(place / "ledger")}
    (place / "lost.jsonl").write_text(json.dumps(LINE | {"period_time": "2026-10-31T23:59:59Z"}) + "\n")
    arguments = ("records", "backfill", "--file", "lost.jsonl", "--reason", "ticket 4711", "--batch")
    assert sidecar(*arguments, "a", **environment)[2] == ""
    (place / "lost.jsonl").write_text(json.dumps(LINE) + "\n")
    warning = f"warning: 2026-11 is sealed ({sealed / '2026-11.json'})"
    assert sidecar(*arguments, "b", "--check", **environment)[2].startswith(warning)
    assert sidecar(*arguments, "b", **environment)[2].startswith(warning)
    assert sidecar(*arguments, "b", **environment)[2] == ""  # nothing is recorded
    assert sidecar("records", "void", ID, "--reason", "test", **environment)[2].startswith(warning)
