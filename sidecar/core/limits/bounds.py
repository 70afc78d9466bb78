"""The bounds within which everything is counted exactly. Lua has only doubles, so every figure stays below 2^53."""

from __future__ import annotations

from typing import Final

NEVER_US: Final = 2**53 - 1  # the year 2255: the last µs that a Lua double can still tell from the next
COUNT_MAX: Final = 2**51  # units: costs and counters stop here, so that sums of three stay exact in a Lua double
LIMITS_MAX: Final = 40  # limits of one request: a verdict's shadow mask fits beside its index into a Lua double
SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60_000_000
DAY_US: Final = 86_400_000_000


def amount_fault(amount: int) -> str | None:
    """Why an amount of units cannot be counted exactly, or None."""
    return None if 0 < amount <= COUNT_MAX else f"amount {amount} must be from 1 to {COUNT_MAX}"


def left_at(amount: int, percent: int) -> int:
    """The units left of `amount` when `percent` of it has just been used: the threshold is passed at this and below."""
    return amount * (100 - percent) // 100
