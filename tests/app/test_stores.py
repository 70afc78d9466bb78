import asyncio
import os

import pytest
import redis

from sidecar.app.stores import CounterStore
from sidecar.config.settings import load_settings
from sidecar.core.decision import Decision
from sidecar.core.errors import StoreError
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.core.record import Ids
from sidecar.edge.clock import SystemClock
from sidecar.edge.leases import BYTES
from sidecar.testing import HandClock
from tests.servers.talk import until

CLOCK = SystemClock()
IDS = Ids(7)
ACME = Identity("k1", "s1", "acme", "free")


def mint():
    return IDS.mint(CLOCK.now_us() // 1000)


def settings(folder, text=""):
    path = folder / "sidecar.yaml"
    path.write_text(f"keys: {{ file: keys.yaml }}\n{text}")
    return load_settings(path, {})


def reserve(store, amount=2):
    limit = Limit("monthly", "quota", amount, calendar="month")
    told = []
    store.port.reserve(mint(), checks_for((limit,), (1,), ACME, CLOCK.now_us()), told.append)
    return told


def test_without_redis_counters_are_in_memory_and_nothing_can_be_away(tmp_path):
    store = CounterStore(settings(tmp_path), CLOCK, mint, 0)
    assert [reserve(store)[0].allowed for _ in range(3)] == [True, True, False]
    assert store.wire is None
    assert store.degraded_s == 0
    assert store.figures().gauges == {}


@pytest.fixture
async def stores(tmp_path, redis_clean):
    """Those of two workers, connected."""
    given = settings(tmp_path, f"redis: {{ url: '{redis_clean.url}' }}\nworkers: 2\n")
    made = [CounterStore(given, CLOCK, mint, index) for index in range(2)]
    for store in made:
        store.start()
    await until(lambda: all(store.wire.ready for store in made), "both connected")
    yield made
    for store in made:
        await store.aclose()


@pytest.mark.redis
async def test_on_redis_two_workers_share_one_limit(stores):
    # Fails if the chain ends in the worker's own memory.
    told = [reserve(store) for store in stores * 2]
    await until(lambda: all(told), "four decisions")
    assert sorted(said.allowed for (said,) in told) == [False, False, True, True]
    assert {said.mode for (said,) in told} == {"exact"}


def first(store, id_):
    told = []
    store.retries.first(ACME, b"key", 60_000_000, id_, told.append)
    return told


def test_without_redis_first_attempts_and_alerts_are_in_memory(tmp_path):
    store = CounterStore(settings(tmp_path), CLOCK, mint, 0)
    assert [first(store, id_) for id_ in (mint(), mint())] == [[True], [False]]


def test_an_alert_that_nobody_wrote_down_is_due_again_after_a_minute_s_ticks(tmp_path):
    # Mutation: the tick leaves the alerts out.
    clock, found = HandClock(), []
    store = CounterStore(settings(tmp_path), clock, mint, 0)
    limit = Limit("monthly", "quota", 10, calendar="month", alerts=(50,))
    said = Decision(checks_for((limit,), (1,), ACME, clock.now_us()), clock.now_us(), (5,), (0,))
    store.alerts.evaluate(said, found.append)
    clock.turn(60_000_000)
    store.alerts.evaluate(said, found.append)
    assert len(found) == 1
    store.tick(None, None)
    store.alerts.evaluate(said, found.append)
    assert len(found) == 2


@pytest.mark.redis
async def test_on_redis_two_workers_share_first_attempts_and_told_alerts(stores):
    # Fails if either lies in the worker's own memory.
    found = []
    limit = Limit("monthly", "quota", 10, calendar="month", alerts=(50,))
    said = Decision(checks_for((limit,), (1,), ACME, CLOCK.now_us()), CLOCK.now_us(), (5,), (0,))
    told = []
    for store in stores:
        store.alerts.evaluate(said, found.append)
        told.append(first(store, mint()))
        await until(lambda: told[-1], "the answer, and so that to what was asked before it")
    assert told == [[True], [False]]
    assert len(found) == 1


@pytest.mark.redis
async def test_while_the_breaker_is_open_nobody_waits_for_first_attempts(tmp_path, make_redis):
    # Mutation: they are asked for all the same, and each request waits out its own timeout.
    server = make_redis()
    store = CounterStore(settings(tmp_path, f"redis: {{ url: '{server.url}' }}\n"), CLOCK, mint, 0)
    store.start()
    await until(lambda: store.wire.ready, "connected")
    server.pause()
    told = [reserve(store) for _ in range(8)]
    await until(lambda: all(told), "eight decisions without Redis")
    assert store.breaker.is_open
    assert isinstance(first(store, mint())[0], StoreError)
    server.resume()
    await store.aclose()


@pytest.mark.redis
async def test_what_is_owed_is_told_before_the_end(tmp_path, make_redis):
    # Fails if `settle_up` returns while something is owed.
    server = make_redis()
    given = settings(tmp_path, f"redis: {{ url: '{server.url}' }}\n")
    store = CounterStore(given, CLOCK, mint, 0)
    store.start()
    await until(lambda: store.wire.ready, "connected")
    server.kill()
    await until(lambda: not store.wire.ready, "the loss seen")
    told = reserve(store, amount=100)
    assert isinstance(told[0], Decision)
    assert told[0].mode == "degraded"
    assert store.degraded.owed == 1
    server.start()
    await store.settle_up()
    assert store.degraded.owed == 0
    with redis.Redis.from_url(server.url) as client:
        assert [client.get(key) for key in client.scan_iter("sc:{acme}:q=monthly:*")] == [b"1"]
    await store.aclose()


@pytest.mark.redis
async def test_with_leases_steady_demand_is_answered_without_redis_and_the_rest_goes_back_at_the_end(
    tmp_path, redis_clean
):
    # Mutation: `settle_up` recalls nothing, or the chain begins behind the leases.
    store = CounterStore(settings(tmp_path, f"redis: {{ url: '{redis_clean.url}' }}\n"), CLOCK, mint, 0)
    store.start()
    await until(lambda: store.wire.ready, "connected")
    limit = Limit("monthly", "quota", 100_000, calendar="month")
    checks = checks_for((limit,), (1,), ACME, CLOCK.now_us())
    told = []

    async def asks():
        for _ in range(3):
            store.port.reserve(mint(), checks, told.append)
        await asyncio.sleep(0.001)

    for _ in range(4):
        turn = CLOCK.mono_us() + 100_000
        while CLOCK.mono_us() < turn:
            await asks()
        store.adjust_leases()
    assert {said.mode for said in told} == {"exact", "leased"}
    assert store.figures().gauges["leased_units"] > 0
    assert store.figures().counts["leases"] >= 1
    await store.settle_up()
    await store.aclose()
    assert store.figures().gauges["leased_units"] == 0
    with redis.Redis.from_url(redis_clean.url) as client:
        assert [int(client.get(key)) for key in client.scan_iter("sc:{acme}:q=monthly:*")] == [len(told)]
    assert all(said.allowed for said in told)


@pytest.mark.redis
async def test_what_a_killed_worker_had_leased_goes_back_when_another_starts_in_its_place(tmp_path, redis_clean):
    # Mutation: `start` adopts nothing.
    given = settings(tmp_path, f"redis: {{ url: '{redis_clean.url}' }}\n")
    hand = os.memfd_create("hand")
    os.ftruncate(hand, BYTES)
    killed, spent = CounterStore(given, CLOCK, mint, 0), 0
    killed.start(hand)
    await until(lambda: killed.wire.ready, "connected")
    limit = Limit("monthly", "quota", 100_000, calendar="month")
    checks = checks_for((limit,), (1,), ACME, CLOCK.now_us())
    while not killed.figures().gauges["leased_units"]:
        told = []
        for _ in range(20):
            killed.port.reserve(mint(), checks, told.append)
        await until(lambda told=told: len(told) == 20, "answered")
        killed.adjust_leases()
        spent += 20
    assert counted(redis_clean) > spent
    successor = CounterStore(given, CLOCK, mint, 0)
    successor.start(hand)
    await until(lambda: successor.wire.ready, "connected")
    await until(lambda: successor.adjust_leases() or counted(redis_clean) == spent, "given back")
    for store in (killed, successor):
        await store.aclose()
    os.close(hand)


def counted(server):
    with redis.Redis.from_url(server.url) as client:
        return sum(int(client.get(key)) for key in client.scan_iter("sc:{acme}:q=monthly:*"))


async def test_without_leases_there_is_nothing_to_adjust(tmp_path):
    store = CounterStore(settings(tmp_path, "redis: { url: 'redis://127.0.0.1:1', leases: false }\n"), CLOCK, mint, 0)
    store.adjust_leases()
    store.recall()
    assert store.leases is None
    assert "leased_units" not in store.figures().gauges


class Reports:
    """The link of a worker: what it reports of its dependencies."""

    def __init__(self):
        self.away_now = {}

    def away(self, what, why):
        self.away_now[what] = why

    def back(self, what):
        self.away_now.pop(what, None)


# Fails if a forbidden command looks like an outage: limits would be decided locally in silence.
@pytest.mark.redis
@pytest.mark.parametrize("missing", ["-evalsha", "-zadd"])
async def test_a_redis_user_without_a_command_is_reported_until_it_has_it(tmp_path, make_redis, missing):
    server = make_redis()
    server.cli.execute_command("ACL", "SETUSER", "gw", "on", ">pw", "~sc:*", "&sc:*", "+@all", missing)
    url = server.url.replace("redis://", "redis://gw:pw@")
    store = CounterStore(settings(tmp_path, f"redis: {{ url: '{url}', leases: false }}\n"), CLOCK, mint, 0)
    store.start()
    await until(lambda: store.wire.ready, "a connection")
    link = Reports()
    store.tick(link, None)
    assert link.away_now == {}
    limit = Limit("slots", "concurrency", 2, period_us=60_000_000)

    async def decide():
        told = []
        store.port.reserve(mint(), checks_for((limit,), (1,), ACME, CLOCK.now_us()), told.append)
        await until(lambda: told, "a decision")
        return told[0].mode

    assert await decide() != "exact"
    store.tick(link, None)
    assert "its user may not do what limits need, so they are decided locally: " in link.away_now["redis permissions"]
    assert store.figures().counts["store_forbidden"] > 0
    server.cli.execute_command("ACL", "SETUSER", "gw", "+@all")
    await decide()
    for _ in range(12):
        store.tick(link, None)
    assert link.away_now == {}
    await store.aclose()


@pytest.mark.redis
async def test_why_redis_cannot_be_reached_is_reported(tmp_path, make_redis):
    server = make_redis()
    url = server.url.replace("redis://", "redis://gw:wrong@")
    store = CounterStore(settings(tmp_path, f"redis: {{ url: '{url}' }}\n"), CLOCK, mint, 0)
    store.start()
    link = Reports()

    def is_reported():
        store.tick(link, None)
        return "invalid username-password pair" in link.away_now["redis"]

    await until(is_reported, "the reason")
    await store.aclose()
