"""A counter is a limit x scope x window: the stored number. Here are their names, and what a request asks of them.

A key is made of the limit's id, the scope's value and the window's id, never of the limit's figures or the plan, so an
edit of a policy resets nothing. No value that a customer can choose can spell another counter's key.

    sc:{customer}:limit id:scope letter + scope value:window id
    sc:{customer}:wallet (ledger, holds, held):unit
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import gcd
from typing import Any, Final, NamedTuple

from sidecar.core.identity import Identity
from sidecar.core.policy import Limit
from sidecar.core.price import NANOS_MAX, price_fault
from sidecar.core.window import Window, calendar_window, length_window

NEVER_US: Final = 2**53 - 1  # the year 2255: the last µs that a Lua double can still tell from the next
COUNT_MAX: Final = 2**51  # units: costs and counters stop here, so that sums of three stay exact in a Lua double
LIMITS_MAX: Final = 40  # limits of one request: a verdict's shadow mask fits beside its index into a Lua double
MINUTE_US: Final = 60_000_000
_DAY_US: Final = 86_400_000_000
_CROCKFORD: Final = bytes.maketrans(b"0123456789ABCDEFGHJKMNPQRSTVWXYZ", b"0123456789abcdefghijklmnopqrstuv")
_NO_WINDOW: Final = Window("", 0, 0)
_CALENDAR: Final = frozenset({"quota", "priced"})
_UNBOUNDED: Final = frozenset({"priced", "balance"})
_PURSE: Final = ("wallet", "ledger", "holds", "held")
_WORDS: Final = frozenset({*_PURSE, "granted", "retry"})  # the third part of keys that are no counters
_UNSAFE: Final = re.compile(rb"[^!-~]|[%:{}]")


@dataclass(eq=False)  # without slots: compiled, its fields have a place each anyway
class Checks:
    """What requests of one identity, terms and costs ask of the counters; the same object until `until_us`.

    `costs[i]` units are asked of `limits[i]` in the window `starts_us[i] <= now < ends_us[i]` (0 and 0 where the kind
    has no window), counted under `keys[i]`: one Redis key; for a sliding window two, the current and the previous; for
    a balance four: wallet, ledger, holds, held. All windows are open while `from_us <= now < until_us`.
    `payers[i]` is the index of the balance that pays for `limits[i]`, -1 for none; () where no limit is a balance.
    `marks` is the key, up to its bucket, of the marks that make a call idempotent by id.
    `alerting`: of each limit with alerts its index, and what is left (of a balance: anything) when the first may stand.
    `wire`, `plan` and `fields` are for those who prepare it: the store's packed command, the rule's steps, the
    response's fixed header fields. `lease` is what an answer came from that the store was not asked for.
    """

    identity: Identity
    limits: tuple[Limit, ...]
    costs: tuple[int, ...]
    marks: str
    keys: tuple[tuple[str, ...], ...]
    windows: tuple[str, ...]
    starts_us: tuple[int, ...]
    ends_us: tuple[int, ...]
    until_us: int
    from_us: int = 0
    slots: bool = False  # holds a slot or a part of a balance, so it must be settled in every ending
    payers: tuple[int, ...] = ()
    alerting: tuple[tuple[int, int], ...] = ()
    wire: Any = field(default=None, repr=False)
    plan: Any = field(default=None, repr=False)
    fields: Any = field(default=None, repr=False)
    lease: Any = field(default=None, repr=False)

    @property
    def customer(self) -> str:
        """Who pays: all keys of one customer are on one Redis node."""
        return self.identity.customer

    def bucket(self, id_: bytes) -> str:
        """The key that holds the mark of an exchange: the customer's, for the 32.8 s in which the id was made."""
        return self.marks + id_[:7].decode("ascii")

    def at(self, now_us: int) -> Checks:
        """The same question asked in the windows of another instant."""
        return checks_for(self.limits, self.costs, self.identity, now_us)

    def only(self, which: Sequence[int]) -> Checks:
        """The same question to some of the counters, in the same windows, and without slots."""
        limits = tuple(self.limits[i] for i in which)
        payers = payers_of(limits)
        return replace(
            self,
            limits=limits,
            costs=tuple(self.costs[i] for i in which),
            keys=tuple(self.keys[i] for i in which),
            windows=tuple(self.windows[i] for i in which),
            starts_us=tuple(self.starts_us[i] for i in which),
            ends_us=tuple(self.ends_us[i] for i in which),
            payers=payers,
            slots=bool(payers),
            alerting=(),
            wire=None,
            plan=None,
            fields=None,
        )

    def holds(self, now_us: int) -> bool:
        """Whether every window is the one of `now_us`."""
        return self.from_us <= now_us < self.until_us


def checks_for(limits: Sequence[Limit], costs: Sequence[int], identity: Identity, now_us: int) -> Checks:
    """What `costs[i]` units (≥ 0) of `limits[i]`, asked by `identity` at `now_us`, mean in keys and windows.

    An exchange holds one slot of a concurrency limit, whatever its cost. Worth keeping: the same until `until_us`.
    """
    windows = [window_of(limit, identity, now_us) for limit in limits]
    is_slot = [limit.kind == "concurrency" for limit in limits]
    payers = payers_of(limits)
    return Checks(
        identity=identity,
        limits=tuple(limits),
        costs=tuple(min(cost, 1 if slot else COUNT_MAX) for cost, slot in zip(costs, is_slot, strict=True)),
        # Ids are upper case, scope letters lower: no counter of a limit named "ids" is a bucket of marks.
        marks=f"sc:{{{escaped(identity.customer)}}}:ids:",
        keys=tuple(_keys(limit, identity, window) for limit, window in zip(limits, windows, strict=True)),
        windows=tuple(window.id for window in windows),
        starts_us=tuple(window.start_us for window in windows),
        ends_us=tuple(window.end_us for window in windows),
        until_us=min((window.end_us for window in windows if window.end_us), default=NEVER_US),
        from_us=max((window.start_us for window in windows), default=0),
        slots=bool(payers) or any(slot and cost > 0 for slot, cost in zip(is_slot, costs, strict=True)),
        payers=payers,
        alerting=tuple((index, _first_alert(limit)) for index, limit in enumerate(limits) if limit.alerts),
    )


def payers_of(limits: Sequence[Limit]) -> tuple[int, ...]:
    """Of each limit the index of the balance that pays for it: of a priced one the next of its unit; -1 for none.

    () where no limit is a balance.
    """
    payers, next_of = [], dict[str, int]()
    for index in range(len(limits) - 1, -1, -1):
        limit = limits[index]
        if limit.kind == "balance":
            next_of[limit.unit] = index
        payers.append(next_of.get(limit.unit, -1) if limit.kind == "priced" else -1)
    return tuple(reversed(payers)) if next_of else ()


def left_at(amount: int, percent: int) -> int:
    """What is left where `percent` of `amount` units are just used: the threshold stands passed at this and below."""
    return amount * (100 - percent) // 100


def _first_alert(limit: Limit) -> int:
    """A balance's alerts are percents of what was granted, which its wallet knows."""
    return COUNT_MAX if limit.kind == "balance" else left_at(limit.amount, limit.alerts[0])


def window_of(limit: Limit, identity: Identity, now_us: int) -> Window:
    """The window of a limit that holds `now_us`; id "" and 0, 0 for the kinds that have none."""
    if limit.kind == "window":
        return length_window(limit.period_us, now_us)
    if limit.kind not in _CALENDAR:
        return _NO_WINDOW
    zone = identity.zone if limit.zone == "customer" else limit.zone
    return calendar_window(limit.calendar, zone, identity.anchor_us if limit.anchored else 0, now_us)


def escaped(value: str) -> str:
    """`value` with all that could end or forge a part of a key percent-encoded (UTF-8). "" is "%", unlike any other:
    an empty `{}` would be no hash tag, and a customer's keys would be spread over a cluster.
    """  # noqa: D205
    raw = value.encode("utf-8", "surrogatepass")
    return _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], raw).decode("ascii") or "%"


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
    asked = min(cost, limit.amount + 1)  # more than the burst never passes, however much more
    return Pace(step, parts, divmod(limit.amount * step, parts), divmod(asked * step, parts), 2**51 // parts)


def shift_of(limit: Limit, cost: int, owed: int, age_us: int) -> tuple[int, int]:
    """How far settling `owed` units (below zero: given back) moves a rate's arrival time: (µs, 1/parts µs).

    Time itself gives units back. What it may already have given, in the `age_us` since the exchange began, is not given
    again, so a burst never grows beyond the limit; the price is that a late return may be worth nothing.
    """
    pace = pace_of(limit, cost)
    shift = owed * pace.step
    if owed < 0:
        shift = -max(0, min(-shift, pace.cost[0] * pace.parts + pace.cost[1] - max(age_us, 0) * pace.parts))
    whole_us, rest = divmod(shift, pace.parts)
    return max(-pace.ceiling_us, min(whole_us, pace.ceiling_us)), rest


def previous_ceiling(limit: Limit) -> int:
    """The most units of a previous window that are weighted, so that units x ms stays exact in a double."""
    return min(COUNT_MAX, 2**53 // (limit.period_us // 1000) - 1)


def bounds_fault(limit: Limit) -> str | None:
    """Why a limit's arithmetic would not be exact in a Lua double (below 2**53), or None. For the load of a policy."""
    if limit.id in _WORDS:
        return f"id {limit.id} is a word of other keys in the store: use another"
    if limit.kind in _UNBOUNDED:
        return _money_fault(limit)
    if not 0 < limit.amount <= COUNT_MAX:
        return f"amount {limit.amount} must be from 1 to {COUNT_MAX}"
    if limit.kind == "rate":
        if limit.per < 1 or limit.period_us < 1:
            return "a rate needs at least 1 unit in at least 1 µs"
        pace = pace_of(limit, 0)
        if limit.amount * pace.step > 2**50 or pace.burst[0] * 2 > pace.ceiling_us:
            return f"a burst of {limit.amount} at {limit.per} in {limit.period_us} µs is too fine to count exactly"
    if limit.kind == "window":
        if limit.period_us < 1000 or limit.period_us % 1000:
            return f"a window of {limit.period_us} µs must be whole milliseconds"
        if not limit.fixed and (limit.amount + 1) * (limit.period_us // 1000) > 2**52:
            return f"{limit.amount} units sliding over {limit.period_us} µs are too fine to weigh exactly: use fixed"
    if limit.kind == "concurrency" and limit.period_us < 1:
        return "a concurrency limit needs period_us, after which a slot that nobody gives back expires"
    return None


def _money_fault(limit: Limit) -> str | None:
    if limit.amount:
        return f"a {limit.kind} limit has no amount"
    if limit.kind == "priced":
        return price_fault(limit.price) if limit.price is not None else "a priced limit needs a price"
    if not limit.unit:
        return "a balance needs a unit"
    if not 0 <= limit.offline <= NANOS_MAX:
        return f"offline {limit.offline} must be from 0 to {NANOS_MAX} nano-units"
    if not 1_000_000 <= limit.period_us <= _DAY_US:
        return f"a hold on a balance ends after {limit.period_us} µs: from a second to a day"
    return None


def id_us(id_: bytes) -> int:
    """When an id was made, in µs since the epoch by its maker's clock: ten Crockford digits of ms, as in a ULID."""
    return int(id_[:10].translate(_CROCKFORD), 32) * 1000


def expiry_us(limit: Limit, start_us: int, end_us: int) -> int:
    """When a window's counter may go: a sliding one is read for another length; late settles find any for a while."""
    length_us = end_us - start_us
    return end_us + (length_us if limit.kind == "window" else min(length_us, _DAY_US)) + MINUTE_US


def _keys(limit: Limit, identity: Identity, window: Window) -> tuple[str, ...]:
    if limit.kind == "balance":
        return tuple(f"sc:{{{escaped(identity.customer)}}}:{name}:{escaped(limit.unit)}" for name in _PURSE)
    letter, value = _SCOPES[limit.scope](identity)
    stem = f"sc:{{{escaped(identity.customer)}}}:{escaped(limit.id)}:{letter}{escaped(value)}"
    if not window.id:
        return (stem,)
    if limit.kind == "window" and not limit.fixed:
        previous = length_window(limit.period_us, window.start_us - 1)
        return f"{stem}:{window.id}", f"{stem}:{previous.id}"
    return (f"{stem}:{window.id}",)


_SCOPES: dict[str, Callable[[Identity], tuple[str, str]]] = {
    "key": lambda identity: ("k", identity.key_id),
    "subject": lambda identity: ("s", identity.subject),
    "customer": lambda identity: ("c", identity.customer),
}
