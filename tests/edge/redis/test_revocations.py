"""Mirrors sidecar/edge/redis/revocations.py, with the cache of a worker, on real Redis servers."""

import asyncio
import contextlib
import logging

import pytest

from sidecar.config.addresses import parse_redis_url
from sidecar.core.errors import StoreError
from sidecar.core.identity import Identity, digest
from sidecar.edge.redis.endpoint import connect, disconnect
from sidecar.edge.redis.revocations import Revocations
from tests.edge.redis.key_store import PREFIX, found, opened, record, single, until, watched

pytestmark = pytest.mark.redis


@pytest.fixture
def endpoint(redis_clean):
    return single(redis_clean)


# Fails if put does not publish, or the cache does not forget: then it takes the time to live of 30 s.
async def test_a_revocation_reaches_every_worker_in_under_a_second(endpoint):
    async with watched(endpoint) as one, watched(endpoint) as other, opened(endpoint) as admin:
        await admin.registry.put(record("key"))
        assert (await found(one, "key")).key_id == (await found(other, "key")).key_id == "key"
        await admin.registry.put(record("key", status="revoked"))

        async def gone() -> bool:
            return [await found(one, "key"), await found(other, "key")] == [None, None]

        took = await until(gone)
        assert took < 1.0
        logging.getLogger(__name__).info("revoked in %.1f ms", took * 1000)


async def test_a_new_key_is_let_in_at_once_although_it_was_unknown(endpoint):
    async with watched(endpoint) as cache, opened(endpoint) as admin:
        assert await found(cache, "key") is None
        await admin.registry.put(record("key"))

        async def known() -> bool:
            return await found(cache, "key") is not None

        assert await until(known) < 1.0


# Fails if a subscription that was made again does not clear the cache.
async def test_a_revocation_missed_while_disconnected_is_seen_after_the_reconnect(endpoint, redis_clean):
    async with watched(endpoint) as cache, opened(endpoint) as admin:
        await admin.registry.put(record("key"))
        assert await found(cache, "key") is not None
        cache.ready.clear()
        name = digest(b"key").hex()
        redis_clean.cli.set(f"{PREFIX}key:{name}", b'{"broken": 1}')  # changed, and nobody was told
        redis_clean.cli.client_kill_filter(_type="pubsub")
        await asyncio.wait_for(cache.ready.wait(), 5)
        redis_clean.cli.delete(f"{PREFIX}key:{name}")
        assert await found(cache, "key") is None


async def test_a_redis_that_comes_back_is_asked_and_watched_again(make_redis):
    server = make_redis()
    endpoint = single(server)
    async with opened(endpoint) as admin, contextlib.AsyncExitStack() as later:
        await admin.registry.put(record("key"))
        cache = await later.enter_async_context(watched(endpoint))  # after the change, so that it is not told of it
        before = await found(cache, "key")
        server.kill()
        assert await found(cache, "key") is before
        server.start()
        await asyncio.wait_for(cache.ready.wait(), 10)

        async def gone() -> bool:
            return await found(cache, "key") is None

        await until(gone)  # it came back empty
        with pytest.raises(StoreError):
            await admin.registry.put(record("key"))  # on the connection that died; nothing is tried twice
        await admin.registry.put(record("key"))

        async def known() -> bool:
            return await found(cache, "key") is not None

        assert await until(known) < 1.0


class Odd:
    """A client that raises what no list of errors foresaw, once; then it is the real one."""

    def __init__(self, client, error):
        self._client, self._errors = client, [error]

    def __getattr__(self, name):
        return getattr(self._client, name)

    async def initialize(self):
        if self._errors:
            raise self._errors.pop()
        await self._client.initialize()


@pytest.mark.parametrize("error", [KeyError(7), RuntimeError("pubsub"), ValueError("x"), ConnectionResetError()])
async def test_the_watch_outlives_whatever_ends_a_subscription(endpoint, error, caplog):
    # Fails if watch catches _NO_ANSWER alone: the task ends, and nobody looks at it.
    async with opened(endpoint) as admin:
        client = connect(endpoint, 2.0)
        channel = Revocations(Odd(client, error))
        told = []

        def changed(one):
            told.append(one)
            if len(told) == 1:
                raise error  # the listener's own fault ends the subscription as well

        watching = asyncio.get_running_loop().create_task(channel.watch(changed))

        async def subscribed() -> bool:
            return len(told) >= 2 and channel.subscribed

        await until(subscribed, 10)
        assert channel.lost_subscriptions == 2
        assert [record.levelname for record in caplog.records if "channel of changes" in record.message][:1]
        await admin.registry.put(record("key"))

        async def heard() -> bool:
            return told[-1] == digest(b"key")

        assert await until(heard) < 1.0
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert not channel.subscribed
        await disconnect(client)


async def test_a_cut_channel_counts_as_not_subscribed_until_it_stands_again(make_redis):
    server = make_redis()
    async with opened(single(server)) as keys:
        watching = asyncio.get_running_loop().create_task(keys.channel.watch(lambda _one: None))

        async def is_subscribed(wanted) -> bool:
            return keys.channel.subscribed is wanted

        await until(lambda: is_subscribed(True))
        server.kill()
        await until(lambda: is_subscribed(False))
        server.start()
        await until(lambda: is_subscribed(True), 10)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_a_cluster_holds_keys_and_tells_of_changes(redis_cluster):
    nodes = ",".join(f"127.0.0.1:{node.port}" for node in redis_cluster.nodes)
    endpoint = parse_redis_url(f"redis+cluster://{nodes}")
    async with watched(endpoint) as one, watched(endpoint) as other, opened(endpoint) as admin:
        await admin.registry.put(*(record(f"k{number}") for number in range(30)))
        assert {one.id for one in [one async for one in admin.registry.records()]} == {
            f"k{number}" for number in range(30)
        }
        answers = await asyncio.gather(*(found(cache, f"k{n}") for n in range(30) for cache in (one, other)))
        assert all(isinstance(answer, Identity) for answer in answers)
        await admin.registry.put(record("k5", status="revoked"))

        async def gone() -> bool:
            return [await found(one, "k5"), await found(other, "k5")] == [None, None]

        assert await until(gone) < 1.0


async def test_the_master_of_a_sentinel_holds_keys_and_tells_of_changes(make_sentinels):
    sentinels = make_sentinels(1)
    endpoint = parse_redis_url(f"redis+sentinel://127.0.0.1:{sentinels.sentinels[0].port}/{sentinels.service}")
    async with watched(endpoint) as cache, opened(endpoint) as admin:
        await admin.registry.put(record("key"))
        assert isinstance(await found(cache, "key"), Identity)
        await admin.registry.put(record("key", status="revoked"))

        async def gone() -> bool:
            return await found(cache, "key") is None

        assert await until(gone) < 1.0
