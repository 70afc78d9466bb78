"""What a quantity costs, in integer nano-units of the currency. Pure, so that rating downstream yields the same bill.

Every step is exact; where a price is for more than one unit (`per`), the whole charge is rounded once, half up, to a
nano. A part of a package is a package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Tier:
    """Units up to and including `up_to` (None: all the rest) cost `nanos` for each `Price.per` of them."""

    up_to: int | None
    nanos: int


@dataclass(frozen=True, slots=True)
class Price:
    """How a meter is priced. `nanos` is the price of `per` units, in 10^-9 of the currency's unit.

    per_unit:  every unit the same.
    graduated: each unit at the price of the tier in which it lies.
    volume:    all units at the price of the tier in which the quantity lies; so a unit more can cost less in all.
    package:   `nanos` for each begun package of `per` units.

    ValueError: a negative price, `per` below 1, tiers that do not ascend or do not end open.
    """

    kind: str
    nanos: int = 0
    per: int = 1
    tiers: tuple[Tier, ...] = ()

    def __post_init__(self) -> None:
        tiered = self.kind in {"graduated", "volume"}
        if self.kind not in _RATES:
            raise ValueError(f"kind is one of {', '.join(_RATES)}")
        if self.per < 1 or self.nanos < 0 or any(tier.nanos < 0 for tier in self.tiers):
            raise ValueError("a price is never negative, and for at least one unit")
        if tiered is not bool(self.tiers) or (tiered and self.nanos):
            raise ValueError("graduated and volume prices are in tiers, the others in nanos")
        bounds = [0, *(tier.up_to for tier in self.tiers if tier.up_to is not None)]
        if bounds != sorted(set(bounds)) or any(
            (tier.up_to is None) is not (tier is self.tiers[-1]) for tier in self.tiers
        ):
            raise ValueError("tiers ascend, and the last alone has no up_to")


def rate(price: Price, quantity: int) -> int:
    """The charge for `quantity` units (an integer of the meter's scale, never negative), in nano-units.

    Monotone in `quantity` except for volume prices; exactly additive over splits for per-unit prices with `per` 1.
    """
    if quantity < 0:
        raise ValueError("a quantity is never negative; a correction is the difference of two charges")
    return _RATES[price.kind](price, quantity)


def _per_unit(price: Price, quantity: int) -> int:
    return _rounded(quantity * price.nanos, price.per)


def _graduated(price: Price, quantity: int) -> int:
    total = below = 0
    for tier in price.tiers:
        top = quantity if tier.up_to is None else min(quantity, tier.up_to)
        total += (top - below) * tier.nanos
        if top == quantity:
            break
        below = top
    return _rounded(total, price.per)


def _volume(price: Price, quantity: int) -> int:
    tier = next(tier for tier in price.tiers if tier.up_to is None or quantity <= tier.up_to)
    return _rounded(quantity * tier.nanos, price.per)


def _package(price: Price, quantity: int) -> int:
    return -(-quantity // price.per) * price.nanos


def _rounded(nanos: int, per: int) -> int:
    return (2 * nanos + per) // (2 * per)


_RATES: dict[str, Callable[[Price, int], int]] = {
    "per_unit": _per_unit,
    "graduated": _graduated,
    "volume": _volume,
    "package": _package,
}
