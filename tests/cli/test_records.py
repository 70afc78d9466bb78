import json
import subprocess
import sys

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
        "out.jsonl: whole: 2 records, 0 missing, 0 twice, 0 wrong",
    ]


@pytest.mark.parametrize(
    ("records", "complaint"),
    [
        ([1, 3], "  missing: 2 to 2\n"),
        ([1, 2, 2], f"twice: {SOURCE} 2 "),
    ],
)
def test_a_gap_or_a_copy_is_status_1_and_named(sidecar, folder, records, complaint):
    write(folder, *map(checkpoint, records))
    status, out, err = sidecar("records", "verify", "--file", "out.jsonl")
    assert status == 1
    assert complaint in err
    assert "NOT whole" in out


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


def test_tail_shows_the_last_ones_as_they_are(sidecar, folder):
    write(folder, *map(checkpoint, range(1, 6)))
    status, out, _ = sidecar("records", "tail", "--file", "out.jsonl", "-n", "2")
    assert status == 0
    assert [json.loads(line) for line in out.splitlines()] == [checkpoint(4), checkpoint(5)]


def test_tail_follows(folder):
    write(folder, checkpoint(1))
    command = [sys.executable, "-m", "sidecar", "records", "tail", "--file", "out.jsonl", "-f"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert json.loads(process.stdout.readline()) == checkpoint(1)
        with (folder / "out.jsonl").open("a") as file:
            file.write(json.dumps(checkpoint(2)) + "\n" + '{"half')
        assert json.loads(process.stdout.readline()) == checkpoint(2)
        process.kill()


def test_records_are_read_from_where_the_settings_send_them(sidecar, folder):
    (folder / "data").mkdir()
    write(folder / "data", checkpoint(1))
    (folder / "data" / "out.jsonl").rename(folder / "data" / "records.jsonl")
    status, out, _ = sidecar("records", "verify", "-c", "sidecar.yaml")
    assert status == 0
    assert "1 records" in out


def test_a_folder_without_a_journal_is_told(sidecar, folder):
    status, _, err = sidecar("records", "verify", "--journal", "nowhere")
    assert (status, err) == (1, "sidecar: nowhere: there is no journal\n")


def test_two_places_at_once_are_wrong_usage(sidecar, folder):
    status, _, err = sidecar("records", "tail", "--journal", "a", "--file", "b")
    assert status == 2
    assert "not both" in err
