import json
from pathlib import Path

import jsonschema
import pytest

from sidecar.core.record import record_schema

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
