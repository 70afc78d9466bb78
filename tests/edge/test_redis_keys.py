"""Mirrors sidecar/edge/redis_keys.py, with the cache before it as in the product, on real Redis servers."""

import asyncio
import contextlib
import logging
import time
from typing import NamedTuple

import pytest

from sidecar import ports
from sidecar.core.errors import StoreError
from sidecar.core.identity import Identity, KeyRecord, digest, make_key, stored
from sidecar.edge.key_cache import KeyCache
from sidecar.edge.redis_keys import RedisKeys, connect, disconnect

pytestmark = pytest.mark.redis

PREFIX = "sc:"


class Endpoint(NamedTuple):
    mode: str
    hosts: tuple[tuple[str, int], ...]
    tls: bool = False
    db: int = 0
    username: str | None = None
    password: str | None = None
    service: str = ""


class Clock(ports.Clock):
    def now_us(self) -> int:
        return time.time_ns() // 1000

    def mono_us(self) -> int:
        return time.monotonic_ns() // 1000


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


@contextlib.asynccontextmanager
async def opened(endpoint: Endpoint, timeout_s: float = 2.0, ssl=None):
    client = connect(endpoint, 2.0, ssl)  # the socket's own timeout is longer, so that the look-up's is what is tested
    keys = RedisKeys(client, Clock(), timeout_s)
    try:
        yield keys
    finally:
        await keys.close()
        await disconnect(client)


@contextlib.asynccontextmanager
async def watched(endpoint: Endpoint):
    """A worker's view: a cache over a client of its own, told of changes. `ready` is set with each clear."""
    async with opened(endpoint) as keys:
        cache = KeyCache(keys, Clock(), Probe())
        ready = asyncio.Event()

        def changed(one: bytes | None) -> None:
            if one is None:
                cache.clear()
                ready.set()
            else:
                cache.forget(one)

        watching = asyncio.get_running_loop().create_task(keys.watch(changed))
        try:
            await asyncio.wait_for(ready.wait(), 5)
            ready.clear()
            cache.ready = ready
            yield cache
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


@pytest.fixture
def single(redis_clean):
    return Endpoint("single", (("127.0.0.1", redis_clean.port),))


async def test_a_key_that_was_put_is_found(single):
    async with opened(single) as keys:
        await keys.put(record("one", zone="Asia/Tokyo"))
        identity = await found(keys, "one")
        assert isinstance(identity, Identity)
        assert (identity.key_id, identity.zone) == ("one", "Asia/Tokyo")


async def test_unknown_revoked_and_ended_keys_are_none(single):
    async with opened(single) as keys:
        await keys.put(record("gone", status="revoked"), record("ended", expires="2026-01-01T00:00:00Z"))
        assert [await found(keys, name) for name in ("gone", "ended", "never")] == [None, None, None]


async def test_keys_are_listed_and_found_by_id(single):
    async with opened(single) as keys:
        await keys.put(*(record(f"k{number}") for number in range(700)))
        assert {one.id for one in [one async for one in keys.records()]} == {f"k{number}" for number in range(700)}
        assert await keys.record("k7") == record("k7")
        assert await keys.record("none") is None


# Fails if put does not publish, or the cache does not forget: then it takes the time to live of 30 s.
async def test_a_revocation_reaches_every_worker_in_under_a_second(single):
    async with watched(single) as one, watched(single) as other, opened(single) as admin:
        await admin.put(record("key"))
        assert (await found(one, "key")).key_id == (await found(other, "key")).key_id == "key"
        await admin.put(record("key", status="revoked"))

        async def gone() -> bool:
            return [await found(one, "key"), await found(other, "key")] == [None, None]

        took = await until(gone)
        assert took < 1.0
        logging.getLogger(__name__).info("revoked in %.1f ms", took * 1000)


async def test_a_new_key_is_let_in_at_once_although_it_was_unknown(single):
    async with watched(single) as cache, opened(single) as admin:
        assert await found(cache, "key") is None
        await admin.put(record("key"))

        async def known() -> bool:
            return await found(cache, "key") is not None

        assert await until(known) < 1.0


# Fails if a subscription that was made again does not clear the cache.
async def test_a_revocation_missed_while_disconnected_is_seen_after_the_reconnect(single, redis_clean):
    async with watched(single) as cache, opened(single) as admin:
        await admin.put(record("key"))
        assert await found(cache, "key") is not None
        cache.ready.clear()
        name = digest(b"key").hex()
        redis_clean.cli.set(f"{PREFIX}key:{name}", b'{"broken": 1}')  # changed, and nobody was told
        redis_clean.cli.client_kill_filter(_type="pubsub")
        await asyncio.wait_for(cache.ready.wait(), 5)
        redis_clean.cli.delete(f"{PREFIX}key:{name}")
        assert await found(cache, "key") is None


# Fails if each find asks by itself.
async def test_a_herd_is_one_call(single, redis_clean):
    async with opened(single) as keys:
        await keys.put(record("key"))
        redis_clean.cli.config_resetstat()
        answers = await asyncio.gather(*(found(keys, "key") for _ in range(500)))
        assert {one.key_id for one in answers} == {"key"}
        assert redis_clean.cli.info("commandstats")["cmdstat_get"]["calls"] == 1


async def test_many_keys_at_once_are_answered_each_with_its_own(single):
    async with opened(single) as keys:
        names = [f"k{number}" for number in range(1_500)]
        await keys.put(*(record(name) for name in names))
        assert [one.key_id for one in await asyncio.gather(*(found(keys, name) for name in names))] == names


async def test_a_damaged_record_is_an_error_for_its_own_key_alone(single, redis_clean):
    async with opened(single) as keys:
        await keys.put(record("good"))
        redis_clean.cli.set(f"{PREFIX}key:{digest(b'bad').hex()}", b"{not json")
        redis_clean.cli.lpush(f"{PREFIX}key:{digest(b'list').hex()}", b"x")
        good, bad, odd = await asyncio.gather(*(found(keys, name) for name in ("good", "bad", "list")))
        assert good.key_id == "good"
        assert isinstance(bad, StoreError)
        assert isinstance(odd, StoreError)


async def test_one_waiter_that_fails_does_not_leave_the_others_waiting(single):
    async with opened(single) as keys:
        await keys.put(record("key"))
        broken = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context["exception"]))

        def fail(_):
            raise ZeroDivisionError

        keys.find(digest(b"key"), fail)
        assert (await found(keys, "key")).key_id == "key"
        assert [type(error) for error in broken] == [ZeroDivisionError]


# Fails if the look-up waits out the socket's timeout, or the store is asked each time while it is away.
async def test_a_frozen_redis_is_an_error_within_the_timeout_and_then_at_once(make_redis):
    server = make_redis()
    endpoint = Endpoint("single", (("127.0.0.1", server.port),))
    async with opened(endpoint, 0.05) as keys:
        await keys.put(record("key"))
        server.pause()
        start = time.monotonic()
        for _ in range(3):
            assert isinstance(await found(keys, "key"), StoreError)
        assert time.monotonic() - start < 1.0
        start = time.monotonic()
        for _ in range(200):
            assert isinstance(await found(keys, "key"), StoreError)
        assert time.monotonic() - start < 0.2
        server.resume()

        async def back() -> bool:
            return isinstance(await found(keys, "key"), Identity)

        await until(back)


# CVE-2023-28858: a reply that came late was read by the next caller, so one customer's usage went to another (I3).
async def test_a_late_reply_is_never_taken_for_the_answer_to_another_key(make_redis):
    server = make_redis()
    async with opened(Endpoint("single", (("127.0.0.1", server.port),)), 0.05) as keys:
        await keys.put(record("slow"), record("other"))
        server.pause()
        assert isinstance(await found(keys, "slow"), StoreError)
        server.resume()
        for _ in range(20):
            answer = await found(keys, "other")
            assert isinstance(answer, StoreError) or answer.key_id == "other"
        assert (await found(keys, "other")).key_id == "other"


async def test_a_redis_that_comes_back_is_asked_and_watched_again(make_redis):
    server = make_redis()
    endpoint = Endpoint("single", (("127.0.0.1", server.port),))
    async with opened(endpoint) as admin, contextlib.AsyncExitStack() as later:
        await admin.put(record("key"))
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
            await admin.put(record("key"))  # on the connection that died; nothing is tried twice behind our back
        await admin.put(record("key"))

        async def known() -> bool:
            return await found(cache, "key") is not None

        assert await until(known) < 1.0


async def test_closing_answers_those_who_wait(make_redis):
    server = make_redis()
    client = connect(Endpoint("single", (("127.0.0.1", server.port),)), 5.0)
    keys = RedisKeys(client, Clock(), 5.0)
    server.pause()
    waiting = asyncio.gather(found(keys, "one"), found(keys, "two"))
    await asyncio.sleep(0)
    await keys.close()
    assert [type(answer) for answer in await waiting] == [StoreError, StoreError]
    server.resume()
    await disconnect(client)


async def test_a_cluster_holds_keys_and_tells_of_changes(redis_cluster):
    endpoint = Endpoint("cluster", tuple(("127.0.0.1", node.port) for node in redis_cluster.nodes))
    async with watched(endpoint) as one, watched(endpoint) as other, opened(endpoint) as admin:
        await admin.put(*(record(f"k{number}") for number in range(30)))
        assert {one.id for one in [one async for one in admin.records()]} == {f"k{number}" for number in range(30)}
        answers = await asyncio.gather(*(found(cache, f"k{n}") for n in range(30) for cache in (one, other)))
        assert all(isinstance(answer, Identity) for answer in answers)
        await admin.put(record("k5", status="revoked"))

        async def gone() -> bool:
            return [await found(one, "k5"), await found(other, "k5")] == [None, None]

        assert await until(gone) < 1.0


async def test_the_master_of_a_sentinel_holds_keys_and_tells_of_changes(make_sentinels):
    sentinels = make_sentinels(1)
    endpoint = Endpoint("sentinel", (("127.0.0.1", sentinels.sentinels[0].port),), service=sentinels.service)
    async with watched(endpoint) as cache, opened(endpoint) as admin:
        await admin.put(record("key"))
        assert isinstance(await found(cache, "key"), Identity)
        await admin.put(record("key", status="revoked"))

        async def gone() -> bool:
            return await found(cache, "key") is None

        assert await until(gone) < 1.0


async def test_keys_are_kept_over_tls_by_a_named_user(redis_tls):
    ssl = {"ssl_ca_certs": redis_tls.url.partition("ssl_ca_certs=")[2]}
    endpoint = Endpoint("single", (("127.0.0.1", redis_tls.port),), True, 3, "gateway", "s3cr%t")
    async with opened(endpoint, ssl=ssl) as keys:
        await keys.put(record("key"))
        assert (await found(keys, "key")).key_id == "key"


# Fails if an error names the key that it was about.
async def test_no_error_repeats_a_credential_or_a_hash(make_redis, caplog):
    caplog.set_level(logging.DEBUG)
    canary = make_key(b"canary canary canary"[:20])
    name = digest(canary.encode()).hex()
    server = make_redis()
    told = []
    async with opened(Endpoint("single", (("127.0.0.1", server.port),)), 0.2) as keys:
        server.cli.lpush(f"{PREFIX}key:{name}", b"x")
        told.append(await found(keys, canary))
        server.cli.set(f"{PREFIX}key:{name}", canary)
        told.append(await found(keys, canary))
        server.cli.lpush(PREFIX + "keys", b"x")
        for work in (keys.put(KeyRecord("k", f"sha256:{name}", "c", "s", "p")), keys.record("k")):
            with pytest.raises(StoreError) as caught:
                await work
            told += [caught.value, caught.value.__cause__]
        server.kill()
        told += [await found(keys, canary) for _ in range(5)]
    text = " ".join(map(repr, [*told, *map(str, told), KeyRecord("k", f"sha256:{name}", "c", "s", "p")])) + caplog.text
    assert all(isinstance(error, StoreError) for error in told if error is not None)
    assert canary not in text
    assert name[:12] not in text
