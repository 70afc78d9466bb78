"""Who asks often is answered from units that this worker has reserved ahead, without asking the store.

It is a `Counters` port itself, before all the others. It never allows anything that is not in the counters already: a
lease is a reserve under an id of its own, and every unit of it is spent once, given back or lost. Ids carry the time
at which their requests came, so whether a lease is still good needs no look at a clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from operator import add, sub
from typing import Final, NamedTuple

from sidecar.core.counter import Checks
from sidecar.core.decision import Decision
from sidecar.core.decision.lease import HORIZON_US, LEAST, leasable, sized
from sidecar.core.errors import StoreError
from sidecar.edge.leases.lease import Done, Lease
from sidecar.edge.leases.remains import Remains
from sidecar.edge.leases.returns import Returns
from sidecar.ports import Clock, Counters

REST: Final = 10  # turns without leases after one that failed, or after costs that were not the truth

_Size = tuple[int, tuple[int, ...]]
_NONE: Final[_Size] = (0, ())


class Chain(NamedTuple):
    """What stands behind leases: `exact` answers single requests, `store` leases; `alone` decides without a store."""

    exact: Counters
    store: Counters
    alone: Callable[[bytes, Checks, Done], None]


class Leases(Counters):
    """Wraps the exact counters of one of `workers`. `sweep` is to be called ten times a second.

    Plain integers: `asked` (leases asked of the store), `units`, `owed`, `lost`. `recall` gives all back: before a
    stop, and when another policy is put into force.
    """

    def __init__(self, chain: Chain, clock: Clock, mint: Callable[[], bytes], workers: int = 1) -> None:
        self._exact = chain.exact
        self._store = chain.store
        self._alone = chain.alone
        self._clock = clock
        self._mint = mint
        self._workers = workers
        self._leases: dict[Checks, Lease] = {}
        self._seen: dict[Checks, int] = {}  # requests of this turn that no lease is held for
        self._held: dict[str, int] = {}  # units leased, by counter
        self._returns = Returns(chain.store, clock, mint)
        self._remains = Remains()
        self._hand = self._remains.hand
        self._swept_us = clock.mono_us()
        self.asked = 0

    @property
    def units(self) -> int:
        """Units in hand, of each lease those of the limit that it has most of. Lost if this worker is killed."""
        return sum(lease.units * max(lease.costs) for lease in self._leases.values())

    @property
    def owed(self) -> int:
        """Returns and corrections that the store has not taken yet."""
        return len(self._returns)

    @property
    def outstanding(self) -> int:
        """Leases in hand or on their way, and what is owed: 0 once a `recall` has come through."""
        return len(self._leases) + len(self._returns)

    @property
    def lost(self) -> int:
        """Returns and corrections that it never took."""
        return self._returns.lost

    def inherit(self, remains: Remains) -> None:
        """Give back what a killed predecessor had in hand, and keep there what this worker has. Before all else."""
        self._remains, self._hand = remains, remains.hand
        now_us = self._clock.now_us()
        for left in remains.take(now_us):
            self._returns.late(left.id, left.checks, left.truth, now_us - left.sent_us)

    def spend(self, id: bytes, checks: Checks) -> Decision | None:
        lease = self._leases.get(checks)
        if lease is None or not lease.units or id >= lease.until:
            return None
        lease.units -= 1
        self._hand[lease.place] = lease.units
        left = lease.left = [lease.left[i] - cost for i, cost in enumerate(lease.costs)]
        return Decision(lease.leased, lease.now_us, left, lease.reset_us, -1, (), "leased")

    def reserve(self, id: bytes, checks: Checks, done: Done) -> None:
        decision = self.spend(id, checks)
        if decision is not None:
            done(decision)
            return
        lease = self._leases.get(checks)
        if lease is None:
            self._seen[checks] = self._seen.get(checks, 0) + 1
            self._exact.reserve(id, checks, done)
        else:
            self._ask(id, lease, done)

    def force(self, id: bytes, checks: Checks, done: Done) -> None:
        self._exact.force(id, checks, done)

    def settle(
        self, id: bytes, checks: Checks, truth: Sequence[int], failed: Callable[[StoreError], None] | None = None
    ) -> None:
        """Where it was leased and nothing was used, the unit is there for the next; any other difference is told.

        Where more was used than asked for, the costs are estimates, and leases by them would be worth nothing.
        """
        lease: Lease | None = checks.lease
        if lease is None:
            self._exact.settle(id, checks, truth, failed)
            return
        if lease.id and id > lease.id and not any(truth):
            lease.units += 1
            self._hand[lease.place] = lease.units
            lease.level += 1
            lease.left = [*map(add, lease.left, lease.costs)]
            lease.date(lease.units)
            return
        owed = tuple(map(sub, truth, checks.costs))
        if max(owed) > 0:
            lease.rest = REST
        self._returns.correct(lease, owed)

    # Who finds no unit.

    def _ask(self, id: bytes, lease: Lease, done: Done) -> None:
        if lease.waiting is not None:
            lease.waiting.append((id, done))
            return
        if lease.units:
            lease.date(lease.units)
            if id < lease.until:
                self.reserve(id, lease.checks, done)
                return
        now_us = self._clock.now_us()
        units, costs = self._size(lease, now_us)
        if units:
            lease.waiting = deque([(id, done)])
            self._lease(lease, units, costs, now_us)
        else:
            lease.asked += 1
            self._exact.reserve(id, lease.checks, partial(self._learn, lease, done))

    def _size(self, lease: Lease, now_us: int) -> _Size:
        """How many requests to lease for, and the costs; 0 where each is to be asked for by itself."""
        known, checks = lease.known, lease.checks
        if known is None or lease.rest or lease.demand < LEAST:
            return _NONE
        self._end(lease, now_us)
        demand = lease.demand * max(0, min(HORIZON_US, checks.until_us - now_us)) // HORIZON_US
        held = [self._held.get(keys[0], 0) for keys in checks.keys]
        size = sized(checks, demand, known, now_us - lease.known_us, held, self._workers)
        if not size[0]:
            lease.rest = 1  # a flood of who is over a limit is not to pay for this each time
        return size

    def _learn(self, lease: Lease, done: Done, said: Decision | StoreError) -> None:
        """What a lease may be is known from what the store last said, if it spoke of these windows."""
        exact = isinstance(said, Decision) and said.mode == "exact" and said.checks is lease.checks
        lease.learn(said if exact else None, self._clock.now_us())  # type: ignore[arg-type] # exact: a Decision
        done(said)

    # A lease on its way.

    def _lease(self, lease: Lease, units: int, costs: tuple[int, ...], now_us: int) -> None:
        self.asked += 1
        id_, checks = self._mint(), lease.of(costs)
        self._remains.write(lease.place, id_, checks, (lease.costs, (), now_us))
        self._hand[lease.place] = units
        self._store.reserve(id_, checks, partial(self._replied, lease, (id_, units, now_us), checks))

    def _replied(self, lease: Lease, sent: tuple[bytes, int, int], checks: Checks, said: Decision | StoreError) -> None:
        id_, units, sent_us = sent
        waiting, count = lease.waiting or deque(), len(lease.waiting or ())
        self._hand[lease.place] = 0
        if isinstance(said, StoreError):
            self._failed(lease, id_, checks, said)
            return
        if said.checks is checks:
            lease.learn(said, sent_us)
            if said.allowed:
                self._hold(said.checks)
                lease.take(id_, units, sent_us, said)
                self._remains.write(lease.place, id_, checks, (lease.costs, said.reset_us, sent_us))
                if self._clock.now_us() < lease.until_us:
                    lease.units += self._serve(lease, units, waiting)
                    self._hand[lease.place] = lease.units
                else:  # it was so long on its way that it is over
                    lease.units = units
                    self._end(lease, self._clock.now_us())
        else:  # another window by the store's clock than by ours: what was leased there is of no use here
            lease.learn(None, sent_us)
            if said.allowed:
                self._returns.settle(id_, said.checks, (0,) * len(checks.costs))
        lease.waiting = None
        if len(waiting) >= count:
            lease.rest = max(lease.rest, 1)  # it was of no use: no other before the next turn
        while waiting:
            self._ask(waiting[0][0], lease, waiting.popleft()[1])

    def _failed(self, lease: Lease, id_: bytes, checks: Checks, error: StoreError) -> None:
        """Nobody waits a second time for a store that has just not answered."""
        if error.maybe_applied:
            self._returns.settle(id_, checks, (0,) * len(checks.costs))
        waiting, lease.waiting, lease.rest = lease.waiting or (), None, REST
        lease.learn(None, 0)
        for asked, done in waiting:
            self._alone(asked, lease.checks, done)

    def _serve(self, lease: Lease, units: int, waiting: deque[tuple[bytes, Done]]) -> int:
        """Answer those who waited, in their order; who comes meanwhile waits behind them. The units that are left."""
        while units and waiting and waiting[0][0] < lease.until:
            done = waiting.popleft()[1]
            units -= 1
            self._hand[lease.place] = units
            left = lease.left = [*map(sub, lease.left, lease.costs)]
            done(Decision(lease.leased, lease.now_us, left, lease.reset_us, -1, (), "leased"))
        return units

    # The end of a lease.

    def _end(self, lease: Lease, now_us: int) -> None:
        """Let go what is in hand of the last lease: what is left of it goes back."""
        if lease.said is not None:
            self._let_go(lease.said.checks)
            self._hand[lease.place] = 0
            unspent = lease.end(now_us)
            if unspent is not None:
                self._returns.settle(*unspent)

    def _forget(self, lease: Lease, now_us: int) -> None:
        self._end(lease, now_us)
        self._remains.free(lease.place)
        del self._leases[lease.checks]

    def _hold(self, checks: Checks) -> None:
        for keys, cost in zip(checks.keys, checks.costs, strict=True):
            self._held[keys[0]] = self._held.get(keys[0], 0) + cost

    def _let_go(self, checks: Checks) -> None:
        for keys, cost in zip(checks.keys, checks.costs, strict=True):
            left = self._held.pop(keys[0]) - cost
            if left:
                self._held[keys[0]] = left

    def sweep(self) -> None:
        """The turn of a wheel: weigh demand, give back what lies idle, tell what is owed."""
        mono_us, now_us = self._clock.mono_us(), self._clock.now_us()
        passed_us, self._swept_us = mono_us - self._swept_us, mono_us
        if passed_us > 0:
            for lease in [*self._leases.values()]:
                self._weigh(lease, passed_us, now_us)
            seen, self._seen = self._seen, {}
            for checks, count in seen.items():
                demand = count * HORIZON_US // passed_us
                if demand >= LEAST and leasable(checks):
                    self._leases[checks] = Lease(checks, demand, self._remains.place())
        self._returns.pay()

    def _weigh(self, lease: Lease, passed_us: int, now_us: int) -> None:
        used = lease.weigh(passed_us)
        if lease.units and lease.idle(used, now_us):
            self._end(lease, now_us)
        if not lease.units and lease.waiting is None and lease.demand < LEAST:
            self._forget(lease, now_us)

    def recall(self) -> None:
        """Give back all that is in hand, and tell all that is owed."""
        now_us = self._clock.now_us()
        for lease in [*self._leases.values()]:
            if lease.units:
                self._end(lease, now_us)
                self._returns.confirm(lease)
            if lease.waiting is None:
                self._forget(lease, now_us)
        self._returns.pay()
