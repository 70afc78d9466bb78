"""Allow or deny: the one rule for every limit at once, all or none. The Redis script is held to this module by a test.

First every limit is looked at, then all are charged or none. An id has one verdict and is charged once, however often
it is sent; a settle is final. All figures are integers that a Lua double holds exactly (`bounds_fault`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sidecar.core.counter import (
    COUNT_MAX,
    LIMITS_MAX,
    MINUTE_US,
    Checks,
    Pace,
    expiry_us,
    pace_of,
    previous_ceiling,
    shift_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sidecar.core.policy import Limit

MARK_LIFE_US = 180_000_000  # how long a mark outlives the last write to its bucket
RETRY_US = 1_000_000  # nobody knows when a slot comes free; ask again after a second


class Decision:
    """Allow or deny, with the figures of every limit asked, in the order of `checks.limits`.

    `remaining[i]` is what is left after this request (below zero where `over: allow` or a debt went past the limit);
    `reset_us[i]` the µs from `now_us` until there is more: for `rate` until the burst is whole again (on a denial by
    this limit: until a request of this cost passes), else until the window ends (sliding: until the request would
    pass). `violated` is the index of the first enforced limit that denied, else -1; `shadowed` the indexes that would
    have denied in `stage: shadow`. `mode` is exact, leased, degraded or local. Refused requests consume nothing.
    """

    __slots__ = ("allowed", "checks", "mode", "now_us", "remaining", "reset_us", "shadowed", "violated")

    def __init__(  # noqa: PLR0913, PLR0917 - the reply of the script, field by field
        self,
        checks: Checks,
        now_us: int,
        remaining: Sequence[int],
        reset_us: Sequence[int],
        violated: int = -1,
        shadowed: tuple[int, ...] = (),
        mode: str = "exact",
    ) -> None:
        self.allowed = violated < 0
        self.checks = checks
        self.now_us = now_us
        self.remaining = remaining
        self.reset_us = reset_us
        self.violated = violated
        self.shadowed = shadowed
        self.mode = mode


class Write(NamedTuple):
    """A change of the stored state: a `member` of the map at `key`, or (None) the whole value. A value of None removes.

    Values: a count (window, quota), (µs, 1/n µs) of the theoretical arrival time (rate), id → expiry in µs of its slot
    (concurrency), id → verdict (marks). `expire_us` is only cleaning.
    """

    key: str
    member: bytes | None
    value: Any
    expire_us: int


class Look(NamedTuple):
    """What one limit says: as it stands, and charged. Where it denies, `reset_us` is until it would pass."""

    denies: bool
    remaining: int
    reset_us: int
    left: int
    left_reset_us: int
    charged: Any


def reserve(
    state: Mapping[str, Any], id_: bytes, checks: Checks, now_us: int, *, force: bool = False
) -> tuple[Decision | None, list[Write]]:
    """Ask all of `checks` for the exchange `id_` (26 bytes): the decision, and what to store.

    None where a window of `checks` is not that of `now_us`. `force` charges without asking: counts what was let
    through while the store was away, in the windows given; takes no slot, and fills a rate no further than full.
    """
    if not force and not checks.holds(now_us):
        return None, []
    bucket = checks.bucket(id_)
    marked = state.get(bucket, {}).get(id_)
    looks = [
        _look(limit)(_Asked(limit, cost, state, keys, start, end, now_us))
        for limit, cost, keys, start, end in zip(
            checks.limits, checks.costs, checks.keys, checks.starts_us, checks.ends_us, strict=True
        )
    ]
    if marked is not None and not (force and _denied(marked)):
        return _replay(checks, now_us, looks, marked), []
    verdict = 0 if force else _verdict(checks.limits, looks)
    decision = _decision(checks, now_us, looks, verdict, fresh=True)
    writes = _charges(checks, looks, id_, force=force) if decision.allowed else []
    return decision, [*writes, Write(bucket, id_, str(verdict), now_us + MARK_LIFE_US)]


def settle(
    state: Mapping[str, Any], id_: bytes, checks: Checks, truth: Sequence[int], now_us: int, age_us: int
) -> list[Write]:
    """Replace what the exchange `id_`, made `age_us` ago, reserved by `truth[i]` units: what to store.

    Without a reservation nothing is charged, and one that comes later charges nothing. A mark that has gone by its age
    is taken as reserved: only its own exchange knows the id.
    """
    bucket = checks.bucket(id_)
    marked = state.get(bucket, {}).get(id_)
    if marked is not None and marked[0] == "s":
        return []
    final = Write(bucket, id_, f"s{marked or 0}", now_us + MARK_LIFE_US)
    if (age_us <= MARK_LIFE_US) if marked is None else _denied(marked):
        return [final]
    return [*_corrections(state, id_, checks, truth, now_us, age_us), final]


def changes_nothing(checks: Checks, truth: Sequence[int]) -> bool:
    """Whether a settle need not be sent: the truth is what was reserved, and no slot is held."""
    return not checks.slots and tuple(truth) == checks.costs


class _Asked(NamedTuple):
    limit: Limit
    cost: int
    state: Mapping[str, Any]
    keys: tuple[str, ...]
    start_us: int
    end_us: int
    now_us: int


def _fixed(asked: _Asked) -> Look:
    used = asked.state.get(asked.keys[0], 0)
    remaining, reset_us = asked.limit.amount - used, asked.end_us - asked.now_us
    charged = min(used + asked.cost, COUNT_MAX)
    return Look(_exceeds(asked.cost, remaining), remaining, reset_us, remaining - asked.cost, reset_us, charged)


def _sliding(asked: _Asked) -> Look:
    limit, cost = asked.limit, asked.cost
    used, before = asked.state.get(asked.keys[0], 0), asked.state.get(asked.keys[1], 0)
    before = min(before, previous_ceiling(limit))
    length, passed = limit.period_us // 1000, (asked.now_us - asked.start_us) // 1000  # ms: past time rounds down,
    remaining = limit.amount - used - -(-before * (length - passed) // length)  # and the weight up: never more admitted
    denies, reset_us = _exceeds(cost, remaining), asked.end_us - asked.now_us
    opens_us = asked.start_us + _opens(limit, cost, used, before) * 1000 - asked.now_us if denies else reset_us
    return Look(denies, remaining, opens_us, remaining - cost, reset_us, min(used + cost, COUNT_MAX))


def _opens(limit: Limit, cost: int, used: int, before: int) -> int:
    """The ms from the window's start at which `cost` units pass if nobody else asks; its end where they never will."""
    length, room = limit.period_us // 1000, limit.amount - cost
    if room < 0:
        return length
    if room >= used:
        return length - (room - used) * length // before
    return length + length - room * length // min(used, previous_ceiling(limit))


def _rate(asked: _Asked) -> Look:
    limit, now_us = asked.limit, asked.now_us
    pace = pace_of(limit, asked.cost)
    stands = _backlog(asked.state.get(asked.keys[0]), pace, now_us)
    asked_for = _plus(stands, pace.cost, pace.parts)
    denies = asked.cost > 0 and asked_for > pace.burst
    charged = max(stands, pace.burst) if denies else asked_for  # who may pass a full one fills it no further
    until_us = _ceil(asked_for[0] - pace.burst[0], asked_for[1] - pace.burst[1]) if denies else _ceil(*stands)
    return Look(
        denies, _left(stands, pace), until_us, _left(charged, pace), _ceil(*charged), (now_us + charged[0], charged[1])
    )


def _backlog(stored: tuple[int, int] | None, pace: Pace, now_us: int) -> tuple[int, int]:
    if stored is None or stored[0] < now_us:
        return 0, 0
    # A rest is in parts of the definition that wrote it; after an edit it may be off by less than a µs.
    return min(stored[0] - now_us, pace.ceiling_us), min(stored[1], pace.parts - 1)


def _plus(one: tuple[int, int], other: tuple[int, int], parts: int) -> tuple[int, int]:
    carry, rest = divmod(one[1] + other[1], parts)
    return one[0] + other[0] + carry, rest


def _left(backlog: tuple[int, int], pace: Pace) -> int:
    return ((pace.burst[0] - backlog[0]) * pace.parts + pace.burst[1] - backlog[1]) // pace.step


def _ceil(whole_us: int, rest: int) -> int:
    return whole_us + (rest > 0)


def _slots(asked: _Asked) -> Look:
    live = sum(expiry > asked.now_us for expiry in asked.state.get(asked.keys[0], {}).values())
    remaining = asked.limit.amount - live
    denies = _exceeds(asked.cost, remaining)
    return Look(denies, remaining, RETRY_US * denies, remaining - asked.cost, 0, asked.now_us + asked.limit.period_us)


def _exceeds(cost: int, remaining: int) -> bool:
    return cost > 0 and cost > remaining


_LOOKS: dict[str, Callable[[_Asked], Look]] = {
    "rate": _rate,
    "window": _sliding,
    "quota": _fixed,
    "concurrency": _slots,
}


def _look(limit: Limit) -> Callable[[_Asked], Look]:
    return _fixed if limit.fixed else _LOOKS[limit.kind]


def _verdict(limits: Iterable[Limit], looks: Iterable[Look]) -> int:
    """0, or 1 + the index of the first limit that denied; above, 64 x a bit for each that only would have."""
    violated = mask = 0
    for index, (limit, look) in enumerate(zip(limits, looks, strict=True)):
        if not look.denies or limit.over == "allow":
            continue
        if limit.stage == "shadow":
            mask += 1 << index
        else:
            violated = violated or index + 1
    return violated + 64 * mask


def shadowed_of(mask: int) -> tuple[int, ...]:
    """The indexes that a verdict's mask names."""
    return tuple(index for index in range(LIMITS_MAX) if mask >> index & 1) if mask else ()


def _denied(marked: str) -> bool:
    return marked[0] != "s" and int(marked) % 64 > 0


def _decision(checks: Checks, now_us: int, looks: Sequence[Look], verdict: int, *, fresh: bool) -> Decision:
    violated = verdict % 64 - 1
    if fresh and violated < 0:
        figures = [(look.left, look.left_reset_us) for look in looks]
    else:
        figures = [(look.remaining, look.reset_us) for look in looks]
    remaining, reset_us = zip(*figures, strict=True) if figures else ((), ())
    return Decision(checks, now_us, remaining, reset_us, violated, shadowed_of(verdict // 64))


def _replay(checks: Checks, now_us: int, looks: Sequence[Look], marked: str) -> Decision:
    return _decision(checks, now_us, looks, int(marked.lstrip("s")), fresh=False)


def _charges(checks: Checks, looks: Sequence[Look], id_: bytes, *, force: bool) -> list[Write]:
    writes = []
    for index, (limit, look) in enumerate(zip(checks.limits, looks, strict=True)):
        if not checks.costs[index]:
            continue
        key = checks.keys[index][0]
        if limit.kind == "rate":
            writes.append(Write(key, None, look.charged, look.charged[0] + MINUTE_US))
        elif limit.kind != "concurrency":
            expire_us = expiry_us(limit, checks.starts_us[index], checks.ends_us[index])
            writes.append(Write(key, None, look.charged, expire_us))
        elif not force:
            writes.append(Write(key, id_, look.charged, look.charged + MINUTE_US))
    return writes


def _corrections(
    state: Mapping[str, Any], id_: bytes, checks: Checks, truth: Sequence[int], now_us: int, age_us: int
) -> list[Write]:
    writes = []
    for index, limit in enumerate(checks.limits):
        key, cost, stored = checks.keys[index][0], checks.costs[index], state.get(checks.keys[index][0])
        owed = min(truth[index], COUNT_MAX) - cost
        if limit.kind == "concurrency":
            writes.append(Write(key, id_, None, 0))
        elif limit.kind == "rate":
            pace, shift = pace_of(limit, cost), shift_of(limit, cost, owed, age_us)
            if shift != (0, 0):
                whole_us, rest = _plus(_backlog(stored, pace, now_us), shift, pace.parts)
                arrival_us = now_us + min(whole_us, pace.ceiling_us)  # before now it is as good as none
                writes.append(Write(key, None, (arrival_us, rest), arrival_us + MINUTE_US))
        elif owed:
            used = max(0, min((stored or 0) + owed, COUNT_MAX))
            writes.append(Write(key, None, used, expiry_us(limit, checks.starts_us[index], checks.ends_us[index])))
    return writes
