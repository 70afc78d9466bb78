"""The scales of the units that wallets hold: how many digits after the point are counted.

A scale belongs to a unit in all documents of a policy. It is part of the name of a wallet, so a policy with another
scale finds other wallets, which are empty, and never an amount that is wrong by a power of ten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field

from sidecar.config.document import did_you_mean
from sidecar.config.models import Model
from sidecar.config.names import At
from sidecar.config.values import whole
from sidecar.core.errors import Fault
from sidecar.core.price.decimals import DIGITS


class UnitDoc(Model):
    """The scale of a unit: the number of `digits` after the point that its prices and wallets count, 0 to 9."""

    digits: Annotated[int, Field(ge=0, le=DIGITS), BeforeValidator(whole)]


Units = Mapping[str, tuple[At, UnitDoc]]
"""The units that a policy gives a scale, with their locations."""


def digits_of(units: Units, unit: str) -> int:
    """The digits of any unit."""
    return units[unit][1].digits if unit in units else DIGITS


def unused_faults(units: Units, used: Iterable[str]) -> Iterator[Fault]:
    """A fault for each of `units` that is not `used` by a price or a balance: its name is probably misspelt."""
    used = set(used)
    for unit, (at, _) in units.items():
        if unit not in used:
            yield at.fault(f"no price and no balance is in '{unit}', so leave it out; {did_you_mean(unit, used)}")


def changed_faults(units: Units, balances: Mapping[str, At], applied: Mapping[str, int]) -> Iterator[Fault]:
    """A fault for each unit of a balance that has other digits than in the policy that is applied: for a reload.

    `balances`: the location of a balance in each unit. `applied`: the digits in that policy of the units of its
    balances.
    """
    for unit, place in balances.items():
        digits, before = digits_of(units, unit), applied.get(unit)
        if before is None or before == digits:
            continue
        what = f"{digits} digits here and {before} in the policy that runs"
        why = f"a reload would leave all wallets in {unit} empty"
        remedy = "or move the credit and restart, see docs/wallets.md"
        if unit in units:
            yield units[unit][0].fault(f"{what}: {why}; write {before}, {remedy}", "digits")
        else:
            write = f"units: {{ {unit}: {{ digits: {before} }} }}"
            yield place.fault(f"{unit} has {what}: {why}; write {write}, {remedy}", "balance")
