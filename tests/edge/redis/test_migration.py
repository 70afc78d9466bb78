"""Mirrors sidecar/edge/redis/migration.py: the keys of version 0.1 in Redis, and names that both versions used."""

import asyncio
import re

import pytest
from redis import asyncio as aioredis
from redis.crc import key_slot

from sidecar.core.errors import StoreError
from sidecar.core.limits import check_for, current_key, wallet_keys
from sidecar.edge.keys.file_keys import FileKeys
from sidecar.edge.redis.endpoint import connect, disconnect
from sidecar.edge.redis.markers import GROUPS, marker_keys
from sidecar.edge.redis.migration import Conflict, is_migration_due, migrate_keys
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
    assert (await migrate())[:3] == (OUTDATED, 0, ())
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
    assert (await migrate(only_count=True))[:3] == (OUTDATED, 0, ())
    assert contents(redis_clean.cli) == before
    await migrate()
    assert (await migrate())[:3] == ({}, 0, ())


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
    assert (await migrate(only_count=True)).moved == {"markers": 1}
    assert (await migrate()).moved == {"markers": 1}
    assert (await migrate(only_count=True)).moved == {}


async def test_two_wallets_are_not_made_one_and_the_marker_stays_as_it_was(redis_clean, migrate):
    # Fails if one replaces the other: money would be gone. An operator looks at both.
    cli = redis_clean.cli
    cli.set("sc:store:mark", "ID 0 0")
    cli.hset("sc:{c}:wallet:usd", "debt", 5)
    cli.hset("sc:{c}:wallet:c:usd", "debt", 7)
    reason = "sc:{c}:wallet:c:usd has a value as well, and wallet cannot be added up"
    assert (await migrate())[:3] == ({}, 1, (Conflict("sc:{c}:wallet:usd", reason),))
    assert (cli.hget("sc:{c}:wallet:usd", "debt"), cli.hget("sc:{c}:wallet:c:usd", "debt")) == (b"5", b"7")
    assert cli.get("sc:store:mark") == b"ID 0 0"


@pytest.mark.parametrize(
    ("name", "before", "now", "reason"),
    [
        ("m:cc", {"id": 5}, None, "its type is zset, that of rates is string"),
        ("m:cc", {"id": 5}, "1796032089414690", "its type is zset, that of rates is string"),
        ("m:cc", "1796032089414690", {"id": 5}, "the type of sc:{c}:r=m:cc is zset, that of rates is string"),
        ("m:cc:slots", "7", {"id": 5}, "its type is string, that of slots is zset"),
        ("held:usd", "7", None, "its type is string, that of held is hash"),
        ("m:cc:2026-11", "seven", None, "its value or that of sc:{c}:q=m:cc:2026-11 is not a number as quotas have it"),
        ("m:cc:2026-11", "7", "1.5", "its value or that of sc:{c}:q=m:cc:2026-11 is not a number as quotas have it"),
        ("m:cc:2026-11", "9" * 19, "9", "its value or that of sc:{c}:q=m:cc:2026-11 is not a number as quotas have it"),
        ("m:cc", "soon", "179603208", "its value or that of sc:{c}:r=m:cc is not a number as rates have it"),
    ],
)
async def test_a_value_that_its_name_does_not_announce_stays_and_all_others_are_moved(
    redis_clean, migrate, name, before, now, reason
):
    # Fails if the script stops at such a key: slots of before 0.1 had the name of a rate.
    cli, key = redis_clean.cli, f"sc:{{c}}:{name}"
    for each, value in ((key, before), (current_key(key), now)):
        if value is not None:
            cli.zadd(each, value) if isinstance(value, dict) else cli.set(each, value)
    others = [f"sc:{{{number}}}:monthly:c{number}:2026-11" for number in range(300)]
    cli.mset(dict.fromkeys(others, "1") | {"sc:store:mark": "ID 0 0"})
    before = contents(cli)
    assert (await migrate(only_count=True))[:3] == ({"quotas": 300, "markers": 1}, 1, (Conflict(key, reason),))
    assert contents(cli) == before
    assert (await migrate())[:3] == ({"quotas": 300}, 1, (Conflict(key, reason),))
    assert contents(cli) == {other if other == key else current_key(other): value for other, value in before.items()}


async def test_of_many_keys_that_stay_the_first_are_named_and_all_are_counted(redis_clean, migrate):
    # Fails if each is kept in memory: there can be as many as there are customers.
    for number in range(130):
        redis_clean.cli.hset(f"sc:{{{number}}}:wallet:usd", "debt", 5)
        redis_clean.cli.hset(f"sc:{{{number}}}:wallet:{number}:usd", "debt", 7)
    done = await migrate()
    assert (done.stayed, len(done.conflicts)) == (130, 100)


@pytest.mark.parametrize(
    ("name", "before", "now", "kept"),
    [
        ("alert:m:cc:2026-11:50", "told", "claimed", b"told"),
        ("alert:m:cc:2026-11:50", "claimed", "told", b"told"),
        ("retry:94732C62E681B1", "01M8NXEFHJ", "01M8NXEFHK", b"01M8NXEFHJ"),
        ("retry:94732C62E681B1", "01M8NXEFHK", "01M8NXEFHJ", b"01M8NXEFHJ"),
    ],
)
async def test_an_alert_of_either_version_is_written_and_the_first_attempt_of_both_is_the_first(
    redis_clean, migrate, name, before, now, kept
):
    # Fails if these need an operator: each upgrade without a stop has some.
    cli, key = redis_clean.cli, f"sc:{{c}}:{name}"
    cli.set(key, before, px=90_000)
    cli.set(current_key(key), now, px=60_000)
    assert (await migrate()).stayed == 0
    assert (cli.get(current_key(key)), cli.exists(key)) == (kept, 0)
    assert 60_000 < cli.pttl(current_key(key)) <= 90_000


async def test_keys_that_nobody_wrote_for_the_sidecar_are_left_alone(redis_clean, migrate):
    # Fails if a name that is not ASCII, or has empty parts, ends the command with a traceback.
    names = [
        b"sc:{\xff}:m:cc",
        "sc:{\ufffd}:m:cc".encode(),
        b"sc:{a}:retry:",
        b"sc:{a}:",
        b"sc:{a}",
        b"sc:{",
        "sc:{ä}:m:cc:2026-11".encode(),
    ]
    redis_clean.cli.mset(dict.fromkeys(names, "7"))
    await migrate()
    assert sorted(redis_clean.cli.keys()) == sorted(
        b"sc:{a}:retry:a:" if name == b"sc:{a}:retry:" else name for name in names
    )


async def test_two_runs_at_once_move_every_key_once(redis_clean, migrate):
    # Fails if a move is not one step of Redis: a hold would be written anew, or units added up twice.
    write, expected = redis_clean.cli.pipeline(), {}
    for number in range(600):
        was, hold = f"sc:{{{number}}}", f"5 sc:{{{number}}}:credit.tokens:c{number}:2026-11 1 5 g,0,1,0,5"
        write.hset(f"{was}:held:usd", "ID", hold)
        write.mset({f"{was}:monthly:c{number}:2026-11": 3, f"{was}:q=monthly:c{number}:2026-11": 4})
        expected[f"{was}:held:{number}:usd"] = {b"ID": hold.replace(":credit", ":q=credit").encode()}
        expected[f"{was}:q=monthly:c{number}:2026-11"] = b"7"
    write.execute()
    done = await asyncio.gather(migrate(), migrate())
    assert sum(each.moved.get("quotas", 0) for each in done) == 600
    assert {name: value for name, (value, _) in contents(redis_clean.cli).items()} == expected


async def test_units_that_a_node_of_0_1_counts_meanwhile_are_added_up_by_the_next_run(redis_clean, migrate):
    # Fails if a move reads and writes in two steps.
    keys = [f"sc:{{{number}}}:monthly:c{number}:2026-11" for number in range(1_000)]
    client, counted = aioredis.Redis.from_url(redis_clean.url), 0
    async with asyncio.TaskGroup() as group:
        first = group.create_task(migrate())
        while not first.done():
            for key in keys[::100]:
                counted += 1
                await client.incr(key)
    await client.aclose()
    await migrate()
    values = [value for value, _ in contents(redis_clean.cli).values()]
    assert sum(map(int, values)) == counted


async def test_a_marker_that_a_node_changes_meanwhile_is_not_written_over(redis_clean, migrate):
    # Fails if it is set without a comparison: a loss of data would be forgotten.
    cli = redis_clean.cli
    cli.set("sc:store:mark", "ID 0 0")
    await migrate(only_count=True)
    client = aioredis.Redis.from_url(redis_clean.url)
    run = client.eval

    async def change_first(*words):
        cli.set("sc:store:mark", "OTHER 5 0 2")
        return await run(*words)

    client.eval = change_first
    await migrate_keys(client, is_cluster=False, only_count=False, progress=lambda _keys: None)
    await client.aclose()
    assert cli.get("sc:store:mark") == b"OTHER 5 0 2"


async def test_a_redis_that_does_not_answer_is_said(redis_clean):
    client = aioredis.Redis.from_url("redis://127.0.0.1:1")
    with pytest.raises(StoreError, match="redis: "):
        await migrate_keys(client, is_cluster=False, only_count=True, progress=lambda _keys: None)
    with pytest.raises(StoreError, match="redis: "):
        await is_migration_due(client, is_cluster=False)
    await client.aclose()


async def test_a_redis_that_is_lost_on_the_way_is_an_error_that_says_what_is_done(make_redis):
    # Fails if the number of moved keys is left out, or the rest is not moved by the next run.
    server = make_redis("appendonly yes", "appendfsync always")
    server.cli.mset({f"sc:{{{number}}}:monthly:c{number}:2026-11": 7 for number in range(3_000)})
    client = connect(endpoint_of(server.url), 10)
    with pytest.raises(StoreError, match=r"^redis: .+\. \d+ of its keys are moved; run this again for the others$"):
        await migrate_keys(client, is_cluster=False, only_count=False, progress=lambda _keys: server.kill())
    server.start()
    await migrate_keys(client, is_cluster=False, only_count=False, progress=lambda _keys: None)
    await disconnect(client)
    names = [f"sc:{{{number}}}:q=monthly:c{number}:2026-11" for number in range(3_000)]
    assert (server.cli.mget(names), server.cli.dbsize()) == ([b"7"] * 3_000, 3_000)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("user default on nopass ~* &* +@all -eval", "NOPERM|no permissions"),
        ("user default on nopass ~* &* +@all -scan", "NOPERM|no permissions"),
        ("maxmemory 1mb", "OOM|maxmemory"),
    ],
)
async def test_a_command_that_redis_refuses_is_an_error_in_its_words(make_redis, line, error):
    # Fails if a refusal is counted as a key that stays: nothing would be moved, and no reason named.
    server = make_redis()
    server.cli.mset({"sc:{c}:m:cc:2026-11": "5", "sc:{c}:q=m:cc:2026-11": "7"})
    name, _, value = line.partition(" ")
    if name == "user":
        server.cli.execute_command("ACL", "SETUSER", *value.split())
    else:
        server.cli.config_set(name, value)
    client = connect(endpoint_of(server.url), 10)
    with pytest.raises(StoreError, match=f"^redis: .*({error})"):
        await migrate_keys(client, is_cluster=False, only_count=False, progress=lambda _keys: None)
    await disconnect(client)
    assert (server.cli.get("sc:{c}:m:cc:2026-11"), server.cli.get("sc:{c}:q=m:cc:2026-11")) == (b"5", b"7")


async def test_connections_of_nodes_are_counted_where_the_user_may_ask(make_redis):
    # Fails if a user without that right cannot migrate.
    server = make_redis()
    node = aioredis.Redis.from_url(server.url, client_name="sidecar")
    await node.ping()
    client = connect(endpoint_of(server.url), 10)
    assert (await migrate_keys(client, is_cluster=False, only_count=True, progress=lambda _keys: None)).nodes == 1
    server.cli.execute_command("ACL", "SETUSER", "default", "-client")
    assert (await migrate_keys(client, is_cluster=False, only_count=True, progress=lambda _keys: None)).nodes == 0
    await node.aclose()
    await disconnect(client)


@pytest.mark.parametrize(("marker", "due"), [(None, False), ("ID 0 0", True), ("ID 0 0 2", False)])
async def test_the_marker_says_whether_a_migration_is_due(redis_clean, marker, due):
    if marker is not None:
        redis_clean.cli.set("sc:store:mark", marker)
    client = aioredis.Redis.from_url(redis_clean.url)
    assert await is_migration_due(client, is_cluster=False) is due
    await client.aclose()


@pytest.mark.slow
async def test_the_keys_of_a_cluster_are_moved_on_each_of_its_nodes(tmp_path):
    # Fails if a move is sent to a node that does not have the key, or a node's marker is left out.
    cluster = RedisCluster(tmp_path)
    try:
        client = connect(endpoint_of(cluster.url), 10)
        keys = [f"sc:{{c{number}}}:monthly:cc{number}:2026-11" for number in range(500)]
        for key in [*keys, *(current_key(key) for key in keys[::2])]:
            await client.set(key, 1)
        for marker in marker_keys(GROUPS):
            await client.set(marker, "ID 0 0")
        assert await is_migration_due(client, is_cluster=True)
        slot = key_slot(b"c7")
        cluster.migrating(slot, (cluster.owner(slot) + 1) % 3)
        with pytest.raises(StoreError, match="redis: "):  # such a slot refuses commands of two keys
            await migrate_keys(client, is_cluster=True, only_count=False, progress=lambda _keys: None)
        cluster.nodes[cluster.owner(slot)].cli.execute_command("CLUSTER", "SETSLOT", slot, "STABLE")
        await migrate_keys(client, is_cluster=True, only_count=False, progress=lambda _keys: None)
        assert not await is_migration_due(client, is_cluster=True)
        assert [await client.get(current_key(key)) for key in keys] == [b"2", b"1"] * 250
        assert await client.exists(*keys) == 0
        await disconnect(client)
    finally:
        cluster.close()
