"""Prices as people write them become integer nano-units in lowest terms, exactly, and are read back as people say them.

An amount is a decimal text. What could only be kept by rounding is refused; so is a price whose arithmetic would not be
exact in the store that charges it.
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

NANO: Final = 10**9
NANOS_MAX: Final = 2**51  # of one amount: about two million units
KINDS: Final = ("per_unit", "price", "graduated", "volume", "package")
_PER_MAX: Final = 10**9
_SCALES: Final = {1: "each", 10**6: "per 1000000", 10**9: "per 1000000000", 1 << 30: "per GiB"}

# Fields that mean something with some forms only.
_ONLY_WITH: Final = {"per": ("price", "graduated", "volume", "package")}
_NEEDS_PER: Final = ("price", "package")


class TierDoc(Model):
    """Units up to and including `up_to` cost `price` for each `per` of them; the last tier has no `up_to`."""

    up_to: Quantity | None = None
    price: Decimals


class PriceDoc(Model):
    """What a meter costs: `per_unit`, `price` for `per` units, `graduated` or `volume` tiers, or a `package` of `per`.

    The first `included` units of a period cost nothing. `reserve` units are held while the quantity is not known yet;
    `ceiling` is the most that one exchange is taken to use, for what `sidecar check` says.
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


def nanos(text: str) -> int:
    """A decimal amount in nano-units. ValueError: it is finer than one, or larger than a store counts exactly."""
    amount = Fraction(text) * NANO
    if amount.denominator != 1:
        raise ValueError(f"{text} is finer than a nano: at most nine digits after the point")
    if amount > NANOS_MAX:
        raise ValueError(f"{text} is more than {NANOS_MAX // NANO}, which is what every store counts exactly")
    return int(amount)


def form_of(price: PriceDoc) -> str | None:
    """The one form that a price names; None for none or several."""
    named = [kind for kind in KINDS if getattr(price, kind) is not None]
    return named[0] if len(named) == 1 else None


def faults_of(at: At, price: PriceDoc) -> Iterator[Fault]:
    """All that is wrong with a price."""
    form = form_of(price)
    if form is None:
        yield at.fault(f"needs exactly one of {', '.join(KINDS)}")
        return
    for field, forms in _ONLY_WITH.items():
        if getattr(price, field) is not None and form not in forms:
            yield at.fault(f"means nothing with {form}, only with {', '.join(forms)}: leave it out", field)
    if form in _NEEDS_PER and price.per is None:
        yield at.fault("per how many units? write for example per: 1000000", form)
    if price.ceiling is not None and price.ceiling < (price.reserve or 1):
        yield at.fault(f"is below what is reserved, {price.reserve or 1}: raise it", "ceiling")
    tiers = list(_tier_faults(at, price, form))
    yield from tiers
    if not tiers:
        what = _inexact(price)
        if what:
            yield at.fault(what, form)


def _tier_faults(at: At, price: PriceDoc, form: str) -> Iterator[Fault]:
    tiers = getattr(price, form) if form in ("graduated", "volume") else ()
    below = 0
    for index, tier in enumerate(tiers):
        last = index == len(tiers) - 1
        if last is not (tier.up_to is None):
            what = (
                "is the last tier, for all the rest: leave up_to out" if last else "needs up_to: only the last has none"
            )
            yield at.fault(what, form, index)
        if tier.up_to is not None and tier.up_to <= below:
            yield at.fault(f"is not above {below}, where the tier before it ends", form, index, "up_to")
        below = tier.up_to or below


def _inexact(price: PriceDoc) -> str:
    """Why a price loses precision, or would where it is charged; "" where it does not."""
    try:
        return price_fault(price_of(price)) or ""
    except ValueError as error:
        return f"loses precision: {error}"


def price_of(doc: PriceDoc) -> Price:
    """The price, of a document without other faults. ValueError: it cannot be said exactly in nano-units."""
    form = form_of(doc) or ""
    per = doc.per or 1
    if form == "package":
        return Price("package", nanos(doc.package or "0"), per, included=doc.included or 0)
    tiers: tuple[TierDoc, ...] = getattr(doc, form) if form in ("graduated", "volume") else ()
    amounts = [tier.price for tier in tiers] or [doc.per_unit or doc.price or "0"]
    each = [Fraction(amount) * NANO / per for amount in amounts]
    common = lcm(*(amount.denominator for amount in each))
    if common > _PER_MAX:
        raise ValueError(f"a unit at {amounts[0]} costs less than a nano can be divided into: count in larger units")
    scaled = [int(amount * common) for amount in each]
    if not tiers:
        return Price("per_unit", scaled[0], common, included=doc.included or 0)
    kept = tuple(Tier(tier.up_to, amount) for tier, amount in zip(tiers, scaled, strict=True))
    return Price(form, per=common, tiers=kept, included=doc.included or 0)


def says(price: Price, unit: str) -> str:
    """A price as people read it, as in `2.50 usd per 1000000`."""
    if price.kind == "package":
        said = f"{amount(price.nanos)} {unit} per begun {price.per}"
    elif price.tiers:
        tiers = [_tier(tier, price.per, unit) for tier in price.tiers]
        said = f"{price.kind}: {', '.join(tiers)}"
    else:
        said = _per(Fraction(price.nanos, price.per), unit)
    return f"{price.included} included, then {said}" if price.included else said


def amount(nanos: int, places: int = 2) -> str:
    """Nano-units as a decimal with at least so many `places`: 2500000000 is 2.50."""
    whole, rest = divmod(abs(nanos), NANO)
    digits = f"{rest:09}"
    return f"{'-' * (nanos < 0)}{whole}.{digits[:places]}{digits[places:].rstrip('0')}"


def _tier(tier: Tier, per: int, unit: str) -> str:
    upper = "the rest" if tier.up_to is None else f"to {tier.up_to}"
    return f"{upper} {_per(Fraction(tier.nanos, per), unit)}"


def _per(each: Fraction, unit: str) -> str:
    """Each, or per million where a unit costs less than a thousandth: as price lists have it."""
    exact = [scale for scale in _SCALES if (each * scale).denominator == 1]
    readable = [scale for scale in exact if each * scale >= NANO // 1000]
    if not exact:
        return f"{amount(each.numerator)} {unit} per {each.denominator}"
    scale = (readable or exact[-1:])[0] if each else 1
    return f"{amount(int(each * scale))} {unit} {_SCALES[scale]}"
