import json
from pathlib import Path

import jsonschema
import pytest

from sidecar.core.record import (
    Checkpoint,
    checkpoint_record,
    crashed_record,
    denial_record,
    open_entry,
    record_schema,
    short_record,
    usage_record,
)
from sidecar.core.record.schema import fields_table
from tests.core.record.test_events import ID, NOW_US, SOURCE, Exchange, decided
from tests.fixtures import previous

ROOT = Path(__file__).parents[3]
ENVELOPE = {
    "specversion": "1.0",
    "source": "//sidecar/eu-1/gw-3/7/12",
    "id": "01JD3QWERT0000000000000001",
    "subject": "app-42",
    "partitionkey": "cust-9",
    "time": "2026-11-21T01:03:26.123456Z",
    "sequence": "000000000000000001",
}


def change(kind, **other):
    return {
        **ENVELOPE,
        "type": f"sidecar.{kind}.v1",
        "dataschema": f"urn:sidecar:schema/{kind}.v1.json",
        "causationid": "01JD3QWERT0000000000000000",
        "data": {
            "customer": "cust-9", "key_id": "k_7f", "usage": {"requests": -1}, "reason": "refund", "actor": "ops",
        },
        **other,
    }  # fmt: skip


def faults(event):
    return list(jsonschema.Draft202012Validator(record_schema()).iter_errors(event))


def test_the_published_schema_is_the_code_s():
    # Written by: sidecar schema record > docs/record.v1.json
    assert json.loads((ROOT / "docs" / "record.v1.json").read_text()) == record_schema()


def test_the_table_in_the_docs_is_that_of_the_code():
    # Written by: sidecar schema record --table, between the two comments.
    _, _, rest = (ROOT / "docs" / "record.md").read_text().partition("<!-- fields -->\n")
    assert rest.partition("\n<!-- end of fields -->")[0] == fields_table()


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(record_schema())


@pytest.mark.parametrize("kind", ["correction", "void"])
def test_a_change_of_a_record_is_a_record_with_a_signed_delta(kind):
    assert faults(change(kind)) == []


@pytest.mark.parametrize(
    "other",
    [
        {"causationid": None},
        {"remote_addr": "192.0.2.1"},
        {"type": "sidecar.usage.v1"},
        {"sequence": "1"},
        {"id": "01jd"},
        {"data": {**change("void")["data"], "usage": {"requests": -0.5}}},
        {"data": {**change("void")["data"], "headers": {}}},
    ],
)
def test_what_no_kind_allows_is_a_fault(other):
    # Fails if additionalProperties is allowed: what is personal could slip in unseen.
    assert faults(change("void", **other))


def pruned(schema, event):
    """`event` without the members that `schema` does not name, as a consumer of an earlier version reads it."""
    if schema.get("type") == "object" and isinstance(event, dict):
        members = schema.get("properties")
        if members is None:
            return event
        return {name: pruned(members[name], value) for name, value in event.items() if name in members}
    return event


def new_records():
    exchange = Exchange(
        decision=decided(),
        dims={"model": "m"},
        usage_lines=[{"model": "m", "kinds": {"output": 7}}],
        parent=ID.decode(),
    )
    return {
        "usage": usage_record(exchange, NOW_US, SOURCE, 1),
        "unattributed": usage_record(Exchange(identity=None), NOW_US, SOURCE, 1),
        "denial": denial_record(Exchange(decision=decided(verdict=1)), NOW_US, SOURCE, 1),
        "crashed": crashed_record(open_entry(exchange, NOW_US), ID, NOW_US, SOURCE, 1),
        "short": short_record(exchange, NOW_US, SOURCE, 1),
        "checkpoint": checkpoint_record(
            Checkpoint({"records": 1}, {}, 0, 0, 0, 0, "v", 0, NOW_US, True), ID, NOW_US, SOURCE, 1
        ),
    }


@pytest.mark.parametrize("name", previous.records())
def test_records_of_the_previous_version_meet_the_schema_of_this_one(name):
    # Fails if a new field is required, or an old one is taken away.
    assert faults(previous.records()[name]) == []


@pytest.mark.parametrize("name", new_records())
def test_records_of_this_version_meet_the_schema_of_the_previous_one_but_for_new_fields(name):
    # Fails if an old field is no longer written, or its type changes.
    event = json.loads(new_records()[name])
    assert faults(event) == []
    kind = event["type"].removeprefix("sidecar.").removesuffix(".v1")
    old = previous.schema()["$defs"][kind]
    assert pruned(old, event)["data"].keys() < event["data"].keys()
    assert list(jsonschema.Draft202012Validator(old).iter_errors(pruned(old, event))) == []


def test_an_open_entry_of_the_previous_version_makes_a_record_of_this_one():
    # Fails if the account or the origin of an exchange is read from its OPEN entry alone.
    opened = {"time_us": NOW_US, "subject": "a", "customer": "c", "key_id": "k", "plan": "p@1", "route": "r",
              "method": "GET", "path": "/", "reserved": {"requests": 1}}  # fmt: skip
    event = json.loads(crashed_record(json.dumps(opened).encode(), ID, NOW_US, SOURCE, 1))
    assert faults(event) == []
    assert (event["data"]["account"], event["data"]["origin"]) == ("c", "proxied")
