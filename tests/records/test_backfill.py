import orjson
import pytest
from jsonschema import Draft202012Validator

from sidecar.core.errors import PolicyError, SidecarError
from sidecar.core.record import record_schema
from sidecar.records.backfill import FAULTS_MAX, count_recorded, read_batch
from sidecar.records.sources import RecordSource

validator = Draft202012Validator(record_schema())
NOW_US = 1_796_100_000_000_000  # 2026-12-01
LINE = {
    "customer": "acme", "key_id": "k_7f", "subject": "app", "plan": "pro@3", "route": "api",
    "time": "2026-11-21T14:03:20Z", "usage": {"requests": 120},
}  # fmt: skip


@pytest.fixture
def batch(tmp_path):
    path = tmp_path / "lost.jsonl"

    def read(*lines, name="b"):
        path.write_bytes(b"\n".join(line if isinstance(line, bytes) else orjson.dumps(line) for line in lines))
        return read_batch(path, name, NOW_US)

    return read


def records(batch):
    made = [orjson.loads(each.render(NOW_US, "//sidecar/l/n/commands/1", 2)) for each in batch.pending()]
    assert all(validator.is_valid(record) for record in made)
    return made


def faults(batch, *lines):
    with pytest.raises(PolicyError) as caught:
        batch(*lines)
    return [str(fault).partition("lost.jsonl:")[2] for fault in caught.value.faults]


def test_a_line_becomes_a_usage_record_of_its_own_time_that_says_ingested(batch):
    read = batch(LINE, {**LINE, "account": "group", "status": 200, "period_time": "2026-10-31T23:59:59+00:00"})
    first, second = records(read)
    assert (read.records, read.usage) == (2, {"requests": 240})
    assert (first["time"], first["subject"], first["partitionkey"]) == ("2026-11-21T14:03:20.000000Z", "app", "acme")
    data = first["data"]
    assert (data["origin"], data["billable"], data["period_time"]) == ("ingested", True, first["time"])
    assert second["data"]["period_time"] == "2026-10-31T23:59:59.000000Z"
    assert (second["data"]["account"], second["data"]["status"]) == ("group", 200)


def test_the_same_file_gives_the_same_ids_and_another_batch_others(batch):
    # Fails if the id is random, or made of the line's number alone.
    def ids(*lines, name="b"):
        return [record["id"] for record in records(batch(*lines, name=name))]

    assert ids(LINE, LINE) == ids(LINE, LINE)
    assert len({*ids(LINE, LINE), *ids(LINE, LINE, name="c")}) == 4
    one, other = {**LINE, "id": "one"}, {**LINE, "id": "other"}
    assert ids(one, other) == ids(other, one)[::-1]


def test_each_fault_has_its_line_and_field_and_what_would_be_right(batch):
    # Fails if the first fault ends the reading, or the schema is not asked.
    unknown = {**LINE, "custmer": "x"}
    negative, text = {**LINE, "usage": {"requests": -1}}, {**LINE, "usage": {"requests": "1"}}
    late = {**LINE, "time": "2027-01-01T00:00:00Z"}
    without = {name: value for name, value in LINE.items() if name != "plan"}
    lines = (LINE, b"{", b"[]", unknown, negative, text, late, without, {**LINE, "time": "yesterday"}, b"", LINE)
    assert faults(batch, *lines)[:-1] == [
        "2: is not JSON: unexpected end of data: line 1 column 2 (char 1)",
        "3: is not an object: write one record per line, as in docs/corrections.md",
        "4: custmer: unknown field; did you mean 'customer'?",
        "5: usage.requests: -1 is less than the minimum of 0",
        '6: usage.requests: "1" is not of type "integer"',
        "7: time: 2027-01-01T00:00:00Z is in the future",
        "8: plan: is missing",
        "9: time: 'yesterday' is not a time: write 2026-11-21T14:03:20.123456Z",
    ]


def test_units_that_a_counter_does_not_hold_are_refused(batch):
    # Fails if the schema alone decides: 1.0 and 1e2 are integers to it, and it knows no greatest.
    lines = [b'{"requests": 1.0}', b'{"requests": 1e2}', b'{"requests": 9007199254740992}']
    whole = [orjson.dumps(LINE).replace(orjson.dumps(LINE["usage"]), each.replace(b" ", b"")) for each in lines]
    assert faults(batch, *whole)[:3] == [
        "1: usage.requests: 1.0 is not a whole number from 0 to 9007199254740991",
        "2: usage.requests: 100.0 is not a whole number from 0 to 9007199254740991",
        "3: usage.requests: 9007199254740992 is not a whole number from 0 to 9007199254740991",
    ]


def test_many_faults_are_counted_and_the_first_ones_are_shown(batch):
    with pytest.raises(PolicyError) as caught:
        batch(*[b"{"] * 1_000)
    assert len(caught.value.faults) == FAULTS_MAX + 1
    assert caught.value.faults[-1].what == f"nothing was recorded: 1000 faults, of which {FAULTS_MAX} are shown"


def test_two_lines_of_one_id_are_a_fault(batch):
    # Fails if the second one is recorded: it would be dropped as a copy, silently.
    one = {**LINE, "id": "one"}
    assert faults(batch, one, LINE, one)[0].startswith("3: id: another line has the same id and time")


def test_a_file_that_changes_after_it_was_checked_is_refused(batch, tmp_path):
    read = batch(LINE, LINE)
    for text in (orjson.dumps(LINE), b"\n".join([orjson.dumps(LINE)] * 3), b"{}\n{}"):
        (tmp_path / "lost.jsonl").write_bytes(text)
        with pytest.raises(SidecarError, match="was changed while it was read; nothing was recorded"):
            list(read.pending())


def test_what_the_gateway_decides_cannot_be_given(batch):
    assert faults(batch, {**LINE, "origin": "proxied"})[0].startswith("1: origin: unknown field")


def test_all_faults_of_a_line_are_reported_at_once(batch):
    # Fails if the schema is asked only for lines without other faults, or for its first fault alone.
    line = {**LINE, "time": "noon", "usage": {"requests": -1, "tokens": 0.5}, "customr": "acme", "status": "200"}
    del line["plan"]
    found = faults(batch, line)[:-1]
    assert [fault.split(": ")[1] for fault in found] == [
        "customr", "plan", "status", "time", "usage.requests", "usage.tokens"
    ]  # fmt: skip


def test_names_that_no_key_or_policy_can_have_are_refused(batch):
    # Fails if only the schema is asked, to which any text is a customer.
    hostile = "a\x1b[31mred\nx"
    line = {**LINE, **dict.fromkeys(("customer", "key_id", "subject", "plan", "route", "account"), hostile)}
    line["usage"] = {hostile: 1}
    *names, meter, _ = faults(batch, line)
    assert names == [
        f"1: {name}: {hostile!r} is not a name: 1 to 256 printable ASCII characters, no space at an end"
        for name in ("account", "customer", "key_id", "plan", "route", "subject")
    ]
    assert meter.startswith(f"1: usage.{hostile}: is not the name of a meter: 1 to 63 letters, digits, dots")
    for text in ("", " a", "a" * 257, "é", "a\n"):
        assert faults(batch, {**LINE, "customer": text})[0].startswith("1: customer: ")
    assert batch({**LINE, "customer": "a b", "usage": {}}).records == 1


async def test_a_line_that_differs_from_what_was_recorded_is_refused(batch, tmp_path):
    # Fails if time, subject or a field of data is not compared, or the place of a line among others is.
    one, other = {**LINE, "id": "one"}, {**LINE, "id": "other", "traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}
    stored = tmp_path / "stored.jsonl"
    stored.write_bytes(b"".join(each.render(0, "//s", 1) + b"\n" for each in batch(one, other).pending()))
    sources = [RecordSource("records", file=stored)]
    assert await count_recorded(batch(other, one), sources) == 2
    changes = {
        "customer": "globex", "subject": "x", "usage": {"requests": 121}, "billable": False, "route": "x",
        "period_time": "2026-10-31T00:00:00Z", "time": "2026-11-21T14:03:20.5Z",
    }  # fmt: skip
    for name, value in changes.items():
        with pytest.raises(PolicyError) as caught:
            await count_recorded(batch(other, one | {name: value}), sources)
        fault, _ = caught.value.faults
        assert (fault.line, fault.what[:51]) == (2, "differs from what was recorded under this batch as ")
    assert await count_recorded(batch(one | changes, name="c"), sources) == 0


async def test_records_of_a_batch_that_are_recorded_are_counted_once(batch, tmp_path):
    # Fails if copies count twice, or a record that only names such an id counts.
    read = batch(LINE, {**LINE, "time": "2026-10-31T00:00:00Z"})
    assert read.months == {"2026-11", "2026-10"}
    stored = tmp_path / "stored.jsonl"
    first, _ = read.pending()
    body = first.render(NOW_US, "//sidecar/l/n/commands/1", 2)
    stored.write_bytes(b"\n".join([body, body, b'torn "origin":"ingested"', b'["origin":"ingested"]', b""]))
    sources = [RecordSource("records", file=stored)] * 2
    assert await count_recorded(read, sources) == 1
    assert await count_recorded(batch(LINE, name="other"), sources) == 0
