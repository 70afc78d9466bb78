import contextlib
import json
import subprocess
import sys
import time

import pytest

SOURCE = "//sidecar/local/n/0/1"


def checkpoint(number, **data):
    return {
        "specversion": "1.0",
        "type": "sidecar.checkpoint.v1",
        "source": SOURCE,
        "id": f"{number:026d}",
        "time": "2026-11-21T01:03:26.123456Z",
        "partitionkey": "node",
        "sequence": f"{number:018d}",
        "dataschema": SCHEMA,
        "data": {
            "highest": {},
            "totals": {},
            "open_exchanges": 0,
            "backlog_bytes": 0,
            "unrecorded": 0,
            "degraded_s": 0,
            "policy": "p",
        }
        | data,
    }


SCHEMA = "https://metering-sidecar.example/schema/checkpoint.v1.json"


@pytest.fixture(autouse=True)
def _schema(sidecar):
    global SCHEMA  # noqa: PLW0603 - the one word of a record that only the schema knows
    defs = json.loads(sidecar("schema", "record")[1])["$defs"]
    SCHEMA = defs["checkpoint"]["properties"]["dataschema"]["const"]


def write(folder, *records):
    (folder / "out.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def test_records_that_are_whole_are_status_0(sidecar, folder):
    write(folder, checkpoint(1), checkpoint(2))
    status, out, err = sidecar("records", "verify", "--file", "out.jsonl")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"{SOURCE}: 2 records, 1 to 2",
        "out.jsonl: whole: 2 records, 0 missing, 0 twice, 0 numbers used again, 0 wrong",
    ]


@pytest.mark.parametrize(
    ("records", "complaint"),
    [
        ([1, 3], "  missing: 2 to 2\n"),
        ([1, 2, 2], f"twice: {SOURCE} 2 "),
        ([3, 4], "  begins late: 1 to 2 are absent: lost, or removed by retention\n"),
    ],
)
def test_a_gap_or_a_copy_is_status_1_and_named(sidecar, folder, records, complaint):
    write(folder, *map(checkpoint, records))
    status, out, err = sidecar("records", "verify", "--file", "out.jsonl")
    assert status == 1
    assert complaint in err
    assert "NOT whole" in out


def test_a_source_may_begin_late_where_retention_removed_its_first_records(sidecar, folder):
    write(folder, checkpoint(3), checkpoint(4))
    status, out, err = sidecar("records", "verify", "--file", "out.jsonl", "--may-begin-late")
    assert (status, err) == (0, "  begins late: 1 to 2 are absent: removed by shipping or retention\n")
    assert "whole: 2 records, 0 missing" in out


def test_a_number_under_two_ids_is_status_1_and_two_producers_are_named(sidecar, folder):
    write(folder, checkpoint(1), checkpoint(2), checkpoint(2) | {"id": "0" * 25 + "7"})
    status, out, err = sidecar("records", "verify", "--file", "out.jsonl")
    assert status == 1
    assert f"number used again: {SOURCE} 2 {'0' * 25}7\n  two producers use one source" in err
    assert "0 twice, 1 number used again" in out


def test_what_the_schema_does_not_know_is_wrong(sidecar, folder):
    # Fails if verify is called without the schema's check.
    write(folder, checkpoint(1, address="10.0.0.1"))
    status, _, err = sidecar("records", "verify", "--file", "out.jsonl")
    assert status == 1
    assert "wrong: record " in err
    assert "'address' was unexpected" in err


def test_json_tells_sources_gaps_and_totals(sidecar, folder):
    write(folder, checkpoint(1), checkpoint(4))
    status, out, _ = sidecar("records", "verify", "--file", "out.jsonl", "--json")
    told = json.loads(out)
    assert (status, told["whole"], told["missing"]) == (1, False, 2)
    assert told["sources"][SOURCE]["gaps"] == [[2, 3]]


def test_count_sums_up_what_is_billable(sidecar, folder):
    usage = {"type": "sidecar.usage.v1", "source": SOURCE}
    records = [
        usage | {"id": "a", "sequence": "1", "data": {"customer": "c", "billable": True, "usage": {"requests": 2}}},
        usage | {"id": "b", "sequence": "2", "data": {"customer": "c", "billable": True, "usage": {"requests": 3}}},
        usage | {"id": "c", "sequence": "3", "data": {"customer": "c", "billable": False, "usage": {"requests": 9}}},
    ]
    write(folder, *records)
    status, out, _ = sidecar("records", "count", "--file", "out.jsonl", "--json")
    told = json.loads(out)
    assert (status, told["totals"], told["not_billable"]) == (0, {"c": {"requests": 5}}, 1)


def test_count_names_a_meter_that_does_not_add_up_instead_of_summing_it(sidecar, folder):
    # Fails if the policies are not read, or their faults stop the command.
    usage = {"type": "sidecar.usage.v1", "source": SOURCE}
    data = {"customer": "c", "billable": True, "usage": {"requests": 2, "storage": 10}}
    write(folder, *(usage | {"id": id_, "sequence": number, "data": data} for id_, number in (("a", "1"), ("b", "2"))))
    meters = "meters: { storage: { value: response.bytes, aggregate: max }, other: { count: 1, aggregate: latest } }\n"
    (folder / "p.yaml").write_text(meters)
    status, out, err = sidecar("records", "count", "--file", "out.jsonl")
    assert (status, out.splitlines()[1:]) == (0, ["           4  c  requests"])
    assert err == "sidecar: storage is not a sum of records: `sidecar ledger totals --meter storage`\n"
    for command in ("count", "verify"):
        report = json.loads(sidecar("records", command, "--file", "out.jsonl", "--json")[1])
        assert (report["totals"], report["not_sums"]) == ({"c": {"requests": 4}}, ["storage"])
    (folder / "p.yaml").unlink()
    status, out, _ = sidecar("records", "count", "--file", "out.jsonl", "--json")
    report = json.loads(out)
    assert (status, report["totals"], report["not_sums"]) == (0, {"c": {"requests": 4, "storage": 20}}, None)


def test_count_counts_both_records_of_a_number_and_one_of_an_id_and_reports_both(sidecar, folder):
    # Operator's A1: 5 of 8 paid requests were counted, in silence. Fails if a number makes a copy.
    usage = {"type": "sidecar.usage.v1", "source": SOURCE, "sequence": "1"}
    data = {"customer": "c", "billable": True, "usage": {"requests": 1}}
    write(folder, *(usage | {"id": id_, "data": data} for id_ in ("a", "b", "b")))
    status, out, err = sidecar("records", "count", "--file", "out.jsonl", "--json")
    told = json.loads(out)
    assert (status, told["totals"], told["duplicates"], told["reused_numbers"]) == (0, {"c": {"requests": 2}}, 1, 1)
    assert "1 copy of a known id was not counted" in err
    assert "1 number occurred again with another id, also counted: two producers use one source" in err


def test_count_says_what_its_sums_lack_and_is_status_1(sidecar, folder):
    # Fails if the gaps and the faults of the report are not looked at.
    write(folder, checkpoint(2), checkpoint(5))
    with (folder / "out.jsonl").open("a") as file:
        file.write("garbage\n")
    status, out, err = sidecar("records", "count", "--file", "out.jsonl")
    assert (status, out) == (1, "           2  sidecar.checkpoint.v1\n")
    assert "3 numbers are missing from the sums" in err
    assert "1 record cannot be read, and not in the sums: record 3: JSONDecodeError" in err
    assert "2 numbers are missing" in sidecar("records", "count", "--file", "out.jsonl", "--may-begin-late")[2]


@pytest.mark.parametrize("text", [json.dumps({"sequence": "2", "source": "s", "id": "i"}), "garbage"])
def test_count_is_status_1_for_a_gap_and_for_a_bad_line_alone(sidecar, folder, text):
    # Fails if either of the two is not looked at.
    (folder / "out.jsonl").write_text(text + "\n")
    assert sidecar("records", "count", "--file", "out.jsonl")[0] == 1


# Fails if a missing file is read as an empty one.
@pytest.mark.parametrize("command", ["verify", "count", "tail"])
@pytest.mark.parametrize("where", [("--file", "x.jsonl"), ("--journal", "nowhere"), ("-c", "sidecar.yaml")])
def test_what_does_not_exist_cannot_be_read(sidecar, folder, command, where):
    status, out, err = sidecar("records", command, *where, SIDECAR_SINK__FILE="typo.jsonl")
    path = "typo.jsonl" if where[0] == "-c" else where[1]
    assert (status, out) == (1, "")
    assert err.endswith(
        f"{path}: cannot be read: No such file or directory: nothing was recorded there yet, or its path is wrong\n"
    )


# Fails if a place without records is proven to be whole.
@pytest.mark.parametrize("where", [("--file", "out.jsonl"), ("--journal", "empty")])
def test_where_there_is_no_record_nothing_is_verified(sidecar, folder, where):
    write(folder)
    (folder / "empty").mkdir()
    message = f"no records in {where[1]}\n"
    assert sidecar("records", "verify", *where) == (1, "", f"sidecar: nothing to verify: {message}")
    assert json.loads(sidecar("records", "verify", *where, "--json")[1])["whole"] is False
    assert sidecar("records", "count", *where) == (0, "", f"sidecar: {message}")


def test_tail_shows_the_last_ones_as_they_are(sidecar, folder):
    write(folder, *map(checkpoint, range(1, 6)))
    status, out, _ = sidecar("records", "tail", "--file", "out.jsonl", "-n", "2")
    assert status == 0
    assert [json.loads(line) for line in out.splitlines()] == [checkpoint(4), checkpoint(5)]


@contextlib.contextmanager
def following(folder):
    """`tail -f` of out.jsonl, until the block ends."""
    command = [sys.executable, "-m", "sidecar", "records", "tail", "--file", "out.jsonl", "-f"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_tail_follows(folder):
    # Fails if half a line is shown, or if the last ones are shown a second time.
    write(folder, checkpoint(1))
    with following(folder) as process:
        assert json.loads(process.stdout.readline()) == checkpoint(1)
        with (folder / "out.jsonl").open("a") as file:
            file.write(json.dumps(checkpoint(2)) + "\n" + '{"half')
        assert json.loads(process.stdout.readline()) == checkpoint(2)
        with (folder / "out.jsonl").open("a") as file:
            file.write('": 2}\n')
        assert json.loads(process.stdout.readline()) == {"half": 2}


def test_tail_waits_for_a_file_where_it_follows(sidecar, folder):
    # Fails if a missing file is an error here, too.
    began = time.monotonic()
    assert sidecar("records", "tail", "--file", "out.jsonl")[0] == 1
    took = time.monotonic() - began  # to end with that error, as busy as this machine is
    with following(folder) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(min(max(2, 2 * took), 30))
        write(folder, checkpoint(1))
        assert json.loads(process.stdout.readline()) == checkpoint(1)


def test_records_are_read_from_where_the_settings_send_them(sidecar, folder):
    (folder / "data").mkdir()
    write(folder / "data", checkpoint(1))
    (folder / "data" / "out.jsonl").rename(folder / "data" / "records.jsonl")
    status, out, _ = sidecar("records", "verify", "-c", "sidecar.yaml")
    assert status == 0
    assert "whole: 1 record, 0 missing" in out
    # Fails if --denials is not looked at.
    (folder / "data" / "records.denials.jsonl").write_text('{"denials": 1}\n')
    assert sidecar("records", "tail", "-c", "sidecar.yaml", "--denials")[1] == '{"denials": 1}\n'


def test_two_places_at_once_are_wrong_usage(sidecar, folder):
    status, _, err = sidecar("records", "tail", "--journal", "a", "--file", "b")
    assert status == 2
    assert "exclude each other" in err


# Fails if denials are not searched beside records.
def test_a_denial_of_a_customer_is_found_by_time_and_status(sidecar, folder):
    settings = folder / "sidecar.yaml"
    settings.write_text(settings.read_text() + "sink: { file: out.jsonl }\n")
    write(folder, checkpoint(1))
    denial = checkpoint(2) | {
        "type": "sidecar.denial.v1",
        "data": {"customer": "acme", "status": 429, "decision": {"violated": "monthly"}},
    }
    (folder / "out.denials.jsonl").write_text(json.dumps(denial) + "\n")
    arguments = ("records", "find", "--customer", "acme", "--time", "2026-11-21T01:03", "--status")
    status, out, err = sidecar(*arguments, "429")
    assert (status, json.loads(out)["id"], err) == (0, denial["id"], "")
    status, _, err = sidecar(*arguments, "402")
    assert status == 1
    assert err == "no record matches in out.jsonl and out.denials.jsonl\n".replace("out", str(folder / "out"))
    status, _, err = sidecar(*arguments, "401")
    assert status == 1
    assert "refusals without a limit have no record: search the log for `sidecar.refusals`" in err
    status, _, err = sidecar("records", "find", "--time", "noon")
    assert status == 2
    assert "'noon' is not a time: write 14:03" in err


def usage_record(number, **data):
    named = {"customer": "acme", "status": 200, "billable": True, "outcome": "ok", "usage": {"requests": 1}}
    time = f"2026-11-21T01:03:{number:02d}.123456Z"
    return checkpoint(number) | {"type": "sidecar.usage.v1", "time": time, "partitionkey": "acme", "data": named | data}


@pytest.fixture
def rotated(folder):
    """Three files of the sink, the last one not begun, with a copy of the second and a compressed one."""
    data = folder / "data"
    data.mkdir()
    for name, numbers in (("jsonl-20261119", [1]), ("jsonl.2", [2, 3]), ("jsonl.1", [3, 4])):
        lines = (json.dumps(usage_record(number), separators=(",", ":")) + "\n" for number in numbers)
        (data / f"records.{name}").write_text("".join(lines))
    denial = usage_record(1, status=429) | {"type": "sidecar.denial.v1", "id": "D" * 26}
    (data / "records.denials.jsonl.1").write_text(json.dumps(denial) + "\n")
    return data


def test_rotated_files_are_read_with_the_file_of_the_sink_and_a_copy_counts_once(sidecar, rotated):
    # Fails if the sink's file is read alone, or a copy is summed up.
    status, out, err = sidecar("records", "count", "--json")
    report = json.loads(out)
    assert (status, report["totals"], report["missing_before_first"]) == (0, {"acme": {"requests": 4}}, 0)
    assert err == "sidecar: 1 copy of a known id was not counted\n"
    last = json.dumps(usage_record(5), separators=(",", ":"))
    (rotated / "records.jsonl").write_text(last + "\n")
    out = sidecar("records", "verify")[1]
    assert "records.jsonl and 3 rotated files: NOT whole: 6 records, 0 missing, 1 twice" in out
    out = sidecar("records", "tail", "-n", "2")[1]
    assert [json.loads(line)["sequence"][-1] for line in out.splitlines()] == ["4", "5"]
    assert sidecar("records", "count", "--file", "data/records.jsonl")[0] == 1  # alone: it begins late
    out = sidecar("records", "find", "--customer", "acme")[1]
    assert len(out.splitlines()) == 7  # with the denial


def test_a_compressed_rotated_file_is_named(sidecar, rotated):
    (rotated / "records.jsonl.3.gz").write_bytes(b"")
    err = sidecar("records", "count")[2]
    assert "data/records.jsonl.3.gz was not read, since compressed: unpack with `gunzip -k`" in err


def test_sums_after_a_rotation_are_those_of_the_ledger(sidecar, rotated):
    assert sidecar("ledger", "load")[0] == 0
    [row] = json.loads(sidecar("ledger", "totals", "--json")[1])["totals"]
    assert {row["customer"]: {row["meter"]: row["units"]}} == json.loads(sidecar("records", "count", "--json")[1])[
        "totals"
    ]


def test_find_shows_exchanges_and_other_types_when_they_are_asked_for(sidecar, folder):
    # Fails if postings are among the last N: they are as many as the usage records.
    posting = {"unit": "eur", "digits": 2, "change": "settle", "delta": -125, "balance": 975, "usage": {}}
    records = [usage_record(1)]
    records += [usage_record(n, **posting) | {"type": "sidecar.posting.v1"} for n in (2, 3)]
    write(folder, *records)
    find = ("records", "find", "--customer", "acme", "--file", "out.jsonl", "-n", "1")
    status, out, err = sidecar(*find)
    assert (status, json.loads(out)["id"]) == (0, f"{1:026d}")
    assert err == "also match, and are shown with --type: 2 posting\n"
    assert json.loads(sidecar(*find, "--type", "posting")[1])["id"] == f"{3:026d}"
    assert json.loads(sidecar(*find, "--type", "all")[1])["id"] == f"{3:026d}"
    assert json.loads(sidecar("records", "find", "--file", "out.jsonl", "--id", f"{2:026d}")[1]) == records[1]
