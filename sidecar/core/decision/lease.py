"""A lease: units of every limit of a request, reserved ahead in one step, so that a worker can decide by itself.

What is leased is in the counters already, so nothing that is spent of it exceeds a limit. Here is how much may be
leased, for how long, and what goes back; nothing here keeps state, and a figure that is old makes a lease smaller or
refused, never a limit passed.

A rate forgets what it counted as time passes, so units of it are good only while their backlog is still there. Where
the backlog is short, `pads` are leased besides: never spent, they only stand in the queue before the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sidecar.core.counter import Checks
from sidecar.core.decision.answer import Decision
from sidecar.core.policy import Limit

HORIZON_US: Final = 100_000  # a lease is what a worker will use in this time
LIFE_US: Final = 200_000  # units of a rate are given up after it
LEAST: Final = 4  # units, and requests in a horizon: below, leasing and giving back saves nothing

_KINDS: Final = frozenset({"rate", "window", "quota"})
_DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = [(high + low).encode() for high in _DIGITS for low in _DIGITS]


def leased(checks: Checks, lease: object) -> Checks:
    """The same question as what is answered from `lease`: whoever settles it finds the lease by this."""
    return replace(checks, lease=lease, wire=None, plan=None, fields=None)


def leasable(checks: Checks) -> bool:
    """Whether all of `checks` can be reserved ahead: they are leased together or not at all."""
    return any(checks.costs) and all(limit.kind in _KINDS and not limit.exact for limit in checks.limits)


def bound(limit: Limit, workers: int) -> int:
    """The most units of a counter that one of `workers` holds ahead; lost to the window if it is killed."""
    return limit.amount // (2 * workers) if limit.kind in _KINDS and not limit.exact else 0


def sized(
    checks: Checks, demand: int, known: Decision, age_us: int, held: Sequence[int], workers: int
) -> tuple[int, tuple[int, ...]]:
    """How many requests to lease for, and the units of each limit that this takes; (0, ()): not worth it now.

    `demand` requests are expected in HORIZON_US. `known` was decided `age_us` ago; `held[i]` units of the counter of
    `limits[i]` are leased by this worker already.
    """
    units = demand
    rooms = []
    for limit, cost, left, has in zip(checks.limits, checks.costs, known.remaining, held, strict=True):
        room = bound(limit, workers) - has
        if limit.over != "allow" or limit.kind == "rate":
            room = min(room, left // (2 * workers))
        rooms.append(room)
        if cost:
            units = min(units, room // cost)
    backlogs = [max(0, reset_us - age_us) for reset_us in known.reset_us]
    for limit, cost, room, backlog_us in zip(checks.limits, checks.costs, rooms, backlogs, strict=True):
        if cost and limit.kind == "rate":
            # The last of n is spent n/demand horizons from now, and must then still be in what is left of the backlog.
            covered = backlog_us * limit.per + room * limit.period_us
            units = min(units, covered * demand // (HORIZON_US * limit.per + demand * cost * limit.period_us))
    units = _rounded(units)
    if units < LEAST:
        return 0, ()
    costs = [units * cost for cost in checks.costs]
    for index, limit in enumerate(checks.limits):
        if costs[index] and limit.kind == "rate":
            wanted = (HORIZON_US - backlogs[index]) * limit.per // limit.period_us + 1
            costs[index] += _rounded(min(wanted, rooms[index] - costs[index]))
    return units, tuple(costs)


def life_us(said: Decision, costs: Sequence[int], units: int) -> int:
    """For how long after it was asked for the last `units` of the lease that `said` granted may be spent, µs.

    Never past the windows of its checks; of a rate, while as many units are still in its backlog.
    """
    life = said.checks.until_us - said.now_us
    for limit, cost, reset_us in zip(said.checks.limits, costs, said.reset_us, strict=True):
        if cost and limit.kind == "rate":
            life = min(life, LIFE_US, reset_us - -(-units * cost * limit.period_us // limit.per) - 1)
    return life


def spent(said: Decision, costs: Sequence[int], units: int, age_us: int) -> tuple[int, ...]:
    """The truth to settle a lease by that was asked for `age_us` ago, where `units` requests of it are left over.

    To a rate goes back only what other workers' leases cannot be standing on.
    """
    found = []
    for limit, leased_, cost, reset_us in zip(said.checks.limits, said.checks.costs, costs, said.reset_us, strict=True):
        back = units * cost
        if limit.kind == "rate":
            back = min(back, max(0, reset_us - age_us) * limit.per // limit.period_us)
            back = max(0, back - LIFE_US * limit.per // limit.period_us - 1)
        found.append(leased_ - back)
    return tuple(found)


def stamp(at_us: int) -> bytes:
    """Ten characters that are above every id made in a ms before `at_us`'s, and below every later one."""
    ms = max(0, at_us) // 1000
    return b"".join([_PAIRS[ms >> shift & 1023] for shift in (40, 30, 20, 10, 0)])


def _rounded(units: int) -> int:
    """Down to four significant bits, so that the commands of a few sizes can be kept."""
    shift = max(0, units.bit_length() - 4)
    return max(0, units) >> shift << shift
