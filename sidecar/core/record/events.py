"""Records as CloudEvents 1.0 in structured JSON: one billable statement per exchange, never changed once written.

Nothing of a credential, a query string, a header, a body or an address can get in, because nothing here reads one.
What repeats (who, by which terms, in which second) is rendered once and kept, within bounds; the rest is one f-string.
docs/record.md tells the fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from operator import sub
from typing import Final, NamedTuple, Protocol

import orjson

from sidecar.core.counter import Checks
from sidecar.core.decision import Decision
from sidecar.core.identity import Identity
from sidecar.core.policy import Limit
from sidecar.core.usage import billing

SCHEMA_STEM: Final = "urn:sidecar:schema/"
KINDS: Final = ("usage", "unattributed", "denial", "correction", "void", "alert", "checkpoint")


class Facts(Protocol):
    """What a record says of an exchange. A denial's knows only its first fifteen lines, with what it cost in time.

    `id` has 26 ASCII bytes; `usage` units by meter; `quality` is exact, provider_reported, estimated or partial; sizes
    are of bodies; `plan` is a label like "pro@3", "" for nobody's; `traceparent` is valid, or "".
    """

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
    dims: dict[str, str]
    client_disconnected: bool


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
    identity, decision = facts.identity, facts.decision
    envelope, data, _ = _said(identity, facts.plan, facts.route, facts.method)
    seconds, micros = divmod(time_us, 1_000_000)
    return (
        f'{_begin(source, "usage" if identity is not None else "unattributed")}{facts.id.decode()}",{envelope}'
        f'"time":"{_second(seconds)}{micros:06d}Z","sequence":"{sequence:018d}",{_trace(facts.traceparent)}'
        f'"data":{{{data}{_json(facts.path)},"status":{facts.status},'
        f'"usage":{orjson.dumps(facts.usage).decode()},'
        f"{_verdict(facts.quality, facts.billable, facts.billable_reason, facts.outcome)}"
        f'"dims":{_json(facts.dims) if facts.dims else "{}"},'
        f'"duration_us":{facts.duration_us},"upstream_us":{facts.upstream_us},'
        f'"bytes_in":{facts.bytes_in},"bytes_out":{facts.bytes_out},"attempts":{facts.attempts},'
        f'"client_disconnected":{"true" if facts.client_disconnected else "false"}'
        f"{_decided(decision) if decision is not None else ''}}}}}"
    ).encode()


def denial_record(facts: Facts, time_us: int, source: str, sequence: int) -> bytes:
    """The record of a request that a limit refused: it consumed nothing."""
    decision = facts.decision
    envelope, data, _ = _said(facts.identity, facts.plan, facts.route, facts.method)
    seconds, micros = divmod(time_us, 1_000_000)
    return (
        f'{_begin(source, "denial")}{facts.id.decode()}",{envelope}'
        f'"time":"{_second(seconds)}{micros:06d}Z","sequence":"{sequence:018d}",{_trace(facts.traceparent)}'
        f'"data":{{{data}{_json(facts.path)},"status":{facts.status},'
        f'"duration_us":{facts.duration_us}{_decided(decision) if decision is not None else ""}}}}}'
    ).encode()


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
    decision = facts.decision
    _, _, known = _said(facts.identity, facts.plan, facts.route, facts.method)
    reserved = "{}" if decision is None else _template(decision.checks)[2]
    return (
        f'{{"time_us":{time_us},{_trace(facts.traceparent)}{known}{_json(facts.path)},"reserved":{reserved}}}'
    ).encode()


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

    def add(self, usage: Mapping[str, int]) -> None:
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
        "time": f"{_second(time_us // 1_000_000)}{time_us % 1_000_000:06d}Z",
        "sequence": f"{sequence:018d}",
        "data": data,
    }
    return orjson.dumps(event)


def _json(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # a lone surrogate: no record is lost for a name that is no text
        return orjson.dumps(str(value).encode("utf-8", "backslashreplace").decode()).decode()


@lru_cache(maxsize=64)
def _begin(source: str, kind: str) -> str:
    return (
        f'{{"specversion":"1.0","type":"sidecar.{kind}.v1","source":{_json(source)},'
        f'"dataschema":"{SCHEMA_STEM}{kind}.v1.json","id":"'
    )


@lru_cache(maxsize=8192)
def _said(identity: Identity | None, plan: str, route: str, method: str) -> tuple[str, str, str]:
    """What an exchange shares with the caller's others: of the envelope, of the data, of an OPEN entry, up to the path.

    No attribute is empty: CloudEvents forbids it.
    """
    way = f'"plan":{_json(plan)},"route":{_json(route)},"method":{_json(method)},"path":'
    if identity is None:
        return "", way, way
    subject = f'"subject":{_json(identity.subject or identity.customer)},'
    customer = _json(identity.customer)
    since = f'"plan_since":{_json(identity.plan_since)},' if identity.plan_since else ""
    who = f'"customer":{customer},"key_id":{_json(identity.key_id)},{since}'
    return f'{subject}"partitionkey":{customer},', who + way, subject + who + way


@lru_cache(maxsize=4096)
def _verdict(quality: str, billable: bool, reason: str, outcome: str) -> str:
    said = {"quality": quality, "billable": billable, "billable_reason": reason, "outcome": outcome}
    return orjson.dumps(said).decode()[1:-1] + ","


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}."


def _trace(traceparent: str) -> str:
    return f'"traceparent":{_json(traceparent)},' if traceparent else ""


def _decided(decision: Decision) -> str:
    """The limits asked: what is used of each with this exchange, in the window that counted it; a balance's rest."""
    shadowed = decision.shadowed
    template, amounts, _, figures = _template(decision.checks)
    remaining = decision.remaining
    limits = template % ((*map(sub, amounts, remaining),) if figures is None else figures(remaining))
    if decision.allowed and not shadowed:
        return f',"decision":{{"mode":"{decision.mode}","limits":[{limits}]}}'
    named = decision.checks.limits
    mode = "shadow" if shadowed and decision.mode == "exact" else decision.mode
    refused = "" if decision.allowed else f'"violated":{_json(named[decision.violated].id)},'
    would = f'"shadowed":{_json([named[index].id for index in shadowed])},' if shadowed else ""
    return f',"decision":{{"mode":"{mode}",{refused}{would}"limits":[{limits}]}}'


@lru_cache(maxsize=8192)
def _template(checks: Checks) -> tuple[str, tuple[int, ...], str, Callable[[Sequence[int]], tuple[int, ...]] | None]:
    """A decision's limits with a place for each `used`; the limits' amounts; what is reserved, by meter, as JSON.

    The last, where money is among them, makes the figures of what remains: priced limits are left out, and a balance
    says what remains.
    """
    limits = ",".join(
        _limit(limit, window) for limit, window in zip(checks.limits, checks.windows, strict=True) if _told(limit)
    )
    reserved: dict[str, int] = {}
    for limit, cost in zip(checks.limits, checks.costs, strict=True):
        if limit.kind not in _UNMETERED:
            reserved[limit.meter] = max(cost, reserved.get(limit.meter, 0))
    amounts = tuple(limit.amount for limit in checks.limits)
    money = any(limit.kind in _MONEY for limit in checks.limits)
    return limits, amounts, _json(reserved), partial(_figures, checks.limits) if money else None


_UNMETERED: Final = frozenset({"concurrency", "balance"})
_MONEY: Final = frozenset({"priced", "balance"})


def _told(limit: Limit) -> bool:
    """A priced limit only counts what its balance pays for."""
    return limit.kind != "priced"


def _limit(limit: Limit, window: str) -> str:
    if limit.kind == "balance":
        return f'{{"id":{_json(limit.id)},"unit":{_json(limit.unit)}'.replace("%", "%%") + ',"balance":%d}'
    named = f'{{"id":{_json(limit.id)},"period":{_json(window)}'.replace("%", "%%")
    return named + f',"used":%d,"limit":{limit.amount}}}'


def _figures(limits: Sequence[Limit], remaining: Sequence[int]) -> tuple[int, ...]:
    return tuple(
        left if limit.kind == "balance" else limit.amount - left
        for limit, left in zip(limits, remaining, strict=True)
        if _told(limit)
    )
