"""The JSON text that records are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from sidecar.core.instants import instant

SCHEMA_STEM: Final = "urn:sidecar:schema/"


def json(value: Any) -> bytes:
    """`value` as JSON. A lone surrogate, which UTF-8 cannot hold, is written as its escape, so no record is lost."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return orjson.dumps(_readable(value))


def _readable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_readable(name): _readable(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_readable(each) for each in value]
    return value


def whole_record(kind: str, envelope: Mapping[str, str], at: tuple[int, str, int], data: Mapping[str, object]) -> bytes:
    """A record, written as a whole. `at`: when it became final (µs since 1970), its source, its sequence there."""
    time_us, source, sequence = at
    event = {
        "specversion": "1.0",
        "type": f"sidecar.{kind}.v1",
        "source": source,
        "dataschema": f"{SCHEMA_STEM}{kind}.v1.json",
        **envelope,
        "time": instant(time_us),
        "sequence": f"{sequence:018d}",
        "data": data,
    }
    return json(event)
