"""Templates of the records and OPEN entries of one caller, of which only the values that changed are rendered.

A record has about 900 bytes, and of two records of the same caller on the same route most are the same. To build the
whole of each, as `whole_record` does, costs about ten times as much as to copy what is known already. A template is
therefore a list of texts and slots, and a record is that list joined:

     0  {"specversion":"1.0","type":"sidecar.usage.v1","source":"//sidecar/eu-1/gw-3/0/17…","dataschema":"…","id":"
     1      01JD3QWERT0000000000000001                   rendered for each record
     2  ","subject":"app-42","partitionkey":"cust-9","time":"
     3      2026-11-21T01:03:26.                         rendered once a second
     4      123456                                       rendered for each record
     …
     7  ","data":{"customer":"cust-9",…,"path":"/v1/chat/completions","status":200,…,"period_time":"
     8      2026-11-21T01:03:25.                         rendered once a second
     9      654321                                       rendered for each record
     …
    18      ,"decision":{"mode":"leased","limits":[{"id":"monthly","period":"2026-11","used":
    19      4711                                         rendered for each record
    20  ,"limit":1000000}]}}}

Rarely changing fields are one slot, number 7 (`_RARE`): the fields that differ between some exchanges of the
caller, such as path and status, between texts that are the caller's. It is made again when one of these fields has
another value than in the record before; each of them keeps its text, so only that one is rendered. In figures, of an
exchange on a lease that differs from the one before it in its id, times and sizes only: 9 slots and the numbers of the
limits are rendered, about 90 of 900 bytes, and 21 parts are joined.

The template is shared by all exchanges of the caller on the route, in whatever order they end: between filling the
slots and joining them nothing else runs. A test compares its records with those made of each field's own `read`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import sub
from typing import Final

from sidecar.core.decision import Decision
from sidecar.core.digits import decimal, eighteen, six
from sidecar.core.identity import Identity
from sidecar.core.instants import second
from sidecar.core.limits import Checks
from sidecar.core.record.decisions import SLOT, allowed_template, decision_text, reserved_text
from sidecar.core.record.fields import Facts, fields_of, read_data
from sidecar.core.record.text import SCHEMA_STEM, json

# Places of the slots in a record.
_ID: Final = 1
_SECOND: Final = 3
_MICROS: Final = 4
_SEQUENCE: Final = 6
_RARE: Final = 7
_PERIOD_SECOND: Final = 8
_PERIOD_MICROS: Final = 9
_DURATION: Final = 11
_UPSTREAM: Final = 13
_BYTES_IN: Final = 15
_BYTES_OUT: Final = 17
_END: Final = 18  # from here on the decision and the record's end

# Slots of the part that changes rarely.
_TRACE: Final = 1
_PATH: Final = 3
_STATUS: Final = 5
_USAGE: Final = 7
_VERDICT: Final = 9
_DETAILS: Final = 11
_ATTEMPTS: Final = 13
_DISCONNECTED: Final = 15
_OTHERS: Final = 16  # fields without a slot of their own

_GROUPS: Final = frozenset({"verdict", "details"})  # several fields in one slot, with their names
_OTHER_FIELDS: Final = [field for field in fields_of("usage") if not field.slot and field.read is not None]
_NO_DETAILS: Final = b'"dims":{}'
_EACH_TIME: Final = b"\xff\xff"  # slots for the second and the fraction


class RecordTemplate:
    """The record of one caller's exchanges, of one source."""

    __slots__ = (
        "source", "_parts", "_rare", "_second", "_period_second",
        "_traceparent", "_path", "_status", "_attempts", "_usage",
        "_quality", "_billable", "_reason", "_outcome", "_is_detailed", "_is_disconnected",
        "_checks", "_mode", "_amounts", "_numbers",  # of the decision
    )  # fmt: skip

    def __init__(self, facts: Facts, source: str) -> None:
        self.source = source
        before, rare, behind = [_interleaved(text.split(SLOT)) for text in _record_texts(facts, source)]
        self._rare = rare
        rare[_PATH], rare[_DETAILS], rare[_DISCONNECTED] = json(""), _NO_DETAILS, b"false"
        self._parts = [*before, b"", *behind]
        self._traceparent = self._path = self._quality = self._reason = self._outcome = ""
        self._second = self._period_second = self._status = self._attempts = -1
        self._usage: dict[str, int] | None = None
        self._billable = self._is_detailed = self._is_disconnected = False
        self._checks: Checks | None = None
        self._mode = ""  # of the allowed decision that the parts from _END on are of; "": they are something else
        self._amounts: tuple[int, ...] = ()
        self._numbers: Callable[[Sequence[int]], tuple[int, ...]] | None = None

    def render(self, facts: Facts, time_us: int, sequence: int) -> bytes:
        """The record of an exchange that became final at `time_us`."""
        parts, period_us = self._parts, facts.period_us
        seconds = time_us // 1_000_000
        if seconds != self._second:
            self._second, parts[_SECOND] = seconds, second(seconds)
        parts[_ID] = facts.id
        parts[_MICROS] = six(time_us % 1_000_000)
        parts[_SEQUENCE] = eighteen(sequence)
        if self._fill_rare(facts, self._rare):
            parts[_RARE] = b"".join(self._rare)
        seconds = period_us // 1_000_000
        if seconds != self._period_second:
            self._period_second, parts[_PERIOD_SECOND] = seconds, second(seconds)
        parts[_PERIOD_MICROS] = six(period_us % 1_000_000)
        parts[_DURATION] = decimal(facts.duration_us)
        parts[_UPSTREAM] = decimal(facts.upstream_us)
        parts[_BYTES_IN] = decimal(facts.bytes_in)
        parts[_BYTES_OUT] = decimal(facts.bytes_out)
        self._fill_end(facts.decision, parts)
        return b"".join(parts)

    def _fill_rare(self, facts: Facts, parts: list[bytes]) -> bool:
        """Render what is another value than in the record before; whether there was any."""
        changed = bool(_OTHER_FIELDS)
        if changed:
            parts[_OTHERS] = _others(facts)
        if facts.path != self._path:
            self._path, changed = facts.path, True
            parts[_PATH] = json(facts.path)
        if facts.status != self._status:
            self._status, changed = facts.status, True
            parts[_STATUS] = decimal(facts.status)
        if facts.attempts != self._attempts:
            self._attempts, changed = facts.attempts, True
            parts[_ATTEMPTS] = decimal(facts.attempts)
        if facts.client_disconnected != self._is_disconnected:
            self._is_disconnected, changed = facts.client_disconnected, True
            parts[_DISCONNECTED] = b"true" if facts.client_disconnected else b"false"
        if facts.usage is not self._usage:  # one object where it is not measured
            self._usage, changed = facts.usage, True
            parts[_USAGE] = json(facts.usage)
        if (
            facts.outcome != self._outcome
            or facts.billable_reason != self._reason
            or facts.billable != self._billable
            or facts.quality != self._quality
        ):
            self._quality, self._billable = facts.quality, facts.billable
            self._reason, self._outcome, changed = facts.billable_reason, facts.outcome, True
            parts[_VERDICT] = _verdict(self._quality, self._billable, self._reason, self._outcome)
        if facts.traceparent != self._traceparent:
            self._traceparent, changed = facts.traceparent, True
            parts[_TRACE] = _trace(facts.traceparent)
        is_detailed = bool(
            facts.dims or facts.usage_lines or facts.parent or facts.upstream_request_id or facts.client_request_id
        )
        if is_detailed or self._is_detailed:
            self._is_detailed, changed = is_detailed, True
            parts[_DETAILS] = _details(facts) if is_detailed else _NO_DETAILS
        return changed

    def _fill_end(self, decision: Decision | None, parts: list[bytes]) -> None:
        if decision is None or not decision.allowed or decision.shadowed:
            self._mode = ""
            text = b',"decision":' + decision_text(decision) if decision is not None else b""
            parts[_END:] = [text + b"}}"]
            return
        if decision.checks is not self._checks or decision.mode != self._mode:
            self._checks, self._mode = decision.checks, decision.mode
            texts, self._amounts, self._numbers = allowed_template(decision.checks, decision.mode)
            parts[_END:] = _interleaved(texts)
        at, remaining = _END + 1, decision.remaining
        numbers = map(sub, self._amounts, remaining) if self._numbers is None else self._numbers(remaining)
        for number in numbers:
            parts[at] = decimal(number)
            at += 2


class OpenTemplate:
    """The OPEN entry of one caller's exchanges: what is needed to close one as crashed after a kill."""

    __slots__ = ("_begin", "_caller", "_checks", "_is_traced", "_meters", "_path", "_second", "_text")

    def __init__(self, facts: Facts, meters: tuple[str, ...]) -> None:
        self._meters = meters
        self._caller = _open_text(facts)
        self._checks: Checks | None = None
        self._is_traced = False
        self._path = ""
        self._second, self._begin = -1, b""  # up to the time's fraction
        self._text = b""  # behind the time, of the entry before

    def render(self, facts: Facts, time_us: int) -> bytes:
        """The OPEN entry of an exchange that arrived at `time_us`."""
        checks = facts.decision.checks if facts.decision is not None else None
        if (
            checks is not self._checks
            or facts.path != self._path
            or self._is_traced
            or facts.traceparent
            or facts.parent
            or not self._text
            or (checks is not None and not checks.covers(time_us))
        ):
            self._checks, self._path = checks, facts.path
            self._is_traced = bool(facts.traceparent or facts.parent)
            own, reserved = _trace(facts.traceparent) + _parent(facts), reserved_text(checks, self._meters, time_us)
            self._text = b"".join((b",", own, self._caller, b',"path":', json(facts.path), b",", reserved, b"}"))
        seconds = time_us // 1_000_000
        if seconds == 0:  # JSON allows no leading zeros
            return b'{"time_us":%d%b' % (time_us, self._text)
        if seconds != self._second:
            self._second, self._begin = seconds, b'{"time_us":%d' % seconds
        return self._begin + six(time_us % 1_000_000) + self._text


class RecordTemplates:
    """The templates of one caller: of the same identity, plan, route and method. `meters`: all that can apply to it."""

    __slots__ = ("_meters", "_open", "_record")

    def __init__(self, meters: tuple[str, ...] = ()) -> None:
        self._meters = meters
        self._record: RecordTemplate | None = None
        self._open: OpenTemplate | None = None

    def record(self, facts: Facts, source: str) -> RecordTemplate:
        """The template of records of `source`, which changes with an epoch at most."""
        template = self._record
        if template is None or template.source is not source:
            template = self._record = RecordTemplate(facts, source)
        return template

    def open(self, facts: Facts) -> OpenTemplate:
        """The template of OPEN entries."""
        if self._open is None:
            self._open = OpenTemplate(facts, self._meters)
        return self._open


@lru_cache(maxsize=8192)
def templates_for(
    _identity: Identity | None, _plan: str, _route: str, _method: str, meters: tuple[str, ...]
) -> RecordTemplates:
    """The templates of a caller: the same object for the same arguments, for as long as it is in use."""
    return RecordTemplates(meters)


def _record_texts(facts: Facts, source: str) -> tuple[bytes, bytes, bytes]:
    """A record up to its decision, with slots: the parts before, in and behind the fields that change rarely.

    No attribute is empty: CloudEvents forbids it.
    """
    identity = facts.identity
    kind = "usage" if identity is not None else "unattributed"
    begin = {"specversion": "1.0", "type": f"sidecar.{kind}.v1", "source": source}
    who = {}
    if identity is not None:
        who = {"subject": identity.subject or identity.customer, "partitionkey": identity.customer}
    members = [
        json(begin | {"dataschema": f"{SCHEMA_STEM}{kind}.v1.json"})[1:-1],
        b'"id":"\xff"',
        *([json(who)[1:-1]] if who else ()),
        b'"time":"' + _EACH_TIME + b'Z"',
        b'"sequence":"\xff',
    ]
    fields = fields_of(kind)
    caller = read_data(facts, [field for field in fields if field.slot == "caller"])
    rare, behind, last = [json(caller)[1:-1]], [], ""
    for field in fields:
        if field.slot in _GROUPS and field.slot != last:
            rare.append(SLOT)
        elif field.slot in {"path", "status", "usage", "attempts", "client_disconnected"}:
            rare.append(json(field.name) + b":\xff")
        elif field.slot == "number":
            behind.append(json(field.name) + b":\xff")
        last = field.slot
    data = b'",\xff"data":{' + b",".join(rare) + SLOT + b',"period_time":"'
    return b"{" + b",".join(members), data, _EACH_TIME + b'Z",' + b",".join(behind) + SLOT


def _open_text(facts: Facts) -> bytes:
    """The caller's members of an OPEN entry, without those that have the value that `crashed_data` gives them.

    `zone` and `anchor_us` say which windows are the customer's.
    """
    identity = facts.identity
    members: dict[str, object] = {}
    if identity is not None:
        members["subject"] = identity.subject or identity.customer
        if identity.zone != "UTC":
            members["zone"] = identity.zone
        if identity.anchor_us:
            members["anchor_us"] = identity.anchor_us
    fields = fields_of("usage" if identity is not None else "unattributed")
    data = read_data(facts, [field for field in fields if field.slot == "caller"])
    for field in fields:
        rest = {name: value for name, value in data.items() if name != field.name}
        if field.crashed is not None and len(rest) < len(data) and field.crashed(rest) == data[field.name]:
            data = rest
    return json(members | data)[1:-1]


def _interleaved(texts: Sequence[bytes]) -> list[bytes]:
    """The texts with an empty slot between each two; empty texts are left out."""
    parts = [texts[0]] if texts[0] else []
    for text in texts[1:]:
        parts += [b"", text] if text else [b""]
    return parts


def _trace(traceparent: str) -> bytes:
    return b'"traceparent":%b,' % json(traceparent) if traceparent else b""


def _parent(facts: Facts) -> bytes:
    return b'"parent":%b,' % json(facts.parent) if facts.parent else b""


@lru_cache(maxsize=4096)
def _verdict(quality: str, billable: bool, reason: str, outcome: str) -> bytes:
    members = {"quality": quality, "billable": billable, "billable_reason": reason, "outcome": outcome}
    return json(members)[1:-1]


def _details(facts: Facts) -> bytes:
    lines = b',"usage_lines":' + json(facts.usage_lines) if facts.usage_lines else b""
    ids = b',"upstream_request_id":' + json(facts.upstream_request_id) if facts.upstream_request_id else b""
    if facts.client_request_id:
        ids += b',"client_request_id":' + json(facts.client_request_id)
    return b"".join((_parent(facts), b'"dims":', json(facts.dims), lines, ids))


def _others(facts: Facts) -> bytes:
    """The members that have no slot of their own."""
    members = read_data(facts, _OTHER_FIELDS)
    return b"," + json(members)[1:-1] if members else b""
