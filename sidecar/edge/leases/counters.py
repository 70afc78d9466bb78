"""Leases: callers with steady demand are served from units that this worker has reserved in advance.

A decision by the store costs a round trip to Redis. A worker that expects more requests of the same caller reserves
units for all of them in one command, a lease, and then decides those requests from memory. The limit cannot be
exceeded, because leased units are in the store's counter already. core/decision/lease.py says how many units may be
leased and for how long; this module requests, spends and ends leases.

The life of a lease, for one `Checks` (the limits of a caller on a route):

1. Demand. Requests without a lease are decided by the store and counted. `adjust` ends a turn of about 100 ms: if the
   demand is LEAST requests per 100 ms or more, a `Lease` object without units is made.
2. Request. The next request finds no unit. If the remaining units are known from an earlier decision, it sends a
   reserve for `units` requests, and waits for the reply; so do the requests that arrive meanwhile.
3. Spending. `try_local` takes one unit per request, until there are no more or the lease has expired. Ids contain the
   arrival time of their request, so that comparing an id with `lease.until` is enough to check the expiry.
4. End. If the lease is idle, expired or recalled, its reservation is settled with the spent units, so the store's
   counter falls by the rest. A successor of a killed worker does the same for the leases in shared memory.

Example, of a quota with enough units left: a caller sends 200 requests a second, so its demand in 100 ms is 20. One
reserve of 20 units is sent, and the next 20 requests are decided here. If the caller stops after 12, the lease is
settled with 12 units once it is idle, and the counter falls by 8.

`Leases` implements the `Counters` port, in front of all others but the guard after a loss of the store's data.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from operator import add, sub
from typing import Final, NamedTuple

from sidecar.core.decision import Decision
from sidecar.core.decision.lease import HORIZON_US, LEAST, leasable, sized
from sidecar.core.errors import StoreError
from sidecar.core.limits import Checks
from sidecar.edge.leases.lease import Done, Lease, LeasedChecks
from sidecar.edge.leases.returns import Drifted, Returns, nobody_counts
from sidecar.edge.leases.shared_table import SharedLeaseTable
from sidecar.ports import Clock, Counters, CountersWrapper

REST: Final = 10  # turns without a lease after one that failed, or after an exchange that used more than its costs

_Size = tuple[int, tuple[int, ...]]
_NONE: Final[_Size] = (0, ())


class Chain(NamedTuple):
    """The counters behind leases: `exact` decides single requests, `store` grants leases.

    `decide_locally` decides requests that waited for a lease when the store did not answer. `drifted` gets each settle
    that the store never applied.
    """

    exact: Counters
    store: Counters
    decide_locally: Callable[[bytes, Checks, Done], None]
    drifted: Drifted = nobody_counts


class Leases(CountersWrapper):
    """Wraps the exact counters of one of `workers`. Call `adjust` ten times a second.

    Plain integers: `requested` (leases requested from the store), `units`, `owed`, `lost`. `recall` returns all units,
    before a stop and when the policy changes.
    """

    def __init__(self, chain: Chain, clock: Clock, mint: Callable[[], bytes], workers: int = 1) -> None:
        super().__init__(chain.exact)
        self._store = chain.store
        self._decide_locally = chain.decide_locally
        self._clock = clock
        self._mint = mint
        self._workers = workers
        self._leases: dict[Checks, Lease] = {}
        self._seen: dict[Checks, int] = {}  # requests of this turn without a lease
        self._held: dict[str, int] = {}  # units leased, by counter
        self._returns = Returns(chain.store, clock, mint, chain.drifted)
        self._table = SharedLeaseTable()
        self._units = self._table.units
        self._adjusted_us = clock.mono_us()
        self.requested = 0

    @property
    def units(self) -> int:
        """Leased units that are not spent yet; of each lease those of the limit with the highest cost."""
        return sum(lease.units * max(lease.costs) for lease in self._leases.values())

    @property
    def owed(self) -> int:
        """Returns and corrections that the store has not applied yet."""
        return len(self._returns)

    @property
    def unsettled(self) -> int:
        """Settles that the store did not take so far."""
        return self._returns.refused

    @property
    def outstanding(self) -> int:
        """Leases (also requested ones) and settles that wait; 0 once a `recall` is complete."""
        return len(self._leases) + len(self._returns)

    @property
    def lost(self) -> int:
        """Returns and corrections that the store never applied."""
        return self._returns.lost

    def adopt(self, table: SharedLeaseTable) -> None:
        """Return the leases of a killed predecessor, and use its table. Call it before the first request."""
        self._table, self._units = table, table.units
        now_us = self._clock.now_us()
        for orphan in table.claim_orphans(now_us):
            self._returns.late(orphan.id, orphan.checks, orphan.actual, now_us - orphan.sent_us)

    def try_local(self, id: bytes, checks: Checks) -> Decision | None:
        lease = self._leases.get(checks)
        if lease is None or not lease.units or id >= lease.until:
            return None
        lease.units -= 1
        self._units[lease.place] = lease.units
        left = lease.left = [lease.left[i] - cost for i, cost in enumerate(lease.costs)]
        return Decision(lease.leased, lease.now_us, left, lease.reset_us, 0, "leased")

    def reserve(self, id: bytes, checks: Checks, done: Done) -> None:
        decision = self.try_local(id, checks)
        if decision is not None:
            done(decision)
            return
        lease = self._leases.get(checks)
        if lease is None:
            self._seen[checks] = self._seen.get(checks, 0) + 1
            self._inner.reserve(id, checks, done)
        else:
            self._request(id, lease, done)

    def settle(
        self, id: bytes, checks: Checks, actual: Sequence[int], failed: Callable[[StoreError], None] | None = None
    ) -> None:
        """Settle a leased exchange. If it used nothing, its unit is for the next request; other differences are sent.

        If more was used than reserved, the costs are estimates, and no lease is requested for REST turns.
        """
        if not isinstance(checks, LeasedChecks):
            self._inner.settle(id, checks, actual, failed)
            return
        lease = checks.lease
        if lease.id and id > lease.id and not any(actual):
            lease.units += 1
            self._units[lease.place] = lease.units
            lease.level += 1
            lease.left = [*map(add, lease.left, lease.costs)]
            lease.date(lease.units)
            return
        difference = tuple(map(sub, actual, checks.costs))
        if max(difference) > 0:
            lease.rest = REST
        self._returns.correct(id, lease, difference)

    # Requests without a leased unit.

    def _request(self, id: bytes, lease: Lease, done: Done) -> None:
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
            lease.exact += 1
            self._inner.reserve(id, lease.checks, partial(self._learn, lease, done))

    def _size(self, lease: Lease, now_us: int) -> _Size:
        """The number of requests to lease for, and their costs; 0: the store decides each request."""
        known, checks = lease.known, lease.checks
        if known is None or lease.rest or lease.demand < LEAST:
            return _NONE
        self._end(lease, now_us)
        demand = lease.demand * max(0, min(HORIZON_US, checks.until_us - now_us)) // HORIZON_US
        held = [self._held.get(keys[0], 0) for keys in checks.keys]
        size = sized(checks, demand, known, now_us - lease.known_us, held, self._workers)
        if not size[0]:
            lease.rest = 1  # so that a flood over a limit does not repeat this work for each request
        return size

    def _learn(self, lease: Lease, done: Done, outcome: Decision | StoreError) -> None:
        """Store the decision: the size of the next lease depends on the last decision for the same windows."""
        exact = isinstance(outcome, Decision) and outcome.mode == "exact" and outcome.checks is lease.checks
        lease.learn(outcome if exact else None, self._clock.now_us())  # type: ignore[arg-type] # exact: a Decision
        done(outcome)

    # The request of a lease.

    def _lease(self, lease: Lease, units: int, costs: tuple[int, ...], now_us: int) -> None:
        self.requested += 1
        id_, checks = self._mint(), lease.of(costs)
        self._table.write(lease.place, id_, checks, (lease.costs, (), now_us))
        self._units[lease.place] = units
        self._store.reserve(id_, checks, partial(self._replied, lease, (id_, units, now_us), checks))

    def _replied(
        self, lease: Lease, sent: tuple[bytes, int, int], checks: Checks, outcome: Decision | StoreError
    ) -> None:
        id_, units, sent_us = sent
        waiting, count = lease.waiting or deque(), len(lease.waiting or ())
        self._units[lease.place] = 0
        if isinstance(outcome, StoreError):
            self._failed(lease, id_, checks, outcome)
            return
        if outcome.checks is checks:
            lease.learn(outcome, sent_us)
            if outcome.allowed:
                self._add(outcome.checks)
                lease.take(id_, units, sent_us, outcome)
                self._table.write(lease.place, id_, checks, (lease.costs, outcome.reset_us, sent_us))
                if self._clock.now_us() < lease.until_us:
                    self._serve(lease, units, waiting)
                else:  # the reply took so long that the lease is over
                    lease.units = units
                    self._end(lease, self._clock.now_us())
        else:  # the store's clock is in another window than ours, so these units cannot be spent here
            lease.learn(None, sent_us)
            if outcome.allowed:
                self._returns.settle(id_, outcome.checks, (0,) * len(checks.costs))
        lease.waiting = None
        if len(waiting) >= count:
            lease.rest = max(lease.rest, 1)  # it served no request: no other lease before the next turn
        while waiting:
            self._request(waiting[0][0], lease, waiting.popleft()[1])

    def _failed(self, lease: Lease, id_: bytes, checks: Checks, error: StoreError) -> None:
        """Decide the waiting requests locally, so that none of them waits again for a store that has just failed."""
        if error.maybe_applied:
            self._returns.settle(id_, checks, (0,) * len(checks.costs))
        waiting, lease.waiting, lease.rest = lease.waiting or (), None, REST
        lease.learn(None, 0)
        for waiting_id, done in waiting:
            self._decide_locally(waiting_id, lease.checks, done)

    def _serve(self, lease: Lease, units: int, waiting: deque[tuple[bytes, Done]]) -> None:
        """Answer the waiting requests from `units`, in order; requests that arrive meanwhile wait behind them.

        An exchange that ends inside `done` may return its unit to `lease.units`, so the rest of `units` is added at the
        end.
        """
        while units and waiting and waiting[0][0] < lease.until:
            done = waiting.popleft()[1]
            units -= 1
            self._units[lease.place] = units + lease.units
            left = lease.left = [*map(sub, lease.left, lease.costs)]
            done(Decision(lease.leased, lease.now_us, left, lease.reset_us, 0, "leased"))
        lease.units += units
        self._units[lease.place] = lease.units
        lease.date(lease.units)

    # The end of a lease.

    def _end(self, lease: Lease, now_us: int) -> None:
        """End the granted lease and return its unspent units."""
        if lease.granted is not None:
            self._subtract(lease.granted.checks)
            self._units[lease.place] = 0
            unspent = lease.end(now_us)
            if unspent is not None:
                self._returns.settle(*unspent)

    def _forget(self, lease: Lease, now_us: int) -> None:
        self._end(lease, now_us)
        self._table.free(lease.place)
        del self._leases[lease.checks]

    def _add(self, checks: Checks) -> None:
        for keys, cost in zip(checks.keys, checks.costs, strict=True):
            self._held[keys[0]] = self._held.get(keys[0], 0) + cost

    def _subtract(self, checks: Checks) -> None:
        for keys, cost in zip(checks.keys, checks.costs, strict=True):
            left = self._held.pop(keys[0]) - cost
            if left:
                self._held[keys[0]] = left

    def adjust(self) -> None:
        """End a turn: update the demand, return idle units, and send the settles that wait."""
        mono_us, now_us = self._clock.mono_us(), self._clock.now_us()
        passed_us, self._adjusted_us = mono_us - self._adjusted_us, mono_us
        if passed_us > 0:
            for lease in [*self._leases.values()]:
                self._weigh(lease, passed_us, now_us)
            seen, self._seen = self._seen, {}
            for checks, count in seen.items():
                demand = count * HORIZON_US // passed_us
                if demand >= LEAST and leasable(checks):
                    self._leases[checks] = Lease(checks, demand, self._table.place())
        self._returns.pay()

    def _weigh(self, lease: Lease, passed_us: int, now_us: int) -> None:
        used = lease.weigh(passed_us)
        if lease.units and lease.idle(used, now_us):
            self._end(lease, now_us)
        if not lease.units and lease.waiting is None and lease.demand < LEAST:
            self._forget(lease, now_us)

    def recall(self) -> None:
        """Return all units, and send all settles that wait."""
        now_us = self._clock.now_us()
        for lease in [*self._leases.values()]:
            if lease.units:
                self._end(lease, now_us)
                self._returns.confirm(lease)
            if lease.waiting is None:
                self._forget(lease, now_us)
        self._returns.pay()
