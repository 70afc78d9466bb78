"""Rate a quantity: its charge, an integer in the scale of the price's unit. Pure, so the bill downstream is the same.

Every step is exact. Where a price is for more than one unit (`per`), the whole charge is rounded once, half up. A begun
package is charged as a whole package. Included units are subtracted first, for every kind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd
from typing import TYPE_CHECKING

from sidecar.core.price.decimals import AMOUNT_MAX, DIGITS, decimal_of

if TYPE_CHECKING:
    from collections.abc import Callable

_EXACT = 2**52


@dataclass(frozen=True, slots=True)
class Tier:
    """Units up to and including `up_to` (None: unlimited) cost `amount` for each `Price.per` of them."""

    up_to: int | None
    amount: int


@dataclass(frozen=True, slots=True)
class Price:
    """How a meter is priced. `amount` is the price of `per` units, in the scale of the unit that it is in.

    per_unit:  the same price for every unit.
    graduated: each unit at the price of the tier in which it lies.
    volume:    all units at the price of the tier in which the quantity lies; so a unit more can cost less in all.
    package:   `amount` for each begun package of `per` units.

    The first `included` units cost nothing, and only the units above them are priced: tiers and packages begin above
    them. This equals a free first tier before a vendor's table; unlike the free first tier of a Stripe volume price it
    stays free when the quantity exceeds it.

    ValueError: a negative price, `per` below 1, tiers that do not ascend or do not end open.
    """

    kind: str
    amount: int = 0
    per: int = 1
    tiers: tuple[Tier, ...] = ()
    included: int = 0

    def __post_init__(self) -> None:
        tiered = self.kind in {"graduated", "volume"}
        if self.kind not in _RATES:
            raise ValueError(f"kind is one of {', '.join(_RATES)}")
        if self.per < 1 or self.amount < 0 or any(tier.amount < 0 for tier in self.tiers):
            raise ValueError("a price is never negative, and for at least one unit")
        if self.included < 0:
            raise ValueError("the included units of a price are never negative")
        if tiered is not bool(self.tiers) or (tiered and self.amount):
            raise ValueError("graduated and volume prices are in tiers, the others have an amount")
        bounds = [0, *(tier.up_to for tier in self.tiers if tier.up_to is not None)]
        if bounds != sorted(set(bounds)) or any(
            (tier.up_to is None) is not (tier is self.tiers[-1]) for tier in self.tiers
        ):
            raise ValueError("tiers ascend, and the last alone has no up_to")


def rate(price: Price, quantity: int) -> int:
    """The charge for `quantity` units of a meter (never negative), in the scale of the price.

    Monotone in `quantity` except for volume prices; exactly additive over splits for per-unit prices with `per` 1 and
    nothing included.
    """
    if quantity < 0:
        raise ValueError("a quantity is never negative; a correction is the difference of two charges")
    return _RATES[price.kind](price, max(0, quantity - price.included))


def charged(price: Price, quantity: int) -> int:
    """`rate`, at most `AMOUNT_MAX`: the charge to a balance, on Redis as in memory."""
    return min(rate(price, quantity), AMOUNT_MAX)


def in_lowest_terms(price: Price) -> Price:
    """The same price in lowest terms: the fewest units for which it is a whole amount. A package keeps its size."""
    if price.kind == "package":
        return price
    common = gcd(price.per, price.amount, *(tier.amount for tier in price.tiers))
    tiers = tuple(replace(tier, amount=tier.amount // common) for tier in price.tiers)
    return replace(price, amount=price.amount // common, per=price.per // common, tiers=tiers)


def highest_unit_price(price: Price) -> Price:
    """A flat price: no quantity costs less at it than it adds to any charge at `price`.

    Exceptions: one of rounding, and volume prices whose tiers rise, since entering a tier prices all units
    anew.
    """
    if not price.tiers:
        return replace(price, included=0)
    return Price("per_unit", max(tier.amount for tier in price.tiers), price.per)


def price_fault(price: Price, digits: int = DIGITS) -> str | None:
    """The reason why a price cannot be rated exactly in a Lua double (at most 2**52), or None. Used on policy load.

    `digits` are those of its unit, for the figures in the text.
    """
    bounds = [tier.up_to for tier in price.tiers if tier.up_to is not None]
    if max(price.included, price.per, *bounds) > AMOUNT_MAX:
        return f"included, per and up_to are at most {AMOUNT_MAX} units"
    amounts = [price.amount, *(tier.amount for tier in price.tiers)]
    highest = decimal_of(max(amounts), digits)
    if max(amounts) > AMOUNT_MAX:
        return f"a price of {highest} is more than a balance holds ({decimal_of(AMOUNT_MAX, digits)})"
    if price.kind != "package" and 2 * (price.per - 1) * sum(amounts) + price.per > _EXACT:
        return f"{highest} for {price.per} units is too fine to rate exactly: use fewer units or digits"
    return None


def _per_unit(price: Price, quantity: int) -> int:
    return _rounded(quantity * price.amount, price.per)


def _graduated(price: Price, quantity: int) -> int:
    total = below = 0
    for tier in price.tiers:
        top = quantity if tier.up_to is None else min(quantity, tier.up_to)
        total += (top - below) * tier.amount
        if top == quantity:
            break
        below = top
    return _rounded(total, price.per)


def _volume(price: Price, quantity: int) -> int:
    tier = next(tier for tier in price.tiers if tier.up_to is None or quantity <= tier.up_to)
    return _rounded(quantity * tier.amount, price.per)


def _package(price: Price, quantity: int) -> int:
    return -(-quantity // price.per) * price.amount


def _rounded(amount: int, per: int) -> int:
    return (2 * amount + per) // (2 * per)


_RATES: dict[str, Callable[[Price, int], int]] = {
    "per_unit": _per_unit,
    "graduated": _graduated,
    "volume": _volume,
    "package": _package,
}
