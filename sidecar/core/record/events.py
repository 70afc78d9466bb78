"""Records as CloudEvents 1.0 in structured JSON: one billable statement per exchange, never changed once written.

Nothing of a credential, a query string, a header, a body or an address can get in, because nothing here reads one.
What repeats (who, by which terms, in which second) is rendered once and kept, within bounds; the rest is filled in.
docs/record.md tells the fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import orjson

from sidecar.core.decision import Decision
from sidecar.core.identity import Identity
from sidecar.core.record.forms import (
    SCHEMA_STEM,
    decided,
    denial_form,
    dumps,
    json,
    reserved,
    second,
    trace,
    verdict,
)
from sidecar.core.record.voice import Voice
from sidecar.core.usage.billing import billing

KINDS: Final = ("usage", "unattributed", "denial", "correction", "void", "alert", "checkpoint")


class Facts:
    """What a record says of an exchange. A denial's knows only its first fifteen lines, with what it cost in time.

    `id` has 26 ASCII bytes; `usage` units by meter; `quality` is exact, provider_reported, estimated or partial; sizes
    are of bodies; `plan` is a label like "pro@3", "" for nobody's; `traceparent` is valid, or "".
    A base class and no Protocol: compiled, its fields are read without a look-up.
    """

    __slots__ = (
        "id", "identity", "plan", "route", "method", "path", "status", "decision", "traceparent",
        "bytes_in", "bytes_out", "duration_us", "upstream_us", "attempts", "outcome",
        "usage", "quality", "billable", "billable_reason", "client_disconnected", "spelled",
        "voice",
    )  # fmt: skip

    id: bytes
    identity: Identity | None
    plan: str
    route: str
    method: str
    path: str
    status: int
    decision: Decision | None
    traceparent: str
    bytes_in: int
    bytes_out: int
    duration_us: int
    upstream_us: int
    attempts: int
    outcome: str
    usage: dict[str, int]
    quality: str
    billable: bool
    billable_reason: str
    client_disconnected: bool
    voice: Voice  # how this caller's exchanges are told
    spelled: bytes  # the path as JSON, b"" where nothing was written of it yet
    dims: dict[str, str] = {}  # noqa: RUF012 - never written to: who has any has a field of that name


class Checkpoint(NamedTuple):
    """What a producer says every few seconds, traffic or not.

    `highest` number and `totals` (units by meter) are of this epoch, the checkpoint itself not counted in; `unrecorded`
    exchanges were served while the journal was full; `policy` is the version in force.
    """

    highest: Mapping[str, int]
    totals: Mapping[str, int]
    open_exchanges: int
    backlog_bytes: int
    unrecorded: int
    degraded_s: int
    policy: str


def usage_record(facts: Facts, time_us: int, source: str, sequence: int) -> bytes:
    """The record of an exchange: kind `usage`, or `unattributed` where nobody is known. `time_us`: since the epoch."""
    decision, like = facts.decision, facts.voice.like(facts, source)
    if like is not None:
        return like.tell(facts, time_us, sequence)
    return facts.voice.usage(source) % (
        facts.id,
        second(time_us // 1_000_000),
        time_us % 1_000_000,
        sequence,
        trace(facts.traceparent) if facts.traceparent else b"",
        facts.spelled or json(facts.path),
        facts.status,
        dumps(facts.usage),
        verdict(facts.quality, facts.billable, facts.billable_reason, facts.outcome),
        json(facts.dims) if facts.dims else b"{}",
        facts.duration_us,
        facts.upstream_us,
        facts.bytes_in,
        facts.bytes_out,
        facts.attempts,
        b"true" if facts.client_disconnected else b"false",
        decided(decision) if decision is not None else b"",
    )


def denial_record(facts: Facts, time_us: int, source: str, sequence: int) -> bytes:
    """The record of a request that a limit refused: it consumed nothing."""
    decision = facts.decision
    return denial_form(source, facts.identity, facts.plan, facts.route, facts.method) % (
        facts.id,
        second(time_us // 1_000_000),
        time_us % 1_000_000,
        sequence,
        trace(facts.traceparent) if facts.traceparent else b"",
        json(facts.path),
        facts.status,
        facts.duration_us,
        decided(decision) if decision is not None else b"",
    )


def checkpoint_record(said: Checkpoint, id_: bytes, time_us: int, source: str, sequence: int) -> bytes:
    """What the producer `source` says of itself."""
    data = {
        **said._asdict(),
        "highest": dict(said.highest),
        "totals": dict(said.totals),
    }
    return _whole("checkpoint", {"id": id_.decode(), "partitionkey": source}, (time_us, source, sequence), data)


def open_entry(facts: Facts, time_us: int) -> bytes:
    """What is known when the upstream is about to see the exchange: enough to close it as crashed after a kill."""
    checks = facts.decision.checks if facts.decision is not None else None
    if not facts.traceparent and (form := facts.voice.opening(facts.path, checks)):
        return form % time_us
    path = facts.spelled = json(facts.path)
    return facts.voice.open() % (
        time_us,
        trace(facts.traceparent) if facts.traceparent else b"",
        path,
        b"{}" if checks is None else reserved(checks),
    )


def crashed_record(opened: bytes, id_: bytes, time_us: int, source: str, sequence: int) -> bytes:
    """The record of an exchange that was found open after a crash: `opened` is what `open_entry` made.

    Its usage is what was reserved, since that was enforced; whether the upstream did the work, nobody knows.
    """
    known = orjson.loads(opened)
    billable, reason = billing(known["plan"], status=0, outcome="aborted")
    envelope = {"id": id_.decode()}
    if "customer" in known:
        envelope |= {"subject": known.pop("subject"), "partitionkey": known["customer"]}
    if "traceparent" in known:
        envelope["traceparent"] = known.pop("traceparent")
    duration_us = max(0, time_us - known.pop("time_us"))
    data = {
        **known,
        "status": 0,
        "usage": known["reserved"],
        "quality": "partial",
        "billable": billable,
        "billable_reason": reason,
        "outcome": "crashed",
        "dims": {},
        "duration_us": duration_us,
        "upstream_us": 0,
        "bytes_in": 0,
        "bytes_out": 0,
        "attempts": 0,
        "client_disconnected": False,
    }
    del data["reserved"]
    kind = "usage" if "customer" in known else "unattributed"
    return _whole(kind, envelope, (time_us, source, sequence), data)


class Totals:
    """Units by meter of all records of this process so far, for its checkpoints."""

    __slots__ = ("units",)

    def __init__(self) -> None:
        self.units: dict[str, int] = {}

    def add(self, usage: dict[str, int]) -> None:
        """Count what one record says."""
        units = self.units
        for meter, amount in usage.items():
            units[meter] = units.get(meter, 0) + amount


def _whole(kind: str, envelope: Mapping[str, str], at: tuple[int, str, int], data: Mapping[str, object]) -> bytes:
    time_us, source, sequence = at
    event = {
        "specversion": "1.0",
        "type": f"sidecar.{kind}.v1",
        "source": source,
        "dataschema": f"{SCHEMA_STEM}{kind}.v1.json",
        **envelope,
        "time": f"{second(time_us // 1_000_000).decode()}{time_us % 1_000_000:06d}Z",
        "sequence": f"{sequence:018d}",
        "data": data,
    }
    return orjson.dumps(event)
