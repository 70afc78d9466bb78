"""Records for tests of the ledger: each is a CloudEvent as a node writes it, or deliberately not."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import orjson

SOURCE = "//sidecar/test/n/0/1"
BEGIN = datetime(2026, 11, 21, 1, 3, 26, tzinfo=UTC)


def instant(number=0, begin=BEGIN):
    return f"{begin + timedelta(milliseconds=number):%Y-%m-%dT%H:%M:%S.%fZ}"


def record_id(number, kind="usage"):
    tail = hashlib.sha256(f"{kind}/{number}".encode()).hexdigest()[:12].upper()
    return f"01M8N{number:09d}{tail}"


def event(number, kind="usage", data=None, **envelope):
    """A record of a kind; `envelope` replaces attributes, and those that are None are left out."""
    record = {
        "specversion": "1.0",
        "type": f"sidecar.{kind}.v1",
        "source": SOURCE,
        "id": record_id(number, kind),
        "subject": "app",
        "partitionkey": "acme",
        "time": instant(number),
        "sequence": f"{number:018d}",
        "data": data or {},
        **envelope,
    }
    return {name: value for name, value in record.items() if value is not None}


def usage(number, units=None, *, customer="acme", envelope=None, **data):
    """A usage record; `data` replaces fields, and those that are None are left out."""
    fields = {
        "customer": customer,
        "key_id": f"k_{customer}",
        "plan": "pro@3",
        "route": "chat",
        "method": "POST",
        "path": "/v1/chat",
        "status": 200,
        "usage": {"requests": 1} if units is None else units,
        "quality": "exact",
        "billable": True,
        "billable_reason": "plan:pro",
        "outcome": "ok",
        "dims": {},
        "attempts": 1,
        "client_disconnected": False,
        "period_time": instant(number),
        "duration_us": 10,
        "upstream_us": 9,
        "bytes_in": 3,
        "bytes_out": 5,
        "decision": {"mode": "exact", "limits": []},
        **data,
    }
    kept = {name: value for name, value in fields.items() if value is not None}
    return event(number, "usage", kept, partitionkey=customer) | (envelope or {})


def change(number, of, units, kind="correction", **data):
    """A correction or void of the record with the id `of`."""
    fields = {"customer": "acme", "key_id": "k_acme", "usage": units, "reason": "typo", "actor": "ann", **data}
    return event(number, kind, fields, causationid=of)


def lines(*records):
    """Records, or raw bytes, as they are in a sink file."""
    return b"".join([(each if isinstance(each, bytes) else orjson.dumps(each)) + b"\n" for each in records])
