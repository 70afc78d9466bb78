"""What one limit says: as it stands, and charged. One function for each limit, made once for all requests alike.

All figures are integers that a Lua double holds exactly (`bounds_fault`); the script counts as these do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sidecar.core.counter import COUNT_MAX, MINUTE_US, Checks, expiry_us, pace_of, previous_ceiling
from sidecar.core.policy import Limit

RETRY_US = 1_000_000  # nobody knows when a slot comes free; ask again after a second

# (denies, remaining, reset_us, remaining and reset_us if it is charged, what to store then, its expiry in µs). Where it
# denies, reset_us is until it would pass.
Look = tuple[bool, int, int, int, int, Any, int]
State = Mapping[str, Any]
_Look = Callable[[State, int], Look]


class Plan(NamedTuple):
    """The steps of one `Checks`: how each limit looks, and 0 (denies), 1 (may be passed) or 2 (only says so).

    `charges` are index, key and whether it is a slot, of those that are charged at all.
    """

    looks: tuple[_Look, ...]
    roles: tuple[int, ...]
    charges: tuple[tuple[int, str, bool], ...]


def planned(checks: Checks) -> Plan:
    """The steps of `checks`, made once and kept with it."""
    limits = checks.limits
    plan = checks.plan = Plan(
        tuple((_fixed if limit.fixed else _LOOKS[limit.kind])(checks, index) for index, limit in enumerate(limits)),
        tuple(1 if limit.over == "allow" else 2 * (limit.stage != "enforce") for limit in limits),
        tuple(
            (index, checks.keys[index][0], limit.kind == "concurrency")
            for index, limit in enumerate(limits)
            if checks.costs[index] and limit.kind != "balance"
        ),
    )
    return plan


def backlog_of(stored: tuple[int, int] | None, limit: Limit, now_us: int) -> int:
    """How far ahead of now a rate's arrival time (µs, 1/parts µs) lies, in 1/parts µs."""
    pace = pace_of(limit, 0)
    if stored is None or stored[0] < now_us:
        return 0
    # A rest is in parts of the definition that wrote it; after an edit it may be off by less than a µs.
    return min(stored[0] - now_us, pace.ceiling_us) * pace.parts + min(stored[1], pace.parts - 1)


def _fixed(checks: Checks, index: int) -> _Look:
    cost, key, end_us = checks.costs[index], checks.keys[index][0], checks.ends_us[index]
    amount, expire_us = checks.limits[index].amount, expiry_us(checks.limits[index], checks.starts_us[index], end_us)

    def look(state: State, now_us: int) -> Look:
        used = state.get(key, 0)
        remaining, reset_us = amount - used, end_us - now_us
        after = min(used + cost, COUNT_MAX)
        return 0 < cost > remaining, remaining, reset_us, remaining - cost, reset_us, after, expire_us

    return look


def _priced(checks: Checks, index: int) -> _Look:
    """Counts as a quota of nothing does, and refuses nobody."""
    counts = _fixed(checks, index)
    return lambda state, now_us: (False, *counts(state, now_us)[1:])


def _sliding(checks: Checks, index: int) -> _Look:
    limit, cost, (key, before_key) = checks.limits[index], checks.costs[index], checks.keys[index]
    start_us, end_us = checks.starts_us[index], checks.ends_us[index]
    amount, length, ceiling = limit.amount, limit.period_us // 1000, previous_ceiling(limit)
    expire_us = expiry_us(limit, start_us, end_us)

    def look(state: State, now_us: int) -> Look:
        used, before = state.get(key, 0), state.get(before_key, 0)
        before = min(before, ceiling)
        passed = (now_us - start_us) // 1000  # ms: past time rounds down,
        remaining = amount - used - -(-before * (length - passed) // length)  # and the weight up: never more admitted
        denies, reset_us = 0 < cost > remaining, end_us - now_us
        opens_us = start_us + _opens(limit, cost, used, before) * 1000 - now_us if denies else reset_us
        return denies, remaining, opens_us, remaining - cost, reset_us, min(used + cost, COUNT_MAX), expire_us

    return look


def _opens(limit: Limit, cost: int, used: int, before: int) -> int:
    """The ms from the window's start at which `cost` units pass if nobody else asks; its end where they never will."""
    length, room = limit.period_us // 1000, limit.amount - cost
    if room < 0:
        return length
    if room >= used:
        return length - (room - used) * length // before
    return length + length - room * length // min(used, previous_ceiling(limit))


def _rate(checks: Checks, index: int) -> _Look:
    limit, cost, key = checks.limits[index], checks.costs[index], checks.keys[index][0]
    step, parts, _, asked, ceiling_us = pace_of(limit, cost)
    units, burst, last = asked[0] * parts + asked[1], limit.amount * step, parts - 1

    def look(state: State, now_us: int) -> Look:  # in 1/parts µs
        backlog = 0
        if (stored := state.get(key)) is not None and stored[0] >= now_us:
            backlog = min(stored[0] - now_us, ceiling_us) * parts + min(stored[1], last)
        full = backlog + units
        if denies := cost > 0 and full > burst:
            until_us = -((burst - full) // parts)
            full = max(backlog, burst)  # who may pass a full one fills it no further
        else:
            until_us = -(-backlog // parts)
        whole_us, rest = divmod(full, parts)
        arrival_us = now_us + whole_us
        left, left_us = (burst - full) // step, whole_us + (rest > 0)
        return denies, (burst - backlog) // step, until_us, left, left_us, (arrival_us, rest), arrival_us + MINUTE_US

    return look


def _slots(checks: Checks, index: int) -> _Look:
    limit, cost, key = checks.limits[index], checks.costs[index], checks.keys[index][0]

    def look(state: State, now_us: int) -> Look:
        held = state.get(key)
        remaining = limit.amount - (sum([until > now_us for until in held.values()]) if held else 0)
        denies, until_us = 0 < cost > remaining, now_us + limit.period_us
        return denies, remaining, RETRY_US * denies, remaining - cost, 0, until_us, until_us + MINUTE_US

    return look


def _balance(_checks: Checks, _index: int) -> _Look:
    """What it says depends on what the limits before it say: `purses`."""
    return lambda _state, _now_us: (False, 0, 0, 0, 0, None, 0)


_LOOKS: dict[str, Callable[[Checks, int], _Look]] = {
    "rate": _rate,
    "window": _sliding,
    "quota": _fixed,
    "concurrency": _slots,
    "priced": _priced,
    "balance": _balance,
}
