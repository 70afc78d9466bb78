"""The JSON Schema (2020-12) of every kind of record: what a consumer may rely on, and all that a record may hold.

Nothing else passes: a field that is not in the table (fields.py) is a fault, so that what is personal cannot slip in
unseen. Fields are only ever added; whatever changes a meaning is a new version of the type.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sidecar.core.record.fields import FIELDS, ID, KINDS, NAME, TIME, fields_of, object_of
from sidecar.core.record.text import SCHEMA_STEM

Json = dict[str, Any]

_ENVELOPE: Final[dict[str, Json]] = {
    "specversion": {"const": "1.0"},
    "source": {**NAME, "description": "//sidecar/region/node/worker/epoch; denials have /denials after it"},
    "id": ID,
    "time": TIME,
    "sequence": {"type": "string", "pattern": r"^\d{18}$", "description": "numbers a source without gaps, from 1"},
    "dataschema": {},
    "traceparent": {"type": "string", "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"},
    "subject": {**NAME, "description": "who used it"},
    "partitionkey": {**NAME, "description": "the customer, or the source of a record without customer"},
    "causationid": {**NAME, "description": "the id of the record that led to this one, or that it changes"},
}
_ALWAYS: Final = ("specversion", "source", "id", "time", "sequence", "dataschema", "type")
# The further attributes that a kind has, and those of them that it always has.
_ATTRIBUTES: Final[dict[str, tuple[str, str]]] = {
    "usage": ("subject partitionkey", "subject partitionkey"),
    "unattributed": ("", ""),
    "denial": ("subject partitionkey", "subject partitionkey"),
    "denial-summary": ("subject partitionkey", "partitionkey"),
    "correction": ("subject partitionkey causationid", "subject partitionkey causationid"),
    "void": ("subject partitionkey causationid", "subject partitionkey causationid"),
    "alert": ("subject partitionkey", "subject partitionkey"),
    "checkpoint": ("partitionkey", "partitionkey"),
    "source": ("partitionkey", "partitionkey"),
    "posting": ("subject partitionkey causationid", "subject partitionkey"),
    "policy": ("partitionkey", "partitionkey"),
    "audit": ("subject partitionkey causationid", "partitionkey"),
}


def _event(kind: str) -> Json:
    further, always = _ATTRIBUTES[kind]
    names = [*(name for name in _ALWAYS if name != "type"), *further.split(), "traceparent"]
    return {
        "type": "object",
        "properties": {
            **{name: _ENVELOPE[name] for name in names},
            "type": {"const": f"sidecar.{kind}.v1"},
            "dataschema": {"const": f"{SCHEMA_STEM}{kind}.v1.json"},
            "data": object_of(fields_of(kind)),
        },
        "required": [*_ALWAYS, *always.split(), "data"],
        "additionalProperties": False,
    }


def record_schema() -> Json:
    """A schema that each record of ours meets by exactly one of its kinds."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{SCHEMA_STEM}record.v1.json",
        "title": "A record of the metering sidecar: CloudEvents 1.0, structured JSON",
        "oneOf": [{"$ref": f"#/$defs/{kind}"} for kind in KINDS],
        "$defs": {kind: _event(kind) for kind in KINDS},
    }


# --- The table of docs/record.md -------------------------------------------------------------------------------------


def fields_table() -> str:
    """The table of docs/record.md, in Markdown: each field, and behind it the members of its objects."""
    lines = ["| field | kinds | JSON | meaning | from |", "|---|---|---|---|---|"]
    shown: set[str] = set()
    for field in FIELDS:
        kinds = field.kinds.replace(" ", ", ")
        optional = "?" if field.optional else ""
        lines.append(
            f"| `{field.name}`{optional} | {kinds} | {_type(field.schema)} | {field.meaning} | {field.origin} |"
        )
        members = dict(_members(field.name, field.schema)) if field.name not in shown else {}
        lines += [f"| `{path}` | | {_type(schema)} | {schema['description']} | |" for path, schema in members.items()]
        shown |= {field.name} if members else set()
    return "\n".join(lines)


def _members(path: str, schema: Json) -> Iterable[tuple[str, Json]]:
    """The members of the objects in a value at `path`, however deep."""
    items = schema.get("items", {})
    for each in items.get("oneOf", [items]):
        if "properties" in each:
            yield from _members(f"{path}[]", each)
    for name, member in schema.get("properties", {}).items():
        optional = "" if name in schema["required"] else "?"
        yield f"{path}.{name}{optional}", member
        yield from _members(f"{path}.{name}", member)


def _type(schema: Json) -> str:
    if "enum" in schema:
        return " ".join([f"`{each}`" for each in schema["enum"]])
    return "time" if schema.get("pattern") == TIME["pattern"] else str(schema["type"])
