"""A Redis that came back empty is found, once, by all workers, also by those that start later."""

import asyncio

import pytest

from sidecar.core.record import Ids
from sidecar.edge.clock import SystemClock
from sidecar.edge.redis.markers import GROUPS, RedisMarkers, accepted, marker_keys, migrated
from sidecar.edge.redis.topology import wire
from sidecar.edge.redis.wire import RedisWire, WireOptions
from tests.servers.talk import ask, endpoint_of, until

pytestmark = pytest.mark.redis

CLOCK = SystemClock()
OPTIONS = WireOptions(timeout_us=2_000_000, late_us=4_000_000, backoff_cap_us=50_000)
KEY = "sc:{cust}:ids:"


class Worker:
    def __init__(self, url, path=None, seed=0):
        ids = Ids(seed)
        self.markers = None
        self.wire = wire(endpoint_of(url), self._made)
        self.markers = RedisMarkers(self.wire, CLOCK, lambda: ids.mint(CLOCK.now_us() // 1000), path)
        self.changes = 0
        self.markers.changed = self._count

    def _made(self, connect):
        made = RedisWire(connect, CLOCK, OPTIONS)
        made.connected = self._check
        return made

    def _check(self):
        self.markers.check()

    def _count(self):
        self.changes += 1

    async def __aenter__(self):
        self.wire.start()
        await until(lambda: self.wire.ready, "the connection")
        await self.looked()
        return self

    async def __aexit__(self, *_):
        await self.wire.aclose()

    async def looked(self):
        """Two looks: the second sees what the first had made."""
        for _ in range(2):
            self.markers.check()
            await ask(self.wire, "PING", key=KEY)
            await asyncio.sleep(0.05)


async def test_a_store_that_is_new_is_no_loss(redis_clean):
    async with Worker(redis_clean.url) as one, Worker(redis_clean.url, seed=1) as other:
        assert redis_clean.cli.ttl("sc:store:mark") == -1
        assert (one.markers.lost, other.markers.lost, one.changes + other.changes) == (False, False, 0)


# conservation V5. Fails if who comes later takes the place of a marker that was made anew: both would have found it.
# That a node looks at it once a second is shown in tests/e2e/test_bounds.py.
async def test_a_flush_while_connected_is_found_once_by_all(redis_clean):
    async with Worker(redis_clean.url) as one, Worker(redis_clean.url, seed=1) as other:
        redis_clean.cli.flushall()
        await one.looked()
        await other.looked()
        assert one.markers.lost_us(KEY) == other.markers.lost_us(KEY) > 0
        assert one.markers.losses + other.markers.losses == 1
        assert (one.changes, other.changes) == (1, 1)
        async with Worker(redis_clean.url, seed=2) as late:
            assert late.markers.lost_us(KEY) == one.markers.lost_us(KEY)


# Fails if counters of version 0.1, which are under other names, are taken for there: quotas would be served again.
async def test_the_counters_of_version_0_1_are_lost_until_they_are_migrated(redis_clean, caplog):
    redis_clean.cli.set("sc:store:mark", "OLD 0 0")
    async with Worker(redis_clean.url) as worker:
        assert worker.markers.lost
        assert caplog.text.count("run `sidecar migrate`") == 1
        assert redis_clean.cli.get("sc:store:mark") == b"OLD 0 0"
        redis_clean.cli.set("sc:store:mark", migrated(b"OLD 0 0"))
        await worker.looked()
        assert (worker.markers.lost, worker.changes) == (False, 2)


# Fails if the marker is looked at only by the clock: answers of the empty store would be taken until then.
async def test_a_kill_without_persistence_is_found_with_the_new_connection(make_redis):
    redis = make_redis('save ""')
    async with Worker(redis.url) as worker:
        assert not worker.markers.lost
        await asyncio.to_thread(redis.kill)
        await until(lambda: not worker.wire.ready, "the connection")
        await asyncio.to_thread(redis.start)
        await until(lambda: worker.wire.ready, "the connection")
        done = asyncio.get_running_loop().create_future()
        worker.wire.send(KEY, b"*1\r\n$4\r\nPING\r\n", lambda _: done.set_result(worker.markers.lost))
        assert await done, "the loss is known before the first answer"
        await until(lambda: worker.markers.losses == 1, "the answer to the new marker")


async def test_a_kill_with_persistence_is_no_loss(make_redis):
    redis = make_redis("appendonly yes", "appendfsync always")
    async with Worker(redis.url) as worker:
        await asyncio.to_thread(redis.kill)
        await asyncio.to_thread(redis.start)
        await until(lambda: worker.wire.ready, "the connection")
        await worker.looked()
        assert not worker.markers.lost


# Fails if what was seen is not kept: a store that was lost while nobody ran would be taken for a new one.
async def test_a_loss_while_the_node_was_down_is_found_at_its_start(redis_clean, tmp_path):
    async with Worker(redis_clean.url, tmp_path / "store.json"):
        pass
    redis_clean.cli.flushall()
    async with Worker(redis_clean.url, tmp_path / "store.json", seed=1) as worker:
        assert worker.markers.lost


async def test_a_loss_that_somebody_else_took_for_a_new_store_is_found_by_who_knew_better(redis_clean, tmp_path):
    async with Worker(redis_clean.url) as old:
        redis_clean.cli.flushall()
        async with Worker(redis_clean.url, seed=1) as new:
            assert not new.markers.lost
            await old.looked()
            await new.looked()
            assert new.markers.lost_us(KEY) == old.markers.lost_us(KEY) > 0


async def test_an_operator_ends_it_for_all(redis_clean):
    async with Worker(redis_clean.url) as one, Worker(redis_clean.url, seed=1) as other:
        redis_clean.cli.flushall()
        await one.looked()
        await other.looked()
        redis_clean.cli.set("sc:store:mark", accepted(redis_clean.cli.get("sc:store:mark"), CLOCK.now_us()))
        await one.looked()
        await other.looked()
        assert (one.markers.lost, other.markers.lost, one.changes) == (False, False, 2)
        redis_clean.cli.flushall()
        await one.looked()
        assert one.markers.lost


def test_each_stretch_of_a_clusters_slots_has_a_marker_of_its_own():
    from redis.crc import key_slot  # noqa: PLC0415 - the oracle

    keys = marker_keys(GROUPS)
    assert [key_slot(key.encode()) * GROUPS // 16_384 for key in keys] == [*range(GROUPS)]


async def test_of_a_cluster_the_master_that_was_lost_is_found_and_no_other(redis_cluster):
    async with Worker(redis_cluster.url) as one, Worker(redis_cluster.url, seed=1) as other:
        await one.looked()
        lost = redis_cluster.nodes[1]
        lost.cli.flushall()
        await one.looked()
        await other.looked()
        hit = [key for key in marker_keys(GROUPS) if one.markers.lost_us(key)]
        assert hit == [key for key in marker_keys(GROUPS) if one.wire.node(key)[1] == lost.port]
        assert hit == [key for key in marker_keys(GROUPS) if other.markers.lost_us(key)]
        assert one.markers.losses + other.markers.losses == 1
        assert all(lost.cli.exists(key) for key in hit)  # Fails if only the one that was missed first is made anew.
