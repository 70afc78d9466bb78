"""A limit as people write it (`rate: 5/s`) becomes a Limit of the core, or is refused with what would be right.

A calendar unit is never a length: `10000/month` is a quota, `100/60s` a window, and one is not taken for the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, ClassVar, Final, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sidecar.config import units
from sidecar.config.document import did_you_mean
from sidecar.config.models import Model
from sidecar.config.patterns import Name
from sidecar.config.prices import nanos
from sidecar.config.values import MAX_UNITS, Amount, AmountPerPeriod, Calendar, Decimals, Link, Names, Percents, Unit
from sidecar.core.counter import bounds_fault
from sidecar.core.policy import Limit

CALENDAR: Final = get_args(Calendar)
KINDS: Final = ("rate", "quota", "window", "concurrency", "balance")
METERED: Final = ("rate", "quota", "window")
SLOT_EXPIRY_US: Final = 600_000_000  # a replica that was killed gives its slots back after ten minutes

_LENGTHS_US: Final = {
    "s": 1_000_000,
    "second": 1_000_000,
    "min": 60_000_000,
    "minute": 60_000_000,
    "h": 3_600_000_000,
    "hour": 3_600_000_000,
    "d": 86_400_000_000,
    "day": 86_400_000_000,
}
_MAX_PERIOD_US: Final = 366 * _LENGTHS_US["day"]
_FORM: Final = re.compile(r"\s*([0-9][0-9_]*)\s*([A-Za-z]*)\s*/\s*(.+?)\s*")

# Fields that mean something with one kind only.
_ONLY_WITH: Final = {
    "burst": ("rate",),
    "anchor": ("quota",),
    "zone": ("quota",),
    "fixed": ("window",),
    "expiry_us": ("concurrency", "balance"),
    "meter": METERED,
    "reserve": METERED,
    "scope": (*METERED, "concurrency"),
    "per_seat": (*METERED, "concurrency"),
    "on_store_failure": (*METERED, "concurrency"),
    "alert": ("quota", "window", "balance"),
    "offline": ("balance",),
    "exact": METERED,
}

Wrong = tuple[str, str]
"""A field, and what is wrong with it."""


class LimitDoc(Model):
    """One of `rate`, `quota`, `window`, `concurrency` and `balance`, and for whom. The counter is found by `id` alone.

    `per_seat`: that many for each seat that the customer has. `alert`: percents of the amount whose passing makes a
    record. `link`: where a client gets more. `offline`: how much of a balance passes in all while its store is away.
    `exact: true`: Redis is asked for every request, also where leases are on.
    """

    elsewhere: ClassVar = {
        "price": "prices are the plan's: write them under its prices, by meter",
        "unit": "write the unit as the balance itself: balance: usd",
        "alerts": "write alert: [80, 100]",
        "seats": "seats are a customer's: write them under customers",
    }

    id: Name
    rate: AmountPerPeriod | None = None
    burst: Amount | None = None
    quota: AmountPerPeriod | None = None
    anchor: Literal["subscription", "calendar"] | None = None
    zone: str | None = None
    window: AmountPerPeriod | None = None
    fixed: bool | None = None
    concurrency: Amount | None = None
    balance: Unit | None = None
    expiry_us: Amount | None = None
    offline: Decimals | None = None
    meter: Name | None = None
    reserve: Amount | None = None
    per_seat: bool | None = None
    scope: Literal["key", "subject", "customer"] | None = None
    routes: Names | None = None
    over: Literal["deny", "allow"] = "deny"
    stage: Literal["enforce", "soft", "shadow"] = "enforce"
    on_store_failure: Literal["allow", "deny"] | None = None
    alert: Percents | None = None
    link: Link | None = None
    exact: bool | None = None


def kind_of(doc: LimitDoc) -> str | None:
    """The one kind that a limit names; None for none or several."""
    named = [kind for kind in KINDS if getattr(doc, kind) is not None]
    return named[0] if len(named) == 1 else None


def faults_of(doc: LimitDoc, *, sized: bool) -> Iterator[Wrong]:
    """All that is wrong with a limit by itself. `sized`: its meter counts bytes, so `10GiB/month` makes sense."""
    kind = kind_of(doc)
    if kind is None:
        yield "", f"needs exactly one of {', '.join(KINDS)}"
        return
    for field, kinds in _ONLY_WITH.items():
        if getattr(doc, field) is not None and kind not in kinds:
            yield field, f"means nothing with {kind}, only with {', '.join(kinds)}: leave it out"
    if kind in METERED:
        try:
            shape(doc, sized=sized)
        except ValueError as error:
            yield kind, str(error)
    if doc.zone is not None and not zone_known(doc.zone):
        yield "zone", no_zone(doc.zone)
    if doc.stage == "soft" and doc.over == "allow":
        yield "stage", "warns where the limit would deny, but over: allow never denies: leave one of them out"
    if any(one >= other for one, other in pairwise(doc.alert or ())):
        yield "alert", f"{list(doc.alert or ())} do not ascend: write each percent once, the lowest first"
    yield from _offline_faults(doc)


def _offline_faults(doc: LimitDoc) -> Iterator[Wrong]:
    if doc.offline is None:
        return
    if doc.over == "allow":
        yield "offline", "bounds what passes while the store is away, but over: allow never denies: leave it out"
    try:
        nanos(doc.offline)
    except ValueError as error:
        yield "offline", str(error)


def shape(doc: LimitDoc, *, sized: bool = True) -> dict[str, Any]:
    """The fields of Limit that a rate, quota or window spells out. ValueError says what would be right."""
    kind = kind_of(doc) or ""
    text: str = getattr(doc, kind)
    match = _FORM.fullmatch(text)
    example = {"rate": "5/s or 100/10s", "quota": "10000/month", "window": "100/60s"}[kind]
    if match is None:
        raise ValueError(f"'{text}' is not an amount per period: write for example {example}")
    amount = _amount(match[1], match[2], sized=sized)
    if kind == "quota":
        return {"amount": amount, "calendar": _calendar(match[3])}
    period_us = _period_us(kind, match[3], example)
    if kind == "rate":
        return {"amount": doc.burst or amount, "per": amount, "period_us": period_us}
    return {"amount": amount, "period_us": period_us, "fixed": bool(doc.fixed)}


def compiled(doc: LimitDoc, *, seats: int = 1) -> Limit:
    """The limit, of a document without faults. Where it is `per_seat`, for that many seats."""
    kind = kind_of(doc) or ""
    many = seats if doc.per_seat else 1
    return Limit(
        id=doc.id,
        kind=kind,
        scope=doc.scope or ("customer" if kind in ("quota", "balance") else "key"),
        zone=doc.zone or "UTC",
        anchored=doc.anchor == "subscription",
        over=doc.over,
        stage=doc.stage,
        routes=frozenset(doc.routes or ()),
        alerts=doc.alert or (),
        link=doc.link or "",
        exact=bool(doc.exact),
        **_SHAPES.get(kind, _metered)(doc, many),
    )


def _metered(doc: LimitDoc, many: int) -> dict[str, Any]:
    shaped = shape(doc)
    for name in {"amount", "per"} & shaped.keys():
        shaped[name] *= many
    return {"meter": doc.meter or "requests", "reserve": doc.reserve or 1, **_away(doc, "allow"), **shaped}


def _slots(doc: LimitDoc, many: int) -> dict[str, Any]:
    amount = (doc.concurrency or 0) * many
    return {"amount": amount, "period_us": doc.expiry_us or SLOT_EXPIRY_US, "meter": "", **_away(doc, "allow")}


def _balance(doc: LimitDoc, _: int) -> dict[str, Any]:
    offline = nanos(doc.offline or "0")
    return {
        "amount": 0,
        "period_us": doc.expiry_us or SLOT_EXPIRY_US,
        "meter": "",
        "unit": doc.balance or "",
        "offline": offline,
        **_away(doc, "allow" if offline or doc.over == "allow" else "deny"),
    }


def _away(doc: LimitDoc, default: str) -> dict[str, Any]:
    return {"on_store_failure": doc.on_store_failure or default}


_SHAPES: Final = {"concurrency": _slots, "balance": _balance}


def inexact(doc: LimitDoc, *, seats: int = 1) -> Iterator[Wrong]:
    """What would not be counted exactly by every store, in a document without other faults."""
    limit = compiled(doc, seats=seats)
    what = bounds_fault(limit)
    if what is not None:
        yield limit.kind, what


def identity_of(limit: Limit) -> dict[str, object]:
    """What must be alike wherever a limit's id is used, because the id is the counter."""
    alike: dict[str, object] = {"kind": limit.kind, "scope": limit.scope, "meter": limit.meter, "unit": limit.unit}
    if limit.kind in ("quota", "priced"):
        alike["calendar"] = limit.calendar
    if limit.kind == "window":
        alike |= {"period": f"{limit.period_us} µs", "fixed": limit.fixed}
    return alike


def _amount(digits: str, unit: str, *, sized: bool) -> int:
    if unit and not sized:
        raise ValueError(f"'{digits}{unit}' is a size, but the meter does not count bytes: write a plain number")
    amount = units.parse(digits + unit, "_bytes") if unit else int(digits.replace("_", ""))
    if not 1 <= amount <= MAX_UNITS:
        raise ValueError(f"{amount} is not from 1 to 2^53 - 1, which is what every store counts exactly")
    return amount


def _calendar(text: str) -> str:
    if text not in CALENDAR:
        near = next((unit for unit in CALENDAR if unit.startswith(text[:1]) and text[:1] != "m"), "")
        hint = did_you_mean(near or text, CALENDAR)
        raise ValueError(f"'{text}' is no calendar unit; {hint} (a length such as 60s is a `window`)")
    return text


def _period_us(kind: str, text: str, example: str) -> int:
    if text in _LENGTHS_US:
        return _LENGTHS_US[text]
    if text in ("week", "month", "year"):
        raise ValueError(f"a {text} has no fixed length, so no {kind} has it: write `quota: …/{text}`")
    if text in ("m", "M"):
        raise ValueError("'m' could be a minute or a month: write min, or `quota: …/month`")
    try:
        period_us = units.parse(text, "_us")
    except ValueError:
        raise ValueError(f"'{text}' is no period: write for example {example}") from None
    if not 1_000 <= period_us <= _MAX_PERIOD_US:
        raise ValueError(f"'{text}' is not from 1ms to 366d")
    return period_us


def zone_known(name: str) -> bool:
    """Whether `name` is an IANA time zone, or `customer` for the key's own."""
    try:
        return name == "customer" or bool(ZoneInfo(name).key)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False


def no_zone(name: str) -> str:
    """What to say of a `name` that is no zone."""
    return f"'{name}' is no time zone: write an IANA name such as Europe/Berlin, or customer"
