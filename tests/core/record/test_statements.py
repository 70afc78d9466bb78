"""Mirrors sidecar/core/record/statements.py."""

import jsonschema
import orjson
import pytest

from sidecar.core.record import record_schema
from sidecar.core.record.fields import fields_of
from sidecar.core.record.statements import STATEMENTS, Audit, PolicyState, Posting, SourceState, statement_record

ID = b"01JD3QWERT0000000000000001"
CAUSE = b"01JD3QWERT0000000000000000"
NOW_US = 1_795_223_006_123_456
SOURCE = "//sidecar/eu-1/gw-3/7/12"
VALIDATOR = jsonschema.Draft202012Validator(record_schema())
CHARGES = [{"meter": "output_tokens", "model": "gpt-4.1", "units": 35, "amount": 350_000}]
STATES = [
    SourceState("started", SOURCE, "0.2.0"),
    SourceState("retired", SOURCE, "0.2.0", "//sidecar/eu-1/gw-3/7/11", {"records": 7}, "disk lost", "ann"),
    Posting("cust-9", "cust-9", "usd", 9, "settle", -350_000, 4_650_000, NOW_US, plan="pro@3", charges=CHARGES),
    Posting("cust-9", "acme", "usd", 9, "grant", 5, 5, grant="p-1", priority=0, starts_us=NOW_US, expires_us=NOW_US),
    Posting("cust-9", "acme", "usd", 9, "void", -5, 0, grant="p-1", reason="refund", actor="ann"),
    PolicyState("ab12", "applied", {"plans.yaml": "00" * 32}, {"pro@3": "11" * 32}, actor="ann"),
    PolicyState("ab13", "refused", {}, {}, ["plans.yaml:7: no such unit"]),
    Audit("keys.revoke", "ann", "key/k_7f", "cli", "done", "cust-9", "acme", "leaked", {"status": "a"}, {"status": ""}),
]  # fmt: skip


@pytest.mark.parametrize("statement", STATES, ids=lambda each: type(each).__name__)
def test_a_statement_is_a_record_of_its_kind(statement):
    event = orjson.loads(statement_record(statement, ID, (NOW_US, SOURCE, 7), cause=b""))
    assert list(VALIDATOR.iter_errors(event)) == []
    assert event["partitionkey"] == getattr(statement, "customer", None) or SOURCE


def test_a_settle_is_joined_to_the_record_of_its_exchange():
    event = orjson.loads(statement_record(STATES[2], ID, (NOW_US, SOURCE, 7), cause=CAUSE))
    assert list(VALIDATOR.iter_errors(event)) == []
    assert event["causationid"] == CAUSE.decode()
    assert event["data"]["period_time"] == "2026-11-21T01:03:26.123456Z"
    assert event["data"]["charges"] == CHARGES


@pytest.mark.parametrize("kind", STATEMENTS)
def test_a_statement_has_the_fields_of_the_table_and_no_others(kind):
    # Fails if a field is in one of both only, or required in the one and optional in the other.
    statement = STATEMENTS[kind]
    optional = {name.removesuffix("_us") for name in statement._field_defaults}
    assert {name.removesuffix("_us") for name in statement._fields} == {field.name for field in fields_of(kind)}
    assert optional - {"account"} == {field.name for field in fields_of(kind) if field.optional} - {"account"}
