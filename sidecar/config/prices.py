"""Prices in policy documents, compiled exactly to integer nano-units in lowest terms, and their description for people.

An amount is a decimal text. A price is refused where it could only be stored by rounding, or where the arithmetic of
the store that charges it would not be exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import lcm
from typing import Annotated, Final

from pydantic import Field

from sidecar.config.models import Model
from sidecar.config.names import At
from sidecar.config.values import Amount, Decimals, Quantity, Unit
from sidecar.core.errors import Fault
from sidecar.core.price import Price, Tier, price_fault
from sidecar.core.price.decimals import NANO, decimal_of, nanos_of

KINDS: Final = ("per_unit", "price", "graduated", "volume", "package")
_PER_MAX: Final = 10**9
_SCALES: Final = {1: "each", 10**6: "per 1000000", 10**9: "per 1000000000", 1 << 30: "per GiB"}

# Fields that apply to some kinds of prices only.
_ONLY_WITH: Final = {"per": ("price", "graduated", "volume", "package")}
_NEEDS_PER: Final = ("price", "package")


class TierDoc(Model):
    """Units up to and including `up_to` cost `price` for each `per` of them; the last tier has no `up_to`."""

    up_to: Quantity | None = None
    price: Decimals


class PriceDoc(Model):
    """A meter's price: `per_unit`, `price` for `per` units, `graduated` or `volume` tiers, or a `package` of `per`.

    The first `included` units of a period cost nothing. `reserve` units are held until the quantity is known;
    `ceiling` is the assumed maximum of one exchange, for the bounds that `sidecar check` prints.
    """

    per_unit: Decimals | None = None
    price: Decimals | None = None
    per: Quantity | None = None
    graduated: Annotated[tuple[TierDoc, ...], Field(min_length=1, max_length=16)] | None = None
    volume: Annotated[tuple[TierDoc, ...], Field(min_length=1, max_length=16)] | None = None
    package: Decimals | None = None
    included: Quantity | None = None
    reserve: Amount | None = None
    ceiling: Amount | None = None
    currency: Unit | None = None


def kind_of(price: PriceDoc) -> str | None:
    """The kind of a price; None where it names no kind or several."""
    named = [kind for kind in KINDS if getattr(price, kind) is not None]
    return named[0] if len(named) == 1 else None


def faults_of(at: At, price: PriceDoc) -> Iterator[Fault]:
    """All faults of a price."""
    kind = kind_of(price)
    if kind is None:
        yield at.fault(f"needs exactly one of {', '.join(KINDS)}")
        return
    for field, kinds in _ONLY_WITH.items():
        if getattr(price, field) is not None and kind not in kinds:
            yield at.fault(f"means nothing with {kind}, only with {', '.join(kinds)}: leave it out", field)
    if kind in _NEEDS_PER and price.per is None:
        yield at.fault("per how many units? write for example per: 1000000", kind)
    if price.ceiling is not None and price.ceiling < (price.reserve or 1):
        yield at.fault(f"is below what is reserved, {price.reserve or 1}: raise it", "ceiling")
    tiers = list(_tier_faults(at, price, kind))
    yield from tiers
    if not tiers:
        what = _inexact(price)
        if what:
            yield at.fault(what, kind)


def _tier_faults(at: At, price: PriceDoc, kind: str) -> Iterator[Fault]:
    tiers = getattr(price, kind) if kind in ("graduated", "volume") else ()
    below = 0
    for index, tier in enumerate(tiers):
        last = index == len(tiers) - 1
        if last is not (tier.up_to is None):
            what = (
                "is the last tier, for all the rest: leave up_to out" if last else "needs up_to: only the last omits it"
            )
            yield at.fault(what, kind, index)
        if tier.up_to is not None and tier.up_to <= below:
            yield at.fault(f"is not above {below}, where the tier before it ends", kind, index, "up_to")
        below = tier.up_to or below


def _inexact(price: PriceDoc) -> str:
    """The reason why a price loses precision, here or where it is charged; "" where it does not."""
    try:
        return price_fault(price_of(price)) or ""
    except ValueError as error:
        return f"loses precision: {error}"


def price_of(doc: PriceDoc) -> Price:
    """The price, of a document without other faults. ValueError: it is not a whole number of nano-units."""
    kind = kind_of(doc) or ""
    per = doc.per or 1
    if kind == "package":
        return Price("package", nanos_of(doc.package or "0"), per, included=doc.included or 0)
    tiers: tuple[TierDoc, ...] = getattr(doc, kind) if kind in ("graduated", "volume") else ()
    amounts = [tier.price for tier in tiers] or [doc.per_unit or doc.price or "0"]
    each = [Fraction(amount) * NANO / per for amount in amounts]
    common = lcm(*(amount.denominator for amount in each))
    if common > _PER_MAX:
        raise ValueError(f"a unit at {amounts[0]} costs less than a nano can be divided into: count in larger units")
    scaled = [int(amount * common) for amount in each]
    if not tiers:
        return Price("per_unit", scaled[0], common, included=doc.included or 0)
    scaled_tiers = tuple(Tier(tier.up_to, amount) for tier, amount in zip(tiers, scaled, strict=True))
    return Price(kind, per=common, tiers=scaled_tiers, included=doc.included or 0)


def describe(price: Price, unit: str) -> str:
    """A price as people read it, as in `2.50 usd per 1000000`."""
    if price.kind == "package":
        text = f"{decimal_of(price.nanos, 2)} {unit} per begun {price.per}"
    elif price.tiers:
        tiers = [_tier(tier, price.per, unit) for tier in price.tiers]
        text = f"{price.kind}: {', '.join(tiers)}"
    else:
        text = _per(Fraction(price.nanos, price.per), unit)
    return f"{price.included} included, then {text}" if price.included else text


def _tier(tier: Tier, per: int, unit: str) -> str:
    upper = "the rest" if tier.up_to is None else f"to {tier.up_to}"
    return f"{upper} {_per(Fraction(tier.nanos, per), unit)}"


def _per(each: Fraction, unit: str) -> str:
    """The price of one unit, or of a million where a unit costs less than a thousandth, as in price lists."""
    exact = [scale for scale in _SCALES if (each * scale).denominator == 1]
    readable = [scale for scale in exact if each * scale >= NANO // 1000]
    if not exact:
        return f"{decimal_of(each.numerator, 2)} {unit} per {each.denominator}"
    scale = (readable or exact[-1:])[0] if each else 1
    return f"{decimal_of(int(each * scale), 2)} {unit} {_SCALES[scale]}"
