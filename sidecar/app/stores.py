"""The counters of one worker with their decorators, in memory or on Redis. `key_store` has the API keys.

The counters on Redis are a chain of decorators, outermost first: Leases decide from leased units, Denials repeats
recent denials, Degraded decides locally during an outage, Breaker stops calls to a failing store, RedisCounters calls
Redis. Counters in memory have no outages, so they have no decorators.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sidecar.core.policy import Policy
from sidecar.core.words import counted
from sidecar.edge.admission.breaker import Breaker
from sidecar.edge.admission.denials import Denials
from sidecar.edge.admission.drift import Drift
from sidecar.edge.admission.loss_guard import LossGuard
from sidecar.edge.admission.loss_report import LossReport
from sidecar.edge.degraded import Degraded, Ledger, outage_file
from sidecar.edge.journal import Ended
from sidecar.edge.journal.unsettled import unsettled
from sidecar.edge.leases import Chain, Leases, SharedLeaseTable
from sidecar.edge.memory.alerts import MemoryAlerts
from sidecar.edge.memory.counters import MemoryCounters
from sidecar.edge.memory.peeks import MemoryPeeks
from sidecar.edge.redis.alerts import RedisAlerts
from sidecar.edge.redis.counters import RedisCounters
from sidecar.edge.redis.markers import RedisMarkers
from sidecar.edge.redis.peeks import RedisPeeks
from sidecar.edge.redis.retries import RedisRetries
from sidecar.edge.redis.topology import Wire, wire
from sidecar.edge.redis.wire import RedisWire, WireOptions, WireStats
from sidecar.embedded.state import EmbeddedState
from sidecar.gateway import exchanges_due
from sidecar.ports import Clock, Commands, Counters, Exchange, Peeks, Retries
from sidecar.supervisor.link import Link

if TYPE_CHECKING:
    from sidecar.config.sections import Redis
    from sidecar.config.settings import Settings
    from sidecar.embedded.state import Note

SETTLE_UP_S = 0.02
# A start waits this long for the first connection; without one it decides locally.
CONNECT_ATTEMPTS, CONNECT_INTERVAL_S = 100, 0.005
PERMITTED_TICKS = 10
MS = 1_000
log = logging.getLogger("sidecar.stores")


class StoreFigures(NamedTuple):
    """Figures by their names in `control.metrics`."""

    counts: dict[str, int]
    gauges: dict[str, int]


class CounterStore:
    """The counters of a worker, and the two stores beside them: first attempts of retries, and sent alerts.

    `wire`, `redis`, `breaker`, `degraded`, `markers` and `leases` are None where the counters are in memory.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        mint: Callable[[], bytes],
        index: int,
        note: Note = lambda _body, then: then(True),
    ) -> None:
        self._clock = clock
        self._ledger = Ledger(outage_file(settings.journal.dir, index), settings.workers, settings.total_workers)
        self._extended_us = clock.mono_us()
        self._marker_file = settings.journal.dir / f"store.{index}.json"
        self._forbidden = self._permitted_ticks = 0
        self._plain: Counters | None = None
        self.on_port: Callable[[Counters], None] = lambda _port: None
        self.markers: RedisMarkers | None = None
        self.wire: Wire | None = None
        self.stats = WireStats()
        self.redis: RedisCounters | None = None
        self.breaker: Breaker | None = None
        self.degraded: Degraded | None = None
        self.leases: Leases | None = None
        self.drift = Drift(clock)
        self.loss = LossReport(clock)
        self.embedded = EmbeddedState(clock, note)  # on Redis: the local counters, for outages
        self.port: Counters = self.embedded.counters
        self.peeks: Peeks = MemoryPeeks(self.embedded.counters, clock)
        self.retries: Retries = self.embedded.retries
        self.alerts: MemoryAlerts | RedisAlerts = self.embedded.alerts
        if settings.redis is not None:
            self.port = self._plain = self._on_redis(settings.redis, self.embedded.counters, clock, mint)

    def _on_redis(self, redis: Redis, memory: MemoryCounters, clock: Clock, mint: Callable[[], bytes]) -> Counters:
        options = WireOptions(timeout_us=redis.timeout_ms * MS)
        self.wire = wire(
            redis.endpoint,
            lambda connect: self._with_marker_check(RedisWire(connect, clock, options, self.stats)),
            connect_us=redis.connect_timeout_ms * MS,
        )
        self.markers = RedisMarkers(self.wire, clock, mint, self._marker_file)
        self.markers.changed = self._update_loss_guard
        self.redis = RedisCounters(self.wire, clock)
        self.peeks = RedisPeeks(self.wire)
        self.breaker = Breaker(
            self.redis,
            clock,
            failures=redis.breaker_failures,
            pause_us=redis.breaker_open_ms * MS,
        )
        self.degraded = Degraded(self.breaker, memory, clock, mint, self._ledger, self.drift.count)
        self._use_redis_beside(self.wire, self.breaker, clock)
        exact = Denials(self.degraded, clock)
        if not redis.leases:
            return exact
        chain = Chain(exact, self.breaker, self.degraded.decide_locally, self.drift.count)
        self.leases = Leases(chain, clock, mint, self._ledger.total_workers)
        return self.leases

    def _with_marker_check(self, wire: RedisWire) -> RedisWire:
        wire.connected = lambda: self.markers.check() if self.markers is not None else None
        return wire

    def _update_loss_guard(self) -> None:
        """Redis came back empty, or that loss was accepted: put the guard before all other counters, or remove it."""
        markers = self.markers
        if self._plain is None or markers is None:
            return
        self.recall()  # the counters do not contain the leased units any more
        self.port = LossGuard(self._plain, self._clock, markers.lost_us) if markers.lost else self._plain
        self.on_port(self.port)

    def _use_redis_beside(self, commands: Commands, breaker: Breaker, clock: Clock) -> None:
        """Keep retries and alerts on Redis too. They follow the breaker of the counters, which alone probe it."""
        self.retries = RedisRetries(commands, lambda: breaker.is_open)
        self.alerts = RedisAlerts(MemoryAlerts(clock), commands, clock, lambda: breaker.is_open)

    @property
    def degraded_s(self) -> int:
        """Whole seconds in which the store did not answer."""
        return self.degraded.degraded_seconds if self.degraded is not None else 0

    def figures(self) -> StoreFigures:
        """The figures of the store for metrics."""
        degraded, breaker, stats = self.degraded, self.breaker, self.stats
        if degraded is None or breaker is None:
            return StoreFigures({}, {})
        counts = {
            "degraded": degraded.allowed + degraded.denied,
            "degraded_us": degraded.degraded_seconds * 1_000_000,
            "store_failures": stats.timeouts + stats.errors + stats.refused,
            "store_forbidden": stats.forbidden,
            "debts_paid": degraded.paid,
            "debts_lost": degraded.lost,
            "outage_files_damaged": degraded.damaged,
            "drifted": self.drift.exchanges,
            "store_losses": self.markers.losses if self.markers is not None else 0,
            **{f"drift|{limit}": units for limit, units in self.drift.units.items()},
        }
        gauges = {"breakers_open": int(breaker.is_open)}
        if self.leases is not None:
            counts |= {"leases": self.leases.requested, "leases_lost": self.leases.lost}
            gauges["leased_units"] = self.leases.units
        return StoreFigures(counts, gauges)

    def start(self, lease_fd: int = -1) -> None:
        """Begin to connect, adopt a killed predecessor's outage, and return its leases.

        `lease_fd`: shared memory with the previous worker's leases, or -1.
        """
        if self.degraded is not None:
            self.degraded.adopt()
        if self.wire is not None:
            self.wire.start()
        if self.leases is not None and lease_fd >= 0:
            self.leases.adopt(SharedLeaseTable.shared(lease_fd))

    def settle_again(self, ended: Sequence[Ended], policy: Policy) -> None:
        """Send the settles of a predecessor's records that Redis had not acknowledged."""
        degraded = self.degraded
        if degraded is None or not ended:
            return
        settlements = unsettled(ended, policy)
        now_us = self._clock.now_us()
        for each in settlements:
            age_us = now_us - each.closed_us
            degraded.settle_again(each.id, each.checks, each.actual, age_us)
        degraded.tick()
        if settlements:
            log.info("counters: sent %s of an earlier start again", counted(len(settlements), "settle"))

    def settled(self) -> bool:
        """Whether Redis has answered all settles sent before the last call that returned True. Called once a second."""
        if self.redis is None:
            return True
        return not self._unsettled() and self.redis.end_round()

    @property
    def all_settled(self) -> bool:
        """Whether Redis has answered all settles."""
        return self.redis is None or not (self._unsettled() or self.redis.unanswered)

    def _unsettled(self) -> int:
        debts = self.degraded.owed if self.degraded is not None else 0
        return debts + (self.leases.unsettled if self.leases is not None else 0)

    async def reached(self) -> None:
        """Wait for the first connection, at most half a second: an outage must not delay a start."""
        for _ in range(CONNECT_ATTEMPTS):
            if self.wire is None or self.wire.ready:
                return
            await asyncio.sleep(CONNECT_INTERVAL_S)

    def is_away(self) -> bool:
        """Whether Redis does not answer at present."""
        return self.wire is not None and (not self.wire.ready or (self.breaker is not None and self.breaker.is_open))

    def flush(self) -> None:
        """Write now the commands that this tick has sent to Redis so far."""
        if self.wire is not None:
            self.wire.flush()

    def tick(self, link: Link, policy: Policy) -> None:
        """Once a second: pay debts if no traffic does; report to the supervisor whether Redis answers or was lost."""
        self.alerts.tick()
        if self.degraded is not None:
            self.degraded.tick()
        if self.markers is not None:
            self.markers.check()
            denied, reason = self.loss.denying, self.loss.reason(policy, self.markers.latest_us)
            if reason:
                link.away("counters", reason)
            elif denied:
                link.back("counters")
        if self.wire is not None:
            away = self.wire.away.removeprefix("redis: ")
            link.back("redis") if self.wire.ready else link.away("redis", away or "no connection to redis.url")
            self._report_permissions(link)

    def _report_permissions(self, link: Link) -> None:
        """Report that the user of redis.url lacks a permission: then limits are decided locally while Redis answers.

        It has the permission again once the last call succeeded, and nothing was refused for some ticks.
        """
        stats = self.stats
        if stats.forbidden != self._forbidden:
            self._forbidden, self._permitted_ticks = stats.forbidden, 0
            text = f"its user may not do what limits need, so they are decided locally: {stats.forbidden_last}"
            link.away("redis permissions", text)
        elif self._forbidden and self.breaker is not None and not self.breaker.failing:
            self._permitted_ticks += 1
            if self._permitted_ticks >= PERMITTED_TICKS:
                link.back("redis permissions")

    def extend(self, exchanges: Sequence[Exchange]) -> None:
        """Extend the slots, holds and marks of open exchanges before they expire. Called twice a second."""
        mono_us, since_us = self._clock.mono_us(), self._extended_us
        self._extended_us = mono_us
        if due := exchanges_due(exchanges, mono_us, mono_us - since_us):
            self.port.extend(due)

    def adjust_leases(self) -> None:
        """Ten times a second: lease by demand, and return idle units."""
        if self.leases is not None:
            self.leases.adjust()

    def recall(self) -> None:
        """Return all leased units: the policy has changed, or this worker ends."""
        if self.leases is not None:
            self.leases.recall()

    async def settle_up(self) -> None:
        """Send all debts and leases back to Redis. Returns when none is left: the caller sets a timeout."""
        self.recall()
        while self.degraded is not None and (
            self.degraded.owed or (self.leases is not None and self.leases.outstanding)
        ):
            self.degraded.tick()
            self.recall()
            await asyncio.sleep(SETTLE_UP_S)

    async def aclose(self) -> None:
        self._ledger.close()
        if self.wire is not None:
            await self.wire.aclose()
