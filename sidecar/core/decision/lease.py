"""A lease: units of every limit of a request, reserved ahead in one step, so that a worker can decide by itself.

Leased units are in the counters already, so spending them cannot exceed a limit. This module says how much may be
leased, for how long, and what is returned. It keeps no state, and a figure that is old makes a lease smaller or
refused, but never lets a limit be exceeded.

A worker leases the requests that it expects in the next 100 ms, and of no limit more than remaining / (2 x workers), so
that all workers together hold at most half of what is left. The units of a count (quota, window) are good until the
window ends. A rate forgets what it counted as time passes: a leased unit protects the limit only while it is still in
the backlog, so a lease of a rate is at most as long as its backlog, and lives for 200 ms at most. Where the backlog is
short, *padding* is leased besides and never spent; it lengthens the queue behind which the units wait.

    monthly 1,000,000, 400,000 left; 2 workers; this one has 2,000 requests/s, so 200 in 100 ms
      room: min(1,000,000 / 4, 400,000 / 4) = 100,000 units; a lease is 200, cut to four bits: 192 requests
      one call to the store, then 192 decisions without any; a kill loses at most 192 units to the month
    rate 1,000/s, burst 1,000, 400 left; the same worker with 40 requests in 100 ms
      room min(1,000 / 4, 400 / 4) = 100; the backlog is 600 ms, so all 40 are covered for 100 ms: 40 requests
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sidecar.core.decision.answer import Decision
from sidecar.core.digits import BASE32_PAIRS
from sidecar.core.limits import KINDS, Checks, Limit
from sidecar.core.limits.leasing import HORIZON_US, LIFE_US, four_bits

LEAST: Final = 4  # units, and requests in a horizon: below, leasing and giving back saves nothing

__all__ = ["HORIZON_US", "LEAST", "LIFE_US", "bound", "leasable", "life_us", "sized", "spent", "stamp"]


def leasable(checks: Checks) -> bool:
    """Whether all of `checks` can be reserved ahead: they are leased together or not at all."""
    return any(checks.costs) and all(
        [check.kind.leasing is not None and not check.limit.exact for check in checks.entries]  # noqa: C419
    )


def bound(limit: Limit, workers: int) -> int:
    """The most units of a counter that one of `workers` holds ahead; lost to the window if it is killed."""
    leasing = KINDS[limit.kind].leasing
    return leasing.bound(limit, workers) if leasing is not None else 0


def sized(
    checks: Checks, demand: int, known: Decision, age_us: int, held: Sequence[int], workers: int
) -> tuple[int, tuple[int, ...]]:
    """How many requests to lease for, and the units of each limit that this takes; (0, ()): not worth it now.

    `demand` requests are expected in HORIZON_US. `known` was decided `age_us` ago; `held[i]` units of the counter of
    the i-th limit are leased by this worker already.
    """
    entries, remaining, resets = checks.entries, known.remaining, known.reset_us
    units, rooms = demand, []
    for index, check in enumerate(entries):
        leasing = check.kind.leasing
        room = leasing.room(check.limit, remaining[index], held[index], workers) if leasing is not None else 0
        rooms.append(room)
        if check.cost and leasing is not None:
            backlog_us = max(0, resets[index] - age_us)
            units = min(units, leasing.requests(check.limit, check.cost, room, backlog_us, demand))
    units = four_bits(units)
    if units < LEAST:
        return 0, ()
    costs = [units * check.cost for check in entries]
    for index, check in enumerate(entries):
        if costs[index] and (leasing := check.kind.leasing) is not None:
            backlog_us = max(0, resets[index] - age_us)
            costs[index] += leasing.padding(check.limit, rooms[index] - costs[index], backlog_us)
    return units, tuple(costs)


def life_us(granted: Decision, costs: Sequence[int], units: int) -> int:
    """For how long after it was asked for the last `units` of the lease that was `granted` may be spent, µs.

    Never past the windows of its checks; of a rate, while as many units are still in its backlog.
    """
    life = granted.checks.until_us - granted.now_us
    for check, cost, reset_us in zip(granted.checks.entries, costs, granted.reset_us, strict=True):
        if cost and (leasing := check.kind.leasing) is not None:
            life = leasing.life_us(check.limit, units * cost, reset_us, life)
    return life


def spent(granted: Decision, costs: Sequence[int], units: int, age_us: int) -> tuple[int, ...]:
    """The actual units to settle a lease by that was asked for `age_us` ago, where `units` requests of it are left."""
    actual = []
    for check, cost, reset_us in zip(granted.checks.entries, costs, granted.reset_us, strict=True):
        leasing = check.kind.leasing
        back = leasing.returns(check.limit, units * cost, reset_us, age_us) if leasing is not None else 0
        actual.append(check.cost - back)
    return tuple(actual)


def stamp(at_us: int) -> bytes:
    """Ten characters that are above every id made in a ms before `at_us`'s, and below every later one."""
    ms = max(0, at_us) // 1000
    return b"".join([BASE32_PAIRS[ms >> shift & 1023] for shift in (40, 30, 20, 10, 0)])
