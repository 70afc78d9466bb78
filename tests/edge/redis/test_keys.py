"""Mirrors sidecar/edge/redis/keys.py, on real Redis servers."""

import asyncio
import logging
import time

import pytest

from sidecar.config.addresses import parse_redis_url
from sidecar.core.errors import StoreError
from sidecar.core.identity import Identity, KeyRecord, digest, make_key
from tests.edge.redis.key_store import PREFIX, found, opened, record, single, until

pytestmark = pytest.mark.redis


@pytest.fixture
def endpoint(redis_clean):
    return single(redis_clean)


async def test_a_key_that_was_put_is_found(endpoint):
    async with opened(endpoint) as keys:
        await keys.registry.put(record("one", zone="Asia/Tokyo"))
        identity = await found(keys, "one")
        assert isinstance(identity, Identity)
        assert (identity.key_id, identity.zone) == ("one", "Asia/Tokyo")


async def test_unknown_revoked_and_ended_keys_are_none(endpoint):
    async with opened(endpoint) as keys:
        await keys.registry.put(record("gone", status="revoked"), record("ended", expires="2026-01-01T00:00:00Z"))
        assert [await found(keys, name) for name in ("gone", "ended", "never")] == [None, None, None]


# Fails if each find asks by itself.
async def test_a_herd_is_one_call(endpoint, redis_clean):
    async with opened(endpoint) as keys:
        await keys.registry.put(record("key"))
        redis_clean.cli.config_resetstat()
        answers = await asyncio.gather(*(found(keys, "key") for _ in range(500)))
        assert {one.key_id for one in answers} == {"key"}
        assert redis_clean.cli.info("commandstats")["cmdstat_get"]["calls"] == 1


async def test_many_keys_at_once_are_answered_each_with_its_own(endpoint):
    async with opened(endpoint) as keys:
        names = [f"k{number}" for number in range(1_500)]
        await keys.registry.put(*(record(name) for name in names))
        assert [one.key_id for one in await asyncio.gather(*(found(keys, name) for name in names))] == names


async def test_a_damaged_record_is_an_error_for_its_own_key_alone(endpoint, redis_clean):
    async with opened(endpoint) as keys:
        await keys.registry.put(record("good"))
        redis_clean.cli.set(f"{PREFIX}key:{digest(b'bad').hex()}", b"{not json")
        redis_clean.cli.lpush(f"{PREFIX}key:{digest(b'list').hex()}", b"x")
        good, bad, odd = await asyncio.gather(*(found(keys, name) for name in ("good", "bad", "list")))
        assert good.key_id == "good"
        assert isinstance(bad, StoreError)
        assert isinstance(odd, StoreError)


async def test_one_waiter_that_fails_does_not_leave_the_others_waiting(endpoint):
    async with opened(endpoint) as keys:
        await keys.registry.put(record("key"))
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
    endpoint = single(server)
    async with opened(endpoint, 0.05) as keys:
        await keys.registry.put(record("key"))
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
    async with opened(single(server), 0.05) as keys:
        await keys.registry.put(record("slow"), record("other"))
        server.pause()
        assert isinstance(await found(keys, "slow"), StoreError)
        server.resume()
        for _ in range(20):
            answer = await found(keys, "other")
            assert isinstance(answer, StoreError) or answer.key_id == "other"
        assert (await found(keys, "other")).key_id == "other"


@pytest.mark.parametrize("raw", [b"[" * 200_000, b'{"id": ' + b"1" * 5_000 + b"}", b"\xff", b"[]", b'{"id": {}}'])
async def test_whoever_waits_for_a_damaged_record_is_answered(endpoint, redis_clean, raw):
    # Fails if reading the record is outside of the guard: nobody in its batch would ever be answered.
    async with opened(endpoint) as keys:
        redis_clean.cli.set(f"{PREFIX}key:{digest(b'odd').hex()}", raw)
        answers = await asyncio.wait_for(asyncio.gather(found(keys, "odd"), found(keys, "other")), 5)
        assert isinstance(answers[0], StoreError)


async def test_closing_the_connection_answers_those_who_wait(make_redis):
    server = make_redis()
    async with opened(single(server), 0.2) as keys:
        server.pause()
        waiting = asyncio.gather(found(keys, "one"), found(keys, "two"))
        await asyncio.sleep(0)
        await keys.wire.aclose()
        assert [type(answer) for answer in await waiting] == [StoreError, StoreError]
        server.resume()


# Fails if a look-up does not count for the breaker, or is no probe: without reserves nothing else would close it.
async def test_look_ups_open_and_close_the_breaker_that_they_share_with_the_counters(make_redis):
    server = make_redis()
    async with opened(single(server), 0.2) as keys:
        await keys.registry.put(record("key"))
        server.kill()
        for _ in range(3):
            assert isinstance(await found(keys, "key"), StoreError)
        assert keys.breaker.is_open
        server.start()

        async def closed() -> bool:
            await found(keys, "key")
            return not keys.breaker.is_open

        await until(closed)


async def test_keys_are_kept_over_tls_by_a_named_user(redis_tls):
    ssl = (("ssl_ca_certs", redis_tls.url.partition("ssl_ca_certs=")[2]),)
    endpoint = parse_redis_url(f"rediss://gateway:s3cr%25t@127.0.0.1:{redis_tls.port}/3")._replace(ssl=ssl)
    async with opened(endpoint) as keys:
        await keys.registry.put(record("key"))
        assert (await found(keys, "key")).key_id == "key"


# Fails if an error names the key that it was about.
async def test_no_error_repeats_a_credential_or_a_hash(make_redis, caplog):
    caplog.set_level(logging.DEBUG)
    canary = make_key(b"canary canary canary"[:20])
    name = digest(canary.encode()).hex()
    server = make_redis()
    told = []
    async with opened(single(server), 0.2) as keys:
        server.cli.lpush(f"{PREFIX}key:{name}", b"x")
        told.append(await found(keys, canary))
        server.cli.set(f"{PREFIX}key:{name}", canary)
        told.append(await found(keys, canary))
        server.cli.lpush(PREFIX + "keys", b"x")
        for work in (
            keys.registry.put(KeyRecord("k", f"sha256:{name}", "c", "s", "p")),
            keys.registry.matching({"k"}, ()),
        ):
            with pytest.raises(StoreError) as caught:
                await work
            told += [caught.value, caught.value.__cause__]
        server.kill()
        told += [await found(keys, canary) for _ in range(5)]
    text = " ".join(map(repr, [*told, *map(str, told), KeyRecord("k", f"sha256:{name}", "c", "s", "p")])) + caplog.text
    assert all(isinstance(error, StoreError) for error in told if error is not None)
    assert canary not in text
    assert name[:12] not in text
