"""What the tests of keys in Redis share: look-ups as a worker makes them, beside the registry that changes keys."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import NamedTuple

from sidecar import ports
from sidecar.config.addresses import RedisEndpoint, parse_redis_url
from sidecar.core.identity import KeyRecord, digest, stored
from sidecar.edge.admission.breaker import Breaker
from sidecar.edge.clock import SystemClock
from sidecar.edge.keys.key_cache import KeyCache
from sidecar.edge.memory.counters import MemoryCounters
from sidecar.edge.redis.endpoint import connect, disconnect
from sidecar.edge.redis.key_registry import KeyRegistry
from sidecar.edge.redis.keys import RedisKeys
from sidecar.edge.redis.revocations import Revocations
from sidecar.edge.redis.topology import wire
from sidecar.edge.redis.wire import RedisWire, WireOptions
from tests.servers import talk

PREFIX = "sc:"


class Probe(ports.Probe):
    def count(self, name: str) -> None: ...
    def answered(self, route, status, total_us, upstream_us): ...
    def denied(self, limit, *, shadow): ...


def record(name: str, **more) -> KeyRecord:
    return KeyRecord(name, stored(digest(name.encode())), "c", "s", "p", **more)


async def found(keys, credential: str):
    answer = asyncio.get_running_loop().create_future()
    keys.find(digest(credential.encode()), answer.set_result)
    return await asyncio.wait_for(answer, 5)


async def until(condition, seconds: float = 5.0) -> float:
    """Wait for the condition; how long it took, in seconds."""
    start = time.monotonic()
    while not await condition():
        assert time.monotonic() - start < seconds, "it never came"
        await asyncio.sleep(0.002)
    return time.monotonic() - start


class Watched(NamedTuple):
    find: Callable[..., None]
    ready: asyncio.Event


class Worker(NamedTuple):
    """`find` goes by the wire and a breaker; the others use redis-py."""

    keys: RedisKeys
    registry: KeyRegistry
    channel: Revocations
    wire: RedisWire
    breaker: Breaker

    @property
    def find(self):
        return self.keys.find


@contextlib.asynccontextmanager
async def opened(endpoint: RedisEndpoint, timeout_s: float = 2.0):
    client = connect(endpoint, 2.0)
    options = WireOptions(timeout_us=int(timeout_s * 1e6), backoff_cap_us=50_000)
    store = wire(endpoint, lambda dial: RedisWire(dial, SystemClock(), options))
    breaker = Breaker(MemoryCounters(SystemClock()), SystemClock(), failures=3, pause_us=100_000)
    store.start()
    await talk.until(lambda: store.ready, "the connection")
    try:
        yield Worker(
            RedisKeys(store, breaker.ask, SystemClock()), KeyRegistry(client), Revocations(client), store, breaker
        )
    finally:
        await store.aclose()
        await disconnect(client)


@contextlib.asynccontextmanager
async def watched(endpoint: RedisEndpoint):
    """A worker's view: a cache over connections of its own that hears of changes. `ready` is set with each clear."""
    async with opened(endpoint) as worker:
        cache = KeyCache(worker.keys, SystemClock(), Probe())
        ready = asyncio.Event()

        def changed(one: bytes | None) -> None:
            if one is None:
                cache.clear()
                ready.set()
            else:
                cache.forget(one)

        watching = asyncio.get_running_loop().create_task(worker.channel.watch(changed))
        try:
            await asyncio.wait_for(ready.wait(), 5)
            ready.clear()
            yield Watched(cache.find, ready)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def single(server) -> RedisEndpoint:
    return parse_redis_url(f"redis://127.0.0.1:{server.port}")
