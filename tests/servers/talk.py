"""Talking to a store from a test: commands as futures, and conditions waited for with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

from redis.asyncio.connection import Connection

from sidecar.config.addresses import RedisEndpoint, parse_redis_url
from sidecar.edge.clock import SystemClock
from sidecar.edge.redis.topology import Wire, wire
from sidecar.edge.redis.wire import RedisWire, WireOptions

FAST = WireOptions(backoff_us=5_000, backoff_cap_us=50_000)  # with the 50 ms that a command has by default
PATIENT = FAST._replace(timeout_us=5_000_000, late_us=10_000_000)  # where time is not the subject


def pack(*words: str | bytes | int) -> bytes:
    return b"".join(Connection().pack_command(*words))


def ask(store: Wire, *words: str | bytes | int, key: str = "") -> asyncio.Future[Any]:
    """The reply as a future; a StoreError is its value."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    store.send(key, pack(*words), lambda reply: future.cancelled() or future.set_result(reply))
    return future


async def until(condition: Callable[[], Any], what: str, seconds: float = 10.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        await asyncio.sleep(0.005)
    return value


def endpoint_of(url: str) -> RedisEndpoint:
    """The endpoint of a Redis URL; redis-py's ssl_… arguments may be in its query."""
    plain, _, query = url.partition("?")
    return parse_redis_url(plain)._replace(ssl=tuple(parse_qsl(query)))


def make(url: str, options: WireOptions = FAST) -> tuple[Wire, list[RedisWire]]:
    made: list[RedisWire] = []

    def one(connect: Any) -> RedisWire:
        made.append(RedisWire(connect, SystemClock(), options))
        return made[-1]

    return wire(endpoint_of(url), one, connect_us=500_000), made


@asynccontextmanager
async def connected(url: str, options: WireOptions = PATIENT) -> AsyncIterator[Any]:
    store, _ = make(url, options)
    store.start()
    try:
        await until(lambda: store.ready, f"the connection to {url}")
        yield store
    finally:
        await store.aclose()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not [task for task in others if "redis" in task.get_name()], others
