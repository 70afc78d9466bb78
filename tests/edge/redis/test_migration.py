"""Mirrors sidecar/edge/redis/migration.py: the keys of version 0.1 in Redis, and names that both versions used."""

import re

import pytest
from redis import asyncio as aioredis

from sidecar.core.errors import StoreError
from sidecar.core.limits import check_for, current_key, wallet_keys
from sidecar.edge.keys.file_keys import FileKeys
from sidecar.edge.redis.endpoint import connect, disconnect
from sidecar.edge.redis.migration import migrate_keys
from sidecar.testing import HandClock
from tests.fixtures import previous
from tests.fixtures.test_previous import policy
from tests.servers.redis import RedisCluster
from tests.servers.talk import endpoint_of

pytestmark = pytest.mark.redis
OUTDATED = {
    "alert": 1, "granted": 1, "held": 1, "holds": 1, "ledger": 1, "markers": 1, "quotas": 6, "rates": 1, "retry": 1,
    "slots": 1, "wallet": 1, "windows": 1,
}  # fmt: skip


@pytest.fixture
async def migrate(redis_clean):
    client = aioredis.Redis.from_url(redis_clean.url)

    async def run(*, only_count=False):
        return await migrate_keys(client, is_cluster=False, only_count=only_count, progress=lambda _keys: None)

    yield run
    await client.aclose()


def counter(customer, limit_id, route):
    """The name that this version gives a counter of 0.1."""
    time_us = previous.redis_state()["time_us"]
    identity = next(
        each for each in FileKeys(previous.KEYS, HandClock(time_us)).read().values() if each.customer == customer
    )
    rules = policy()
    terms = rules.terms(identity.plan, next(each for each in rules.routes if each.id == route), customer)
    return check_for(next(each for each in terms.limits if each.id == limit_id), 1, identity, time_us).keys[0]


def contents(cli):
    """All keys with their values, and whether they expire."""
    read = {b"string": cli.get, b"hash": cli.hgetall, b"stream": cli.xrange}
    return {
        key.decode(): (
            read.get(cli.type(key), lambda name: cli.zrange(name, 0, -1, withscores=True))(key),
            cli.pttl(key) > 0,
        )
        for key in cli.scan_iter("*")
    }


async def test_counters_wallets_and_first_attempts_of_0_1_are_found_under_the_names_of_this_version(
    redis_clean, migrate
):
    # Fails if a kind of key is left out, or a value or its expiry is lost on the way.
    cli = redis_clean.cli
    previous.load_redis(cli)
    before = contents(cli)
    assert await migrate() == (OUTDATED, ())
    after = contents(cli)
    moved = {current_key(key): value for key, value in before.items()}
    held, mark = wallet_keys("prepaid", "usd")[3], "sc:store:mark"
    assert {key: value for key, value in after.items() if key not in {held, mark}} == {
        key: value for key, value in moved.items() if key not in {held, mark}
    }
    assert cli.get(counter("acme", "monthly", "rest")) == b"6"
    assert cli.zcard(counter("acme", "inflight", "rest")) == 1
    assert cli.get(counter("prepaid", "chats", "chat")) is not None
    assert cli.get(mark).split()[3] == b"2"


async def test_a_hold_names_the_counters_that_it_is_given_back_to(redis_clean, migrate):
    # Fails if the names inside are not moved: what an exchange held would go to counters that nobody reads.
    previous.load_redis(redis_clean.cli)
    await migrate()
    [hold] = redis_clean.cli.hgetall(wallet_keys("prepaid", "usd")[3]).values()
    names = re.findall(r"sc:\S+", hold.decode())
    assert len(names) == 2
    assert set(names) <= {key.decode() for key in redis_clean.cli.scan_iter("*")}


async def test_a_check_changes_nothing_and_a_second_move_finds_nothing(redis_clean, migrate):
    previous.load_redis(redis_clean.cli)
    before = contents(redis_clean.cli)
    assert await migrate(only_count=True) == (OUTDATED, ())
    assert contents(redis_clean.cli) == before
    await migrate()
    assert await migrate() == ({}, ())


@pytest.mark.parametrize(
    ("name", "before", "now", "sum_"),
    [
        ("m:cc:2026-11", "5", "7", b"12"),
        ("m:cc:s60:29933864", "5", "7", b"12"),
        ("m:kk", "1796032089414690", "1796032089414000 3", b"1796032089414690"),
        ("m:kk", "1796032089414000", "1796032089414690 3", b"1796032089414690 3"),
    ],
)
async def test_where_both_versions_counted_the_units_are_added_up(redis_clean, migrate, name, before, now, sum_):
    # Fails if either is dropped: a quota would be served again.
    cli, key = redis_clean.cli, f"sc:{{c}}:{name}"
    cli.set(key, before, px=60_000)
    cli.set(current_key(key), now, px=90_000)
    assert (await migrate()).conflicts == ()
    assert (cli.get(current_key(key)), cli.exists(key)) == (sum_, 0)
    assert 60_000 < cli.pttl(current_key(key)) <= 90_000


async def test_slots_of_both_versions_are_all_held(redis_clean, migrate):
    cli, key = redis_clean.cli, "sc:{c}:m:cc:slots"
    cli.zadd(key, {"a": 5, "b": 9})
    cli.zadd(current_key(key), {"b": 7, "c": 8})
    cli.pexpire(key, 90_000)
    cli.pexpire(current_key(key), 60_000)
    assert (await migrate()).conflicts == ()
    assert cli.zrange(current_key(key), 0, -1, withscores=True) == [(b"a", 5.0), (b"c", 8.0), (b"b", 9.0)]
    assert 60_000 < cli.pttl(current_key(key)) <= 90_000


async def test_a_marker_of_0_1_is_outdated_also_where_all_keys_beside_it_have_expired(redis_clean, migrate):
    # Fails if the check looks at counters alone: it would say that nothing is to be done, and nodes would refuse.
    redis_clean.cli.set("sc:store:mark", "ID 0 0")
    assert (await migrate(only_count=True)).outdated == {"markers": 1}
    assert (await migrate()).outdated == {"markers": 1}
    assert (await migrate(only_count=True)).outdated == {}


async def test_two_wallets_are_not_made_one_and_the_marker_stays_as_it_was(redis_clean, migrate):
    # Fails if one replaces the other: money would be gone. An operator looks at both.
    cli = redis_clean.cli
    cli.set("sc:store:mark", "ID 0 0")
    cli.hset("sc:{c}:wallet:usd", "debt", 5)
    cli.hset("sc:{c}:wallet:c:usd", "debt", 7)
    assert (await migrate()).conflicts == ("sc:{c}:wallet:usd",)
    assert (cli.hget("sc:{c}:wallet:usd", "debt"), cli.hget("sc:{c}:wallet:c:usd", "debt")) == (b"5", b"7")
    assert cli.get("sc:store:mark") == b"ID 0 0"


async def test_a_redis_that_does_not_answer_is_said(redis_clean):
    client = aioredis.Redis.from_url("redis://127.0.0.1:1")
    with pytest.raises(StoreError, match="redis: "):
        await migrate_keys(client, is_cluster=False, only_count=True, progress=lambda _keys: None)
    await client.aclose()


@pytest.mark.slow
async def test_the_keys_of_a_cluster_are_moved_on_each_of_its_nodes(tmp_path):
    cluster = RedisCluster(tmp_path)
    try:
        client = connect(endpoint_of(cluster.url), 10)
        keys = [f"sc:{{c{number}}}:monthly:cc{number}:2026-11" for number in range(50)]
        for key in keys:
            await client.set(key, 1)
        done = await migrate_keys(client, is_cluster=True, only_count=False, progress=lambda _keys: None)
        assert done == ({"quotas": 50}, ())
        assert [await client.get(current_key(key)) for key in keys] == [b"1"] * 50
        await disconnect(client)
    finally:
        cluster.close()
