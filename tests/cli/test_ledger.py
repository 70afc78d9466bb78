"""`sidecar ledger` as a user calls it: load, totals, query, trace, compact."""

import gzip
import json
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from sidecar.cli.ledger import ledger
from tests.edge.ledger.events import change, lines, record_id, usage


def test_the_sinks_files_are_loaded_once_and_summed_up(sidecar, records):
    status, out, err = sidecar("ledger", "load")
    assert (status, out) == (0, "14 records in 2 files, 1 rejected, 1 twice\n")
    assert "p0000.000000000000000000-" in err
    assert "1 line is not a record and NOT in any sum" in err.splitlines()[-1]
    assert sidecar("ledger", "load")[1] == "0 records in 0 files, 0 rejected, 0 twice\n"
    status, out, _ = sidecar("ledger", "totals", "--period", "2026-11")
    assert status == 0
    assert [line.split() for line in out.splitlines()] == [
        ["customer", "meter", "units", "not_billable", "rows"],
        ["c0", "requests", "5", "0", "5"],
        ["c0", "tokens", "28", "0", "6"],
        ["c1", "requests", "5", "0", "5"],
        ["c1", "tokens", "25", "0", "5"],
    ]
    assert max(map(len, out.splitlines())) <= 80
    out = json.loads(
        sidecar("ledger", "totals", "--from", "2026-11-21", "--by", "day", "--meter", "tokens", "--json")[1]
    )
    assert out["totals"] == [{"day": "2026-11-21", "units": 53, "not_billable": 0, "rows": 11}]
    assert "no usage" in sidecar("ledger", "totals", "--period", "2026-12")[2]


def test_a_rejected_line_is_counted_by_its_load_and_is_a_fault_of_every_verify(sidecar, folder):
    # Fails if `load` has exit status 1 (its repetition would have 0), or `verify` has 0.
    (folder / "lost.jsonl").write_bytes(lines(usage(1), b"nonsense"))
    load = ("ledger", "load", "--file", "lost.jsonl")
    for rejected in (1, 0):
        status, out, _ = sidecar(*load, "--json")
        assert (status, json.loads(out)["rejected"], json.loads(out)["faults"]) == (0, rejected, [])
        status, _, err = sidecar("ledger", "verify")
        assert (status, "rejected: " in err) == (1, True)
    help_ = " ".join(sidecar("ledger", "load", "--help")[1].split())
    assert "the exit status is 0, since the next load does not see them again" in help_


def test_files_that_the_sink_was_rotated_from_are_loaded_with_it_and_once(sidecar, records):
    # Fails if they have to be named, or if the correction in the later file is loaded before its original.
    original = records.rename(records.with_name("records.jsonl.1"))
    records.write_bytes(lines(change(50, record_id(3), {"tokens": -1}, customer="c1"), usage(51)))
    assert sidecar("ledger", "load")[:2] == (0, "16 records in 3 files, 1 rejected, 1 twice\n")
    assert "0 without original" in sidecar("ledger", "verify")[1]
    original.rename(records.with_name("records.jsonl.2"))
    records.rename(original)  # the sink has not begun a new file yet
    assert sidecar("ledger", "load")[:2] == (0, "0 records in 0 files, 0 rejected, 0 twice\n")
    assert sidecar("ledger", "load", "--file", str(records))[0] == 1


def test_a_compressed_file_is_refused_by_name_and_nothing_of_it_is_in_the_ledger(sidecar, records):
    # Fails if its bytes are loaded as rejected lines: `verify` would have exit status 1 for ever.
    packed = records.with_name("records.jsonl.1.gz")
    packed.write_bytes(gzip.compress(records.read_bytes()))
    status, _, err = sidecar("ledger", "load", "--file", str(packed), "--file", str(records))
    assert (status, f"sidecar: {packed}: compressed: decompress it first, with gunzip" in err) == (1, True)
    assert json.loads(sidecar("ledger", "query", "SELECT DISTINCT data FROM rejected", "--json")[1]) == [
        {"data": "nonsense"}
    ]
    assert len(json.loads(sidecar("ledger", "query", "SELECT DISTINCT topic FROM ledger", "--json")[1])) == 1


def test_corrections_come_after_their_originals_where_dates_name_the_files(sidecar, records):
    # Fails if `.20261121` is a number: the newest file would be loaded first.
    original = records.rename(records.with_name("records.jsonl.20261120"))
    correction = lines(change(50, record_id(3), {"tokens": -1}, customer="c1"))
    records.with_name("records.jsonl.20261121").write_bytes(correction)
    assert sidecar("ledger", "load")[:2] == (0, "15 records in 3 files, 1 rejected, 1 twice\n")
    assert "0 without original" in sidecar("ledger", "verify")[1]
    records.with_name("records.jsonl.20261122").mkdir()
    records.with_name("records.jsonl.1").symlink_to("records.jsonl.1")
    records.with_name("records.jsonl.bak").write_bytes(lines(usage(90)))
    records.with_name("records.jsonl.2").write_bytes(original.read_bytes()[:-20])
    for _ in range(2):
        status, out, err = sidecar("ledger", "load")
        assert (status, out) == (0, "0 records in 0 files, 0 rejected, 0 twice\n")
        notes = {name: what for name, _, what in (line.rsplit("/", 1)[-1].partition(": ") for line in err.splitlines())}
        assert notes == {
            "records.jsonl.1": "not a file: nothing is read of it",
            "records.jsonl.20261120, which is loaded": "",  # of the copy
            "records.jsonl.20261122": "not a file: nothing is read of it",
            "records.jsonl.bak": "not taken for a rotated file: name it with --file",
        }
    original.unlink()  # what was loaded cannot be compared any more
    assert sidecar("ledger", "load")[0] == 1


def test_compaction_is_reported_and_changes_no_sum(sidecar, records, folder):
    sidecar("ledger", "load")
    with records.open("ab") as file:
        file.write(lines(usage(20)))
    sidecar("ledger", "load")
    before = sidecar("ledger", "totals")[1]
    done = json.loads(sidecar("ledger", "compact", "--json")[1])
    assert [each["parts"] for each in done["joined"]] == [2]
    assert sidecar("ledger", "totals")[1] == before
    assert sidecar("ledger", "compact")[:2] == (0, "")


def test_the_name_of_a_folder_does_not_command_a_terminal(sidecar, records, folder):
    for number in (20, 21):
        assert sidecar("ledger", "load")[0] == 0
        with records.open("ab") as file:
            file.write(lines(usage(number)))
    parts = [path.parent for path in folder.glob("data/ledger/**/*.parquet")]
    topic = max(parts, key=parts.count)
    topic.rename(topic.with_name("\x1b[31m"))
    _, out, err = sidecar("ledger", "compact")
    assert "\\x1b[31m" in out + err
    assert "\x1b" not in out + err


def test_wrong_usage_is_status_2_and_names_what_is_right(sidecar, folder, monkeypatch):
    monkeypatch.chdir(folder)
    for words, text in (
        (("totals", "--by", "colour"), "not one of customer"),
        (("totals", "--period", "lately"), "write 2026-11"),
        (("totals", "--period", "2026-11", "--to", "2026-12-01"), "exclude each other"),
        (("totals", "--from", "2026-11-03", "--to", "2026-11-02"), "--to 2026-11-02 is not after --from 2026-11-03"),
        (("load", "--file", "x", "--partition", "1"), "leave it out with --file"),
        (("query", "SELECT 1", "--csv", "--json"), "exclude each other"),
    ):
        done = CliRunner().invoke(ledger, words)
        assert (done.exit_code, text in done.output) == (2, True), done.output
    assert sidecar("ledger", "totals")[::2] == (
        1, f"sidecar: {folder}/data/ledger: not a ledger: `sidecar ledger load` makes one, or set ledger.dir\n"
    )  # fmt: skip
    assert sidecar("ledger", "load", "--file", "none.jsonl")[0] == 1


# Fails if the extra is imported by the command's module: `--help` would need it, and the error is a traceback.
def test_a_missing_extra_is_named_with_the_command_that_installs_it(sidecar, records, folder):
    (folder / "duckdb.py").write_text("raise ImportError\n")
    status, _, err = sidecar("ledger", "load", PYTHONPATH=str(folder))
    assert (status, err) == (2, "sidecar: this command needs DuckDB: pip install 'metering-sidecar[billing]'\n")
    assert sidecar("ledger", "load", "--help", PYTHONPATH=str(folder))[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_load_that_follows_and_what_came_is_written(folder, records, number):
    words = [sys.executable, "-m", "sidecar", "ledger", "load", "--follow"]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        deadline = time.monotonic() + 30
        while len(list((folder / "data" / "ledger").rglob("*.parquet"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        running.send_signal(number)
        out, _ = running.communicate(timeout=30)
    assert (running.returncode, out) == (0, "14 records in 2 files, 1 rejected, 1 twice\n")
