"""Prices in policy documents, compiled exactly to integers in lowest terms, and their description for people.

An amount is a decimal text, counted in the scale of its unit (`digits`). A price is refused where it could only be
stored by rounding, or where the arithmetic of the store that charges it would not be exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import lcm
from typing import Annotated, Final

from pydantic import Field

from sidecar.config.models import PLAIN_DEFAULTS, Model
from sidecar.config.names import At
from sidecar.config.values import Amount, Decimals, Quantity, Unit
from sidecar.core.errors import Fault
from sidecar.core.price import Price, Tier, price_fault
from sidecar.core.price.decimals import DIGITS, amount_of, decimal_of

KINDS: Final = ("per_unit", "price", "graduated", "volume", "package")
_PER_MAX: Final = 10**9
_QUANTITIES: Final = {1: "each", 10**6: "per 1000000", 10**9: "per 1000000000", 1 << 30: "per GiB"}

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

    model_config = PLAIN_DEFAULTS

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


def faults_of(at: At, price: PriceDoc, digits: int = DIGITS) -> Iterator[Fault]:
    """All faults of a price in a unit with so many digits."""
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
        what = _inexact(price, digits)
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


def _inexact(price: PriceDoc, digits: int) -> str:
    """The reason why a price loses precision, here or where it is charged; "" where it does not."""
    try:
        return price_fault(price_of(price, digits), digits) or ""
    except ValueError as error:
        more = "" if digits == DIGITS else f", or give the unit more than {digits} digits, under units"
        return f"loses precision: {error}{more}"


def price_of(doc: PriceDoc, digits: int) -> Price:
    """The price in a unit with so many digits, of a document without other faults. ValueError: it would be rounded.

    A price of one unit may be a fraction of the scale: it becomes the whole price of several units, and a period's
    charge is rounded once. A package is charged whole, so its price is a whole amount.
    """
    kind = kind_of(doc) or ""
    per = doc.per or 1
    if kind == "package":
        return Price("package", amount_of(doc.package or "0", digits), per, included=doc.included or 0)
    tiers: tuple[TierDoc, ...] = getattr(doc, kind) if kind in ("graduated", "volume") else ()
    amounts = [tier.price for tier in tiers] or [doc.per_unit or doc.price or "0"]
    each = [Fraction(amount) * 10**digits / per for amount in amounts]
    common = lcm(*(amount.denominator for amount in each))
    if common > _PER_MAX:
        raise ValueError(f"{amounts[0]} for {per} is whole for no number of units up to {_PER_MAX}: use fewer digits")
    scaled = [int(amount * common) for amount in each]
    if not tiers:
        return Price("per_unit", scaled[0], common, included=doc.included or 0)
    scaled_tiers = tuple(Tier(tier.up_to, amount) for tier, amount in zip(tiers, scaled, strict=True))
    return Price(kind, per=common, tiers=scaled_tiers, included=doc.included or 0)


def describe(price: Price, unit: str, digits: int) -> str:
    """A price as people read it, as in `2.50 usd per 1000000`. `digits` are those of `unit`."""
    if price.kind == "package":
        text = f"{decimal_of(price.amount, digits, 2)} {unit} per begun {price.per}"
    elif price.tiers:
        tiers = [f"{_range(tier)} {_per(Fraction(tier.amount, price.per), unit, digits)}" for tier in price.tiers]
        text = f"{price.kind}: {', '.join(tiers)}"
    else:
        text = _per(Fraction(price.amount, price.per), unit, digits)
    return f"{price.included} included, then {text}" if price.included else text


def _range(tier: Tier) -> str:
    return "the rest" if tier.up_to is None else f"to {tier.up_to}"


def _per(each: Fraction, unit: str, digits: int) -> str:
    """The price of one unit, or of a million where a unit costs less than a thousandth, as in price lists."""
    exact = [units for units in _QUANTITIES if (each * units).denominator == 1]
    readable = [units for units in exact if each * units * 1000 >= 10**digits]
    if not exact:
        return f"{decimal_of(each.numerator, digits, 2)} {unit} per {each.denominator}"
    units = (readable or exact[-1:])[0] if each else 1
    return f"{decimal_of(int(each * units), digits, 2)} {unit} {_QUANTITIES[units]}"
