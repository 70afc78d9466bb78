"""Where Redis is, against real sentinels and a real cluster: found again after every move, without a hand."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Any

import pytest
from redis.crc import key_slot

from sidecar.core.errors import StoreError
from tests.servers import certificates
from tests.servers.redis import RedisCluster, RedisServer, SentinelSet, wait_until
from tests.servers.talk import ask, connected, make, until

# Sentinel.


@pytest.mark.redis
@pytest.mark.slow  # a sentinel looks at the replica every ten seconds, and promotes none that it has not seen
async def test_a_failover_is_followed_through_the_sentinels(make_sentinels):
    servers: SentinelSet = make_sentinels(1)
    async with connected(servers.url) as store:
        assert await ask(store, "SET", "a", "before") == b"OK"
        await asyncio.to_thread(servers.failover)

        async def written() -> bool:
            return not isinstance(await ask(store, "SET", "a", "after"), StoreError)

        for _ in range(2000):
            if await written() and await asyncio.to_thread(servers.replica.clients, "sidecar"):
                break
            await asyncio.sleep(0.01)
        # Fails if READONLY does not end the connection: the old master goes on answering it.
        assert servers.replica.cli.get("a") == b"after"
        await until(lambda: servers.master.clients("sidecar") == 0, "the end of the connection to the old master")
        assert servers.replica.clients("sidecar") == 1


@pytest.mark.redis
@pytest.mark.parametrize("sentinels", [1, 3])
async def test_a_killed_master_is_replaced_and_nobody_waits_meanwhile(make_sentinels, sentinels):
    servers: SentinelSet = make_sentinels(sentinels)
    async with connected(servers.url) as store:
        loop = asyncio.get_running_loop()
        servers.master.kill()
        deadline = loop.time() + 20
        slowest, outcome = 0.0, None
        while outcome != b"OK":
            assert loop.time() < deadline
            start = loop.time()
            outcome = await ask(store, "SET", "a", "1")
            slowest = max(slowest, loop.time() - start)
            await asyncio.sleep(0.005)
        assert slowest < 0.4
        assert servers.replica.clients("sidecar") == 1


@pytest.mark.redis
async def test_without_a_sentinel_that_answers_the_reason_says_so():
    store, made = make("redis+sentinel://127.0.0.1:1/counters/0")
    store.start()
    try:
        await until(lambda: "No master found for 'counters'" in made[0].away, "the reason")
    finally:
        await store.aclose()


@pytest.mark.redis
async def test_sentinels_are_asked_over_tls_where_the_url_says_so(tmp_path):
    made = certificates.make(tmp_path / "tls")
    lines = ["port 0", "tls-port {port}", f"tls-cert-file {made.certificate}", f"tls-key-file {made.key}",
             f"tls-ca-cert-file {made.authority}", "tls-auth-clients no"]  # fmt: skip
    trust = {"ssl": True, "ssl_ca_certs": str(made.authority)}
    sentinel = RedisServer(tmp_path / "sentinel", lines, sentinel=True, **trust).start()
    store, wires = make(f"rediss+sentinel://127.0.0.1:{sentinel.port}/counters/0?ssl_ca_certs={made.authority}")
    store.start()
    try:
        await until(lambda: "No master found" in wires[0].away, "the answer")
        assert wires[0].away.endswith("No master found for 'counters'")  # without a list of errors behind it
    finally:
        await store.aclose()
        sentinel.close()


# Cluster.


def _key_of(slots: range) -> str:
    return next(key for i in range(100_000) if key_slot((key := f"{{c{i}}}").encode()) in slots)


@pytest.mark.redis
async def test_each_command_goes_to_the_owner_of_its_slot(redis_cluster: RedisCluster):
    async with connected(redis_cluster.url) as store:
        for i in range(60):
            assert await ask(store, "SET", f"{{k{i}}}:n", i, key=f"{{k{i}}}") == b"OK"
        assert sum(node.cli.dbsize() for node in redis_cluster.nodes) == 60
        assert all(node.cli.dbsize() for node in redis_cluster.nodes)
        # Fails if slots are not those of the hash tag: every second command would be followed.
        assert [sum_of_moved(node) for node in redis_cluster.nodes] == [0, 0, 0]


def sum_of_moved(node: Any) -> int:
    return int(node.cli.info("errorstats").get("errorstat_MOVED", {"count": 0})["count"])


@pytest.mark.redis
async def test_a_moved_slot_is_followed_at_once_and_remembered(redis_cluster: RedisCluster):
    key = _key_of(range(5461))
    async with connected(redis_cluster.url) as store:
        assert await ask(store, "GET", key, key=key) is None
        await asyncio.to_thread(redis_cluster.moved, key_slot(key.encode()), 2)
        assert await ask(store, "SET", key, "1", key=key) == b"OK"  # Fails if MOVED is not followed.
        assert await ask(store, "GET", key, key=key) == b"1"
        assert redis_cluster.nodes[2].cli.dbsize() == 1
        assert sum_of_moved(redis_cluster.nodes[0]) == 1


@pytest.mark.redis
async def test_a_slot_on_the_move_is_asked_for_at_its_new_node(redis_cluster: RedisCluster):
    key = _key_of(range(5461))
    async with connected(redis_cluster.url) as store:
        await asyncio.to_thread(redis_cluster.migrating, key_slot(key.encode()), 1)
        outcomes = await asyncio.gather(*(ask(store, "INCR", key, key=key) for _ in range(20)))
        assert outcomes == list(range(1, 21))  # Fails if ASKING is not right before each command.


@pytest.mark.redis
async def test_keys_of_one_slot_on_two_nodes_are_told_as_tryagain(redis_cluster: RedisCluster):
    key = _key_of(range(5461))
    async with connected(redis_cluster.url) as store:
        assert await ask(store, "SET", f"{key}old", "1", key=key) == b"OK"
        await asyncio.to_thread(redis_cluster.migrating, key_slot(key.encode()), 1)
        outcome = await ask(store, "MGET", f"{key}old", f"{key}new", key=key)
        assert isinstance(outcome, StoreError)
        assert outcome.detail.startswith("TRYAGAIN")


@pytest.mark.redis
async def test_a_slot_that_nobody_serves_is_told_and_felt_again_when_it_is(redis_cluster: RedisCluster):
    key = _key_of(range(5461))
    slot = key_slot(key.encode())
    async with connected(redis_cluster.url) as store:
        for node in redis_cluster.nodes:
            node.cli.execute_command("CLUSTER", "DELSLOTS", slot)
        outcome = await ask(store, "GET", key, key=key)
        assert isinstance(outcome, StoreError)
        assert "CLUSTERDOWN" in outcome.detail
        await until(lambda: not store.ready, "the map with a hole")
        redis_cluster.nodes[2].cli.execute_command("CLUSTER", "ADDSLOTS", slot)

        async def served() -> bool:
            return not isinstance(await ask(store, "GET", key, key=key), StoreError)

        for _ in range(1000):
            if await served() and store.ready:
                break
            await asyncio.sleep(0.01)
        assert await served()
        assert store.ready


@pytest.mark.redis
# Fails if the task is cancelled once: in Python 3.11 `wait_for` swallows a cancel, and a drain waited for ever.
async def test_a_close_ends_a_task_that_swallows_a_cancel(redis_cluster: RedisCluster):
    store, _ = make(redis_cluster.url)
    store.start()
    await until(lambda: store.ready, "the cluster")

    async def stubborn() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    store._task.cancel()
    store._task = asyncio.get_running_loop().create_task(stubborn())
    await asyncio.sleep(0)
    await asyncio.wait_for(store.aclose(), 10)


async def test_one_dead_node_leaves_the_others_slots_and_nobody_waits(redis_cluster: RedisCluster):
    for node in redis_cluster.nodes:
        node.cli.config_set("cluster-require-full-coverage", "no")
    near, far = _key_of(range(5461)), _key_of(range(10923, 16384))
    async with connected(redis_cluster.url) as store:
        redis_cluster.nodes[0].kill()
        assert isinstance(await ask(store, "GET", near, key=near), StoreError)
        answers: list[Any] = []
        await until(lambda: not store.ready, "the loss")
        store.send(near, b"*1\r\n$4\r\nPING\r\n", answers.append)
        assert len(answers) == 1
        assert await ask(store, "SET", far, "1", key=far) == b"OK"
        redis_cluster.nodes[0].start()
        await until(lambda: store.ready, "the node's return")
        wait_until(lambda: redis_cluster.nodes[0].cli.get(near) is None, "the node in the cluster")
        assert await ask(store, "GET", near, key=near) is None
    for node in redis_cluster.nodes:
        wait_until(partial(_unused, node), "no connection after the close")


def _unused(node: RedisServer) -> bool:
    return node.clients("sidecar") == 0
