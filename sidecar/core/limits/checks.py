"""The question that a request asks of the counters: one check of each limit that applies, made once for many requests.

It depends on the identity, the limits, the costs and the windows alone, so it stays the same object until the first of
its windows ends. Layers keep beside it what they derive from it (a packed command, header lines); see `Derived`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from sidecar.core.identity import Identity
from sidecar.core.limits.base import WALLET, Check
from sidecar.core.limits.bounds import NEVER_US
from sidecar.core.limits.keys import marks_stem
from sidecar.core.limits.limit import Limit
from sidecar.core.limits.registry import KINDS

T = TypeVar("T")
DERIVED_MAX: Final = 8  # kinds of derived values


class Checks:
    """The checks of one request, in the order of its plan's limits. Compared by object; never changed.

    All windows are open while `from_us <= now < until_us`. `marks` is the key, up to its bucket, of the marks that make
    a call idempotent by id. `must_settle`: an exchange holds a slot or a part of a balance. `has_wallet`: a balance is
    among the limits. `alerting`: of each limit with alerts its index, and the remaining units at which the first may be
    due. `keys` are those of each entry. `is_leased`: decided from units that a worker had reserved ahead.
    """

    __slots__ = (
        "_by_costs", "_by_limits", "alerting", "costs", "entries", "from_us", "has_wallet", "identity", "is_leased",
        "keys", "marks", "must_settle", "until_us",
    )  # fmt: skip

    def __init__(self, identity: Identity, entries: tuple[Check, ...], marks: str, like: Checks | None = None) -> None:
        """`like` has the same limits and windows, at other costs: what is derived from these is shared with it."""
        self.identity = identity
        self.entries = entries
        self.marks = marks
        self.costs = tuple([check.cost for check in entries])
        self.must_settle = any([check.kind.must_settle(check.cost) for check in entries])  # noqa: C419 - compiled
        if like is None:
            self.from_us: int = max([check.window.start_us for check in entries], default=0)
            self.until_us: int = min(
                [check.window.end_us for check in entries if check.window.end_us], default=NEVER_US
            )
            self.has_wallet: bool = any([check.kind.stored_as == WALLET for check in entries])  # noqa: C419
            self.alerting: tuple[tuple[int, int], ...] = tuple(
                [(i, check.kind.first_alert(check.limit)) for i, check in enumerate(entries) if check.limit.alerts]
            )
            self.keys: tuple[tuple[str, ...], ...] = tuple([check.keys for check in entries])
            self._by_limits: list[Any] = [None] * DERIVED_MAX
        else:
            self.from_us, self.until_us, self.keys = like.from_us, like.until_us, like.keys
            self.has_wallet, self.alerting, self._by_limits = like.has_wallet, like.alerting, like._by_limits
        self.is_leased = False
        self._by_costs: list[Any] = [None] * DERIVED_MAX

    @property
    def customer(self) -> str:
        """The paying customer. All keys of one customer are on one Redis node."""
        return self.identity.customer

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits in their order."""
        return tuple([check.limit for check in self.entries])

    def bucket(self, id_: bytes) -> str:
        """The key that holds the mark of an exchange: the customer's, for the 32.8 s in which the id was made."""
        return self.marks + id_[:7].decode("ascii")

    def covers(self, now_us: int) -> bool:
        """Whether every window is the one of `now_us`."""
        return self.from_us <= now_us < self.until_us

    def at(self, now_us: int) -> Checks:
        """The same question in the windows of another instant."""
        return checks_for(self.limits, self.costs, self.identity, now_us)

    def with_costs(self, costs: Sequence[int]) -> Checks:
        """The same question at other costs."""
        return Checks(self.identity, self._recosted(costs), self.marks, self)

    def with_limits(self, limits: Sequence[Limit]) -> Checks:
        """The same counters under other definitions of their limits."""
        pairs = zip(self.entries, limits, strict=True)
        return Checks(self.identity, tuple([check.of(limit, check.cost) for check, limit in pairs]), self.marks)

    def only(self, indexes: Sequence[int]) -> Checks:
        """The same question to some of the counters, in the same windows, without alerts."""
        chosen = [self.entries[index] for index in indexes]
        made = checks_of([check.of(check.limit, check.cost) for check in chosen], self.identity, self.marks)
        made.alerting = ()
        return made

    def _recosted(self, costs: Sequence[int]) -> tuple[Check, ...]:
        pairs = zip(self.entries, costs, strict=True)
        return tuple([check if check.cost == cost else check.of(check.limit, cost) for check, cost in pairs])


class Derived(Generic[T]):
    """A value that one layer works out of a `Checks`, and that lives as long as it does. Only its owner can reach it.

    Make one a module, on import. A dictionary of the owner's instead would need a bound, and would keep alive the
    questions of windows that have ended. `by_costs`: the value depends on the costs, not on limits and windows alone.
    """

    __slots__ = ("_by_costs", "_make", "_place")

    def __init__(self, make: Callable[[Checks], T], *, by_costs: bool) -> None:
        self._make = make
        self._by_costs = by_costs
        self._place = _next_place()

    def of(self, checks: Checks) -> T:
        """The value, worked out where it is asked for the first time."""
        values = checks._by_costs if self._by_costs else checks._by_limits
        value: T | None = values[self._place]
        if value is None:
            value = values[self._place] = self._make(checks)
        return value


def check_for(limit: Limit, cost: int, identity: Identity, now_us: int) -> Check:
    """The check of `cost` units (≥ 0) of `limit`, asked by `identity` at `now_us`."""
    kind = KINDS[limit.kind]
    window = kind.window(limit, identity, now_us)
    return Check(limit, kind, cost, kind.keys(limit, identity, window), window)


def checks_for(limits: Sequence[Limit], costs: Sequence[int], identity: Identity, now_us: int) -> Checks:
    """The checks of `costs[i]` units (≥ 0) of `limits[i]`, asked by `identity` at `now_us`.

    An exchange holds one slot of a concurrency limit, whatever its cost. Worth keeping: the same until `until_us`.
    """
    pairs = zip(limits, costs, strict=True)
    entries = [check_for(limit, cost, identity, now_us) for limit, cost in pairs]
    return checks_of(entries, identity, marks_stem(identity.account))


def checks_of(entries: Sequence[Check], identity: Identity, marks: str) -> Checks:
    """The checks in this order, of which nobody else has any: each is given its payer.

    A priced limit is paid for by the next wallet of its unit.
    """
    payer_of: dict[str, int] = {}
    for index in range(len(entries) - 1, -1, -1):
        check = entries[index]
        if check.kind.stored_as == WALLET:
            payer_of[check.limit.unit] = index
        check.payer = payer_of.get(check.limit.unit, -1) if check.kind.is_priced else -1
    return Checks(identity, tuple(entries), marks)


def bounds_fault(limit: Limit) -> str | None:
    """Why a limit's arithmetic would not be exact in a Lua double (below 2^53), or None. For the load of a policy."""
    return KINDS[limit.kind].bounds_fault(limit)


_places: Final[list[None]] = []


def _next_place() -> int:
    _places.append(None)
    if len(_places) > DERIVED_MAX:
        raise RuntimeError("raise DERIVED_MAX: a layer more derives something from Checks")
    return len(_places) - 1
