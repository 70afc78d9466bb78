"""The parts of records that repeat, rendered once and kept within bounds: who, by which terms, in which second.

A form is bytes with places (`%b`, `%d`) for what each exchange has of its own; all else in it is JSON already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from operator import sub
from typing import Final

import orjson

from sidecar.core.counter import Checks
from sidecar.core.decision import Decision
from sidecar.core.identity import Identity
from sidecar.core.policy import Limit

SCHEMA_STEM: Final = "urn:sidecar:schema/"
dumps: Final = orjson.dumps


def json(value: object) -> bytes:
    """`value` as JSON."""
    try:
        return dumps(value)
    except TypeError:  # a lone surrogate: no record is lost for a name that is no text
        return orjson.dumps(str(value).encode("utf-8", "backslashreplace").decode())


@lru_cache(maxsize=8192)
def usage_form(source: str, identity: Identity | None, plan: str, route: str, method: str) -> bytes:
    """A usage record with places for what each exchange has of its own."""
    begin, data, _ = _said(source, "unattributed" if identity is None else "usage", identity, (plan, route, method))
    return (
        begin + data + b'%b,"status":%d,"usage":%b,%b"dims":%b,"duration_us":%d,"upstream_us":%d,'
        b'"bytes_in":%d,"bytes_out":%d,"attempts":%d,"client_disconnected":%b%b}}'
    )


@lru_cache(maxsize=8192)
def denial_form(source: str, identity: Identity | None, plan: str, route: str, method: str) -> bytes:
    """A denial's record, likewise."""
    begin, data, _ = _said(source, "denial", identity, (plan, route, method))
    return begin + data + b'%b,"status":%d,"duration_us":%d%b}}'


@lru_cache(maxsize=8192)
def open_form(identity: Identity | None, plan: str, route: str, method: str) -> bytes:
    """An OPEN entry, likewise."""
    known = _said("", "", identity, (plan, route, method))[2]
    return b'{"time_us":%d,%b' + known + b'%b,"reserved":%b}'


def _said(source: str, kind: str, identity: Identity | None, way: tuple[str, str, str]) -> tuple[bytes, bytes, bytes]:
    """What a caller's exchanges share, in parts: the envelope up to its data, the data and an OPEN up to their path.

    No attribute is empty: CloudEvents forbids it.
    """
    plan, route, method = map(_literal, way)
    place = b'"plan":%b,"route":%b,"method":%b,"path":' % (plan, route, method)
    begin = b'{"specversion":"1.0","type":"sidecar.%b.v1","source":%b,"dataschema":"%b%b.v1.json","id":"%%b",' % (
        kind.encode(),
        _literal(source),
        SCHEMA_STEM.encode(),
        kind.encode(),
    )
    dated = b'"time":"%b%06dZ","sequence":"%018d",%b"data":{'
    if identity is None:
        return begin + dated, place, place
    customer = _literal(identity.customer)
    subject = b'"subject":%b,' % _literal(identity.subject or identity.customer)
    since = b'"plan_since":%b,' % _literal(identity.plan_since) if identity.plan_since else b""
    who = b'"customer":%b,"key_id":%b,%b' % (customer, _literal(identity.key_id), since)
    return begin + subject + b'"partitionkey":%b,' % customer + dated, who + place, subject + who + place


def _literal(value: str) -> bytes:
    """`value` as JSON, as a part of a form that yields it."""
    return json(value).replace(b"%", b"%%")


def verdict(quality: str, billable: bool, reason: str, outcome: str) -> bytes:
    """Whether an exchange is billed, and why: members of a record."""
    if billable and outcome == "ok" and quality == "exact":
        found = _BILLED.get(reason)
        if found is None:
            found = _BILLED[reason] = _verdict(quality, billable, reason, outcome)  # one a plan
        return found
    return _verdict(quality, billable, reason, outcome)


_BILLED: Final[dict[str, bytes]] = {}


@lru_cache(maxsize=4096)
def _verdict(quality: str, billable: bool, reason: str, outcome: str) -> bytes:
    said = {"quality": quality, "billable": billable, "billable_reason": reason, "outcome": outcome}
    return orjson.dumps(said)[1:-1] + b","


@lru_cache(maxsize=16)
def second(seconds: int) -> bytes:
    """RFC 3339 up to and with the point before the fraction."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.".encode()


def trace(traceparent: str) -> bytes:
    """The member of a traceparent that is not empty."""
    return b'"traceparent":%b,' % json(traceparent)


def reserved(checks: Checks) -> bytes:
    """What is held while the truth is not known: units by meter, as JSON."""
    return _told_of(checks)[2]


def decided(decision: Decision) -> bytes:
    """The limits asked: what is used of each with this exchange, in the window that counted it; a balance's rest."""
    checks, remaining = decision.checks, decision.remaining
    if decision.allowed and not decision.shadowed:
        form, amounts, figures = allowed_form(checks, decision.mode)
        return form % (tuple(map(sub, amounts, remaining)) if figures is None else figures(remaining))
    form, amounts, _, figures = _told_of(checks)
    return _refused(decision, form % (tuple(map(sub, amounts, remaining)) if figures is None else figures(remaining)))


@lru_cache(maxsize=8192)
def allowed_form(
    checks: Checks, mode: str
) -> tuple[bytes, tuple[int, ...], Callable[[Sequence[int]], tuple[int, ...]] | None]:
    """The decision that is made most: nothing of it but figures is its own."""
    form, amounts, _, figures = _told_of(checks)
    return b',"decision":{"mode":"' + _MODES[mode] + b'","limits":[' + form + b"]}", amounts, figures


def _refused(decision: Decision, limits: bytes) -> bytes:
    named, shadowed = decision.checks.limits, decision.shadowed
    mode = "shadow" if shadowed and decision.mode == "exact" else decision.mode
    refused = b"" if decision.allowed else b'"violated":%b,' % json(named[decision.violated].id)
    would = b'"shadowed":%b,' % json([named[index].id for index in shadowed]) if shadowed else b""
    return b',"decision":{"mode":"%b",%b%b"limits":[%b]}' % (_MODES[mode], refused, would, limits)


_MODES: Final = {mode: mode.encode() for mode in ("exact", "leased", "degraded", "local", "shadow")}


@lru_cache(maxsize=8192)
def _told_of(
    checks: Checks,
) -> tuple[bytes, tuple[int, ...], bytes, Callable[[Sequence[int]], tuple[int, ...]] | None]:
    """A decision's limits with a place for each `used`; the limits' amounts; what is reserved, by meter, as JSON.

    The last, where money is among them, makes the figures of what remains: priced limits are left out, and a balance
    says what remains.
    """
    limits = b",".join(
        [_limit(limit, window) for limit, window in zip(checks.limits, checks.windows, strict=True) if _told(limit)]
    )
    held: dict[str, int] = {}
    for limit, cost in zip(checks.limits, checks.costs, strict=True):
        if limit.kind not in _UNMETERED:
            held[limit.meter] = max(cost, held.get(limit.meter, 0))
    amounts = tuple(limit.amount for limit in checks.limits)
    money = any(limit.kind in _MONEY for limit in checks.limits)
    return limits, amounts, json(held), partial(_figures, checks.limits) if money else None


_UNMETERED: Final = frozenset({"concurrency", "balance"})
_MONEY: Final = frozenset({"priced", "balance"})


def _told(limit: Limit) -> bool:
    """A priced limit only counts what its balance pays for."""
    return limit.kind != "priced"


def _limit(limit: Limit, window: str) -> bytes:
    named = b'{"id":%b,' % _literal(limit.id)
    if limit.kind == "balance":
        return named + b'"unit":%b,"balance":%%d}' % _literal(limit.unit)
    return named + b'"period":%b,"used":%%d,"limit":%d}' % (_literal(window), limit.amount)


def _figures(limits: Sequence[Limit], remaining: Sequence[int]) -> tuple[int, ...]:
    return tuple(
        left if limit.kind == "balance" else limit.amount - left
        for limit, left in zip(limits, remaining, strict=True)
        if _told(limit)
    )
