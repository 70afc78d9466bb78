"""Limits in policy documents (`rate: 5/s`), compiled to `core.policy.Limit` or refused with an example of a valid one.

A calendar unit is never a length: `10000/month` is a quota, `100/60s` a window, and neither is accepted as the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any, ClassVar, Final, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import ConfigDict

from sidecar.config import units
from sidecar.config.document import did_you_mean
from sidecar.config.models import PLAIN_DEFAULTS, Model
from sidecar.config.patterns import Name
from sidecar.config.values import Amount, AmountPerPeriod, Calendar, Decimals, Link, Names, Percents, Unit
from sidecar.core.limits import KINDS, Limit, bounds_fault
from sidecar.core.limits.base import Written
from sidecar.core.price.decimals import DIGITS, amount_of
from sidecar.core.usage import MAX_UNITS

CALENDAR: Final = get_args(Calendar)

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

_WRITTEN: Final = [kind.name for kind in KINDS.values() if kind.written_as]
_WITH_PERIOD: Final = [kind.name for kind in KINDS.values() if kind.written_as in {"length", "calendar"}]
# Fields that mean something with some kinds only, and with which.
_ONLY_WITH: Final = {
    option: [name for name in _WRITTEN if option in KINDS[name].options]
    for option in (
        "burst", "anchor", "zone", "fixed", "expiry_us", "meter", "reserve", "scope", "per_seat", "on_store_failure",
        "on_store_loss", "alert", "offline", "exact",
    )
}  # fmt: skip

Wrong = tuple[str, str]
"""A field and its fault."""


class LimitDoc(Model):
    """One of `rate`, `quota`, `window`, `concurrency` and `balance`, and its scope. The counter is keyed by `id` alone.

    `per_seat`: the amount is multiplied by the customer's seats. `alert`: percents of the amount; passing one writes a
    record. `link`: page where a client raises the limit. `offline`: total allowed from a balance while its store is
    down. `exact: true`: one Redis call per request, also where leases are on.
    """

    model_config = ConfigDict(**PLAIN_DEFAULTS, frozen=True)

    moved_fields: ClassVar = {
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
    on_store_loss: Literal["allow", "deny"] | None = None
    alert: Percents | None = None
    link: Link | None = None
    exact: bool | None = None


def kind_of(doc: LimitDoc) -> str | None:
    """The one kind that a limit names; None for none or several."""
    named = [kind for kind in _WRITTEN if getattr(doc, kind) is not None]
    return named[0] if len(named) == 1 else None


def faults_of(doc: LimitDoc, *, sized: bool, digits: int = DIGITS) -> Iterator[Wrong]:
    """All faults of a limit by itself. `sized`: its meter counts bytes, so `10GiB/month` makes sense.

    `digits`: the scale of the unit that a balance is in.
    """
    kind = kind_of(doc)
    if kind is None:
        yield "", f"needs exactly one of {', '.join(_WRITTEN)}"
        return
    for field, kinds in _ONLY_WITH.items():
        if getattr(doc, field) is not None and kind not in kinds:
            yield field, f"means nothing with {kind}, only with {', '.join(kinds)}: leave it out"
    if kind in _WITH_PERIOD:
        try:
            written(doc, sized=sized)
        except ValueError as error:
            yield kind, str(error)
    if doc.zone is not None and not is_known_zone(doc.zone):
        yield "zone", unknown_zone(doc.zone)
    if doc.stage == "soft" and doc.over == "allow":
        yield "stage", "warns where the limit would deny, but over: allow never denies: leave one of them out"
    if any(one >= other for one, other in pairwise(doc.alert or ())):
        yield "alert", f"{list(doc.alert or ())} do not ascend: write each percent once, the lowest first"
    yield from _offline_faults(doc, digits)


def _offline_faults(doc: LimitDoc, digits: int) -> Iterator[Wrong]:
    if doc.offline is None:
        return
    if doc.over == "allow":
        yield "offline", "bounds what passes while the store is away, but over: allow never denies: leave it out"
    try:
        amount_of(doc.offline, digits)
    except ValueError as error:
        yield "offline", str(error)


def written(doc: LimitDoc, *, sized: bool = True, seats: int = 1, digits: int = DIGITS) -> Written:
    """The figures that a limit spells out. ValueError says what would be right."""
    kind = KINDS[kind_of(doc) or ""]
    figures = Written(
        burst=doc.burst or 0,
        fixed=bool(doc.fixed),
        expiry_us=doc.expiry_us or 0,
        offline=amount_of(doc.offline or "0", digits) if "offline" in kind.options else 0,
        digits=digits,
        seats=seats,
        over=doc.over,
    )
    value: Any = getattr(doc, kind.name)
    if kind.written_as == "amount":
        return figures._replace(amount=value)
    if kind.written_as == "unit":
        return figures._replace(unit=value)
    match = _FORM.fullmatch(value)
    if match is None:
        raise ValueError(f"'{value}' is not an amount per period: write for example {kind.example}")
    figures = figures._replace(amount=_amount(match[1], match[2], sized=sized))
    if kind.written_as == "calendar":
        return figures._replace(calendar=_calendar(match[3]))
    return figures._replace(period_us=_period_us(kind.name, match[3], kind.example))


@lru_cache(maxsize=8192)  # checks, plans and customers' terms compile the same limits again
def compiled(doc: LimitDoc, *, seats: int = 1, digits: int = DIGITS) -> Limit:
    """The limit, of a document without faults. Where it is `per_seat`, for that many seats.

    `digits`: the scale of the unit that a balance is in.
    """
    kind = KINDS[kind_of(doc) or ""]
    figures = kind.figures(written(doc, seats=seats if doc.per_seat else 1, digits=digits))
    return Limit(
        id=doc.id,
        kind=kind.name,
        meter=(doc.meter or "requests") if kind.is_metered else "",
        reserve=doc.reserve or 1,
        scope=doc.scope or kind.default_scope,
        zone=doc.zone or "UTC",
        anchored=doc.anchor == "subscription",
        over=doc.over,
        stage=doc.stage,
        routes=frozenset(doc.routes or ()),
        alerts=doc.alert or (),
        link=doc.link or "",
        exact=bool(doc.exact),
        on_store_failure=doc.on_store_failure or figures.pop("on_store_failure", "allow"),
        on_store_loss=doc.on_store_loss or "allow",
        **figures,
    )


def inexact(doc: LimitDoc, *, seats: int = 1, digits: int = DIGITS) -> Iterator[Wrong]:
    """Amounts that not every store could count exactly, in a document without other faults."""
    limit = compiled(doc, seats=seats, digits=digits)
    what = bounds_fault(limit)
    if what is not None:
        yield limit.kind, what


def identity_of(limit: Limit) -> dict[str, object]:
    """The properties that all limits of one id must share, because the id is the counter."""
    alike: dict[str, object] = {"kind": limit.kind, "scope": limit.scope, "meter": limit.meter, "unit": limit.unit}
    return alike | KINDS[limit.kind].same_counter(limit)


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
        raise ValueError(f"unknown calendar unit '{text}'; {hint} (a length such as 60s is a `window`)")
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
        raise ValueError(f"'{text}' is not a period: write for example {example}") from None
    if not 1_000 <= period_us <= _MAX_PERIOD_US:
        raise ValueError(f"'{text}' is not from 1ms to 366d")
    return period_us


def is_known_zone(name: str) -> bool:
    """Whether `name` is an IANA time zone, or `customer` for the key's own."""
    try:
        return name == "customer" or bool(ZoneInfo(name).key)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False


def unknown_zone(name: str) -> str:
    """The fault of a `name` that is not a zone."""
    return f"unknown time zone '{name}': write an IANA name such as Europe/Berlin, or customer"
