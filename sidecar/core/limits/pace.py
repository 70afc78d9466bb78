"""The arithmetic of rates (GCRA, the generic cell rate algorithm), in whole numbers.

A rate of `per` units in `period_us` lets one unit pass every T = period_us / per µs. Instead of a count, one number is
stored: the *theoretical arrival time*, when all that has passed so far would have passed at exactly that pace. How far
it lies ahead of now is the *backlog*. A request of n units moves it n x T ahead, and passes if the backlog is then not
longer than the burst, amount x T. Time empties the backlog by itself, so there is nothing to reset.

T is rarely whole: 3 units a second are one every 333,333 1/3 µs. So times are counted in 1/parts µs, where `parts` is
`per` in lowest terms, and stored as (µs, rest in 1/parts µs). Nothing is rounded, so nothing is admitted by rounding.

    rate 3/s, burst 3:  step 1,000,000 and parts 3: a unit is 1,000,000/3 µs, the burst 1,000,000 µs.
    t = 0      a request of 1 unit:  backlog       0 + 333,333 1/3 = 333,333 1/3   passes, 2 left
    t = 0      two more:             backlog 333,333 1/3 + 666,666 2/3 = 1,000,000 passes, 0 left
    t = 0      one more:             backlog 1,333,333 1/3 > 1,000,000             denied; passes in 333,334 µs
    t = 0.5 s  one more:             backlog   500,000 + 333,333 1/3               passes, 0 left
"""

from __future__ import annotations

from math import gcd
from typing import Final, NamedTuple

from sidecar.core.limits.limit import Limit

NOTICE_US: Final = 1_000_000  # workers lose and find a store at times that differ by less than this


class Pace(NamedTuple):
    """A rate in whole numbers: a unit every `step`/`parts` µs, in lowest terms; `burst`, `cost` as (µs, 1/parts µs).

    `ceiling_us`: a backlog ends here, so that it times `parts` stays exact.
    """

    step: int
    parts: int
    burst: tuple[int, int]
    cost: tuple[int, int]
    ceiling_us: int


def pace_of(limit: Limit, cost: int) -> Pace:
    """The pace of a rate limit and of a request of `cost` units."""
    common = gcd(limit.per, limit.period_us)
    step, parts = limit.period_us // common, limit.per // common
    units = min(cost, limit.amount + 1)  # more than the burst never passes, however much more
    return Pace(step, parts, divmod(limit.amount * step, parts), divmod(units * step, parts), 2**51 // parts)


def shift_of(limit: Limit, cost: int, owed: int, age_us: int) -> tuple[int, int]:
    """How far settling `owed` units (below zero: given back) moves a rate's arrival time: (µs, 1/parts µs).

    Time itself gives units back. Those that it may have given already, in the `age_us` since the exchange began, are
    not given again, so a burst never grows beyond the limit; the price is that a late return may be worth nothing.
    """
    pace = pace_of(limit, cost)
    shift = owed * pace.step
    if owed < 0:
        shift = -max(0, min(-shift, pace.cost[0] * pace.parts + pace.cost[1] - max(age_us, 0) * pace.parts))
    whole_us, rest = divmod(shift, pace.parts)
    return max(-pace.ceiling_us, min(whole_us, pace.ceiling_us)), rest


def backlog_of(stored: tuple[int, int] | None, limit: Limit, now_us: int) -> int:
    """How far ahead of now a rate's arrival time (µs, 1/parts µs) lies, in 1/parts µs."""
    pace = pace_of(limit, 0)
    if stored is None or stored[0] < now_us:
        return 0
    # A rest is in parts of the definition that wrote it; after an edit it may be off by less than a µs.
    return min(stored[0] - now_us, pace.ceiling_us) * pace.parts + min(stored[1], pace.parts - 1)


def burst_us(limit: Limit) -> int:
    """How long a full burst takes to leak."""
    return limit.amount * limit.period_us // limit.per


class OutageTime:
    """The time at which the units of one rate will have leaked that this worker let through during an outage."""

    __slots__ = ("burst_us", "per", "period_us")

    def __init__(self, limit: Limit, workers: int) -> None:
        self.per = limit.per
        self.period_us = limit.period_us * workers
        self.burst_us = burst_us(limit)

    def span_us(self, units: int) -> int:
        """How long `units` take to leak at this worker's part of the rate."""
        return units * self.period_us // self.per

    def after(self, leaks_us: int, units: int, away_us: int, now_us: int) -> int:
        """When all will have leaked once `units` more are let through at `now_us`, in an outage since `away_us`."""
        return max(leaks_us, away_us + self.burst_us + NOTICE_US, now_us) + self.span_us(units)

    def unleaked(self, leaks_us: int, units: int, now_us: int) -> int:
        """How many of `units`, the last of which leaks at `leaks_us`, the store's bucket still has to be charged."""
        left_us = leaks_us - (now_us - NOTICE_US)
        return min(units, -(-left_us * self.per // self.period_us)) if left_us > 0 else 0
