"""The stores of one worker: API keys, and counters with all that wraps them. In memory, or on one Redis for both.

The counters are a chain of ports, each of which is the port: what is leased is spent without asking, denials are
remembered, an outage is decided alone, a failing store is not asked, and innermost Redis answers. In memory nothing can
be away, so nothing wraps it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode

from sidecar.app.children import Link
from sidecar.app.probe import Figures
from sidecar.core.identity import Identity
from sidecar.edge.breaker import Breaker
from sidecar.edge.degraded import Degraded
from sidecar.edge.denials import Denials
from sidecar.edge.file_keys import FileKeys
from sidecar.edge.key_cache import CacheBounds, KeyCache
from sidecar.edge.leases import Chain, Leases, Remains
from sidecar.edge.memory_alerts import MemoryAlerts
from sidecar.edge.memory_counters import MemoryCounters
from sidecar.edge.memory_retries import MemoryRetries
from sidecar.edge.redis_alerts import RedisAlerts
from sidecar.edge.redis_counters import RedisCounters
from sidecar.edge.redis_keys import RedisKeys, connect, disconnect
from sidecar.edge.redis_retries import RedisRetries
from sidecar.edge.redis_topology import Wire, wire
from sidecar.edge.redis_wire import RedisWire, WireOptions, WireStats
from sidecar.ports import Clock, Commands, Counters, Keys, Retries

if TYPE_CHECKING:
    from sidecar.config.sections import Redis
    from sidecar.config.settings import Settings

REDIS_KEYS_TIMEOUT_S = 1.0  # a look-up behind the cache may wait longer than a decision
SETTLE_UP_S = 0.02
REACH_LOOKS, REACH_LOOK_S = 100, 0.005  # how long a start waits for the first connection: it would have to decide alone
MS = 1_000


class StoreFigures(NamedTuple):
    """By the names of `control.metrics`."""

    counts: dict[str, int]
    gauges: dict[str, int]


class CounterStore:
    """The counters of a worker, with what is kept beside them: first attempts and told alerts.

    On Redis there are the parts that metrics and readiness look at.
    """

    def __init__(self, settings: Settings, clock: Clock, mint: Callable[[], bytes]) -> None:
        self.wire: Wire | None = None
        self.stats = WireStats()
        self.breaker: Breaker | None = None
        self.degraded: Degraded | None = None
        self.leases: Leases | None = None
        memory = MemoryCounters(clock)
        self.port: Counters = memory
        self.retries: Retries = MemoryRetries(clock)
        self.alerts: MemoryAlerts | RedisAlerts = MemoryAlerts(clock)
        if settings.redis is not None:
            self.port = self._on_redis(settings.redis, memory, clock, mint, settings.sharers)

    def _on_redis(
        self, redis: Redis, memory: MemoryCounters, clock: Clock, mint: Callable[[], bytes], sharers: int
    ) -> Counters:
        options = WireOptions(timeout_us=redis.timeout_ms * MS)
        self.wire = wire(
            redis_url(redis),
            lambda connect: RedisWire(connect, clock, options, self.stats),
            connect_us=redis.connect_timeout_ms * MS,
        )
        self.breaker = Breaker(
            RedisCounters(self.wire, clock),
            clock,
            failures=redis.breaker_failures,
            pause_us=redis.breaker_open_ms * MS,
        )
        self.degraded = Degraded(self.breaker, memory, clock, mint, sharers)
        self._beside(self.wire, self.breaker, clock)
        exact = Denials(self.degraded, clock)
        if not redis.leases:
            return exact
        self.leases = Leases(Chain(exact, self.breaker, self.degraded.alone), clock, mint, sharers)
        return self.leases

    def _beside(self, commands: Commands, breaker: Breaker, clock: Clock) -> None:
        """What lies beside the counters goes by their breaker: only they probe a store that has failed."""
        self.retries = RedisRetries(commands, lambda: breaker.is_open)
        self.alerts = RedisAlerts(MemoryAlerts(clock), commands, clock, lambda: breaker.is_open)

    @property
    def degraded_s(self) -> int:
        """Whole seconds in which the store did not answer."""
        return self.degraded.degraded_seconds if self.degraded is not None else 0

    def figures(self) -> StoreFigures:
        """What metrics show of the store."""
        degraded, breaker, stats = self.degraded, self.breaker, self.stats
        if degraded is None or breaker is None:
            return StoreFigures({}, {})
        counts = {
            "degraded": degraded.allowed + degraded.denied,
            "degraded_us": degraded.degraded_seconds * 1_000_000,
            "store_failures": stats.timeouts + stats.errors + stats.refused,
            "debts_paid": degraded.paid,
            "debts_lost": degraded.lost,
        }
        gauges = {"breakers_open": int(breaker.is_open)}
        if self.leases is not None:
            counts |= {"leases": self.leases.asked, "leases_lost": self.leases.lost}
            gauges["leased_units"] = self.leases.units
        return StoreFigures(counts, gauges)

    def start(self, hand: int = -1) -> None:
        """Begin to connect; give back what a killed predecessor kept in the memory behind the descriptor `hand`."""
        if self.wire is not None:
            self.wire.start()
        if self.leases is not None and hand >= 0:
            self.leases.inherit(Remains.shared(hand))

    async def reached(self) -> None:
        """Wait for the first connection, but not for long: a store that is away must not hold a start up."""
        for _ in range(REACH_LOOKS):
            if self.wire is None or self.wire.ready:
                return
            await asyncio.sleep(REACH_LOOK_S)

    def tick(self, link: Link) -> None:
        """Once a second: pay debts where no traffic does, and tell the supervisor whether Redis answers."""
        self.alerts.tick()
        if self.degraded is not None:
            self.degraded.tick()
        if self.wire is not None:
            link.back("redis") if self.wire.ready else link.away("redis", "no connection to redis.url")

    def sweep(self) -> None:
        """Ten times a second: lease by demand, and give back what lies idle."""
        if self.leases is not None:
            self.leases.sweep()

    def recall(self) -> None:
        """Give back what is leased: another policy is in force, or the end has come."""
        if self.leases is not None:
            self.leases.recall()

    async def settle_up(self) -> None:
        """Tell Redis what it is still owed; ends when nothing is owed. To be bounded by whoever waits for it."""
        self.recall()
        while self.degraded is not None and (
            self.degraded.owed or (self.leases is not None and self.leases.outstanding)
        ):
            self.degraded.tick()
            self.recall()
            await asyncio.sleep(SETTLE_UP_S)

    async def aclose(self) -> None:
        if self.wire is not None:
            await self.wire.aclose()


class KeyStore:
    """The API keys of a worker, cached."""

    def __init__(self, settings: Settings, clock: Clock, figures: Figures) -> None:
        keys = settings.keys
        self._file: FileKeys | None = None
        self._redis: RedisKeys | None = None
        self._client = None
        self._watch: asyncio.Task[None] | None = None
        if keys.file is not None:
            self._file = FileKeys(keys.file, clock)
            store: Keys = self._file
        else:
            assert settings.redis is not None  # noqa: S101 - settings refuse the other case
            self._client = connect(settings.redis.endpoint, REDIS_KEYS_TIMEOUT_S, redis_tls(settings.redis))
            store = self._redis = RedisKeys(self._client, clock, REDIS_KEYS_TIMEOUT_S)
        bounds = CacheBounds(
            known=keys.cache_size, ttl_us=keys.cache_ttl_ms * MS, unknown_ttl_us=keys.unknown_ttl_ms * MS
        )
        self.port = KeyCache(store, clock, figures, bounds)

    def start(self) -> None:
        """Begin to listen for revocations."""
        if self._redis is not None:
            self._watch = asyncio.get_running_loop().create_task(self._redis.watch(self._changed), name="keys watch")

    def _changed(self, digest: bytes | None) -> None:
        self.port.clear() if digest is None else self.port.forget(digest)

    def read(self) -> dict[bytes, Identity]:
        """The keys of the file as it is now, {} without one; may be called in a thread. PolicyError: it is wrong."""
        return self._file.read() if self._file is not None else {}

    def put_in_force(self, keys: dict[bytes, Identity]) -> None:
        """Take what `read` gave in place of what was known."""
        if self._file is not None:
            self._file.put_in_force(keys)
            self.port.clear()

    async def aclose(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait({self._watch})
        if self._redis is not None and self._client is not None:
            await self._redis.close()
            await disconnect(self._client)


def redis_tls(redis: Redis) -> dict[str, object]:
    """redis-py's own arguments for `redis.tls`."""
    tls = redis.tls
    found: dict[str, object] = {} if tls.verify else {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    for name, path in (("ssl_ca_certs", tls.ca), ("ssl_certfile", tls.cert), ("ssl_keyfile", tls.key)):
        if path is not None:
            found[name] = str(path)
    return found


def redis_url(redis: Redis) -> str:
    """`redis.url` with `redis.tls` in its query, where redis-py reads it."""
    more = {name: str(value) for name, value in redis_tls(redis).items()}
    if not more or not redis.endpoint.tls:
        return redis.url
    return redis.url + ("&" if "?" in redis.url else "?") + urlencode(more)
