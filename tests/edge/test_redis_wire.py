"""The raw connection, against real servers: replies to their callers, no one waiting, nothing left behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from redis.asyncio.connection import Connection

from sidecar.core.errors import StoreError
from sidecar.edge.redis_topology import Wire, wire
from sidecar.edge.redis_wire import RedisWire, WireOptions
from tests.servers.faulty import FaultyProxy
from tests.servers.redis import RedisCluster, RedisServer, SentinelSet

pytestmark = pytest.mark.redis


class SystemClock:
    def now_us(self) -> int:
        return time.time_ns() // 1000

    def mono_us(self) -> int:
        return time.monotonic_ns() // 1000


FAST = WireOptions(backoff_us=5_000, backoff_cap_us=50_000)


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


def make(url: str, options: WireOptions = FAST) -> tuple[Wire, list[RedisWire]]:
    made: list[RedisWire] = []

    def one(connect: Any) -> RedisWire:
        made.append(RedisWire(connect, SystemClock(), options))
        return made[-1]

    return wire(url, one, connect_us=500_000), made


@asynccontextmanager
async def connected(url: str, options: WireOptions = FAST) -> AsyncIterator[Any]:
    store, _ = make(url, options)
    store.start()
    try:
        await until(lambda: store.ready, f"the connection to {url}")
        yield store
    finally:
        await store.aclose()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not [task for task in others if "redis" in task.get_name()], others


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    """Runs a coroutine on the loop named, with every leaked callback an error."""

    def go(main: Any) -> None:
        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main)

    return go


async def _conversation(url: str) -> None:
    async with connected(url) as store:
        replies = await asyncio.gather(
            ask(store, "SET", "a", "1"), ask(store, "GET", "a"), ask(store, "GET", "none"), ask(store, "NOPE"),
            ask(store, "EVAL", "return {1, 'two', {err='ERR three'}}", 0),
        )  # fmt: skip
        assert replies[:3] == [b"OK", b"1", None]
        assert isinstance(replies[3], StoreError)
        assert replies[3].detail.startswith("ERR unknown command")
        assert not replies[3].maybe_applied
        assert replies[4][:2] == [1, b"two"]
        assert [reply for reply in await asyncio.gather(*(ask(store, "ECHO", i) for i in range(500)))] == [
            str(i).encode() for i in range(500)
        ]


def test_the_take_over_speaks_plain_tcp_on_both_loops(run, redis_clean):
    run(_conversation(redis_clean.url))


def test_the_take_over_speaks_tls_with_an_acl_user_and_a_database_on_both_loops(run, redis_tls):
    run(_conversation(redis_tls.url))
    assert redis_tls.cli.info("keyspace")["db3"]["keys"] == 1


def test_the_take_over_speaks_over_a_unix_socket_on_both_loops(run, make_redis, tmp_path):
    make_redis(f"unixsocket {tmp_path}/redis.sock")
    run(_conversation(f"unix://{tmp_path}/redis.sock?db=2"))
