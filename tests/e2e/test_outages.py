"""A store or a broker that is away: the node goes on as its policies say, says so, and makes up for it afterwards."""

import asyncio
import time
from collections import Counter

import pytest

from tests.e2e.books import exchanges, joined, numbered, usage
from tests.e2e.harness import Caller, Traffic, counters, house, until
from tests.servers.faulty import FaultyProxy

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

SLOW_S = 0.5
TIMEOUT_S = 0.05  # of Redis, by default; the upstream's own pauses are shorter
POLICY = """\
routes:
  - { id: strict, match: { path: "/do/*/*/*/7" }, identity_headers: true }
  - { id: all, match: { path: "/**" }, identity_headers: true }
plans:
  wide:
    limits:
      - { id: monthly, quota: 1000000/month }
      - { id: strict, quota: 1000/month, on_store_failure: deny, routes: [strict] }
  tight:
    limits: [{ id: monthly, quota: 40/month }]
"""
CALLERS = [Caller("k-wide", "c-wide", "wide"), Caller("k-tight", "c-tight", "tight")]
LOAD = {"k-wide": 6, "k-tight": 2}


def _counted(redis, customer):
    return counters(redis.cli, customer, "monthly")[f"c{customer}"]


def _served(running, customer):
    """Units that the upstream served, by its own file."""
    return sum(entry["customer"] == customer and entry["status"] < 500 for entry in running.origin.seen())


def _modes(records, since=0.0):
    return Counter(record["data"]["decision"]["mode"] for record in exchanges(records))


async def test_without_redis_a_node_starts_serves_as_its_policies_say_and_catches_up(
    tmp_path, make_redis, kafka_server
):
    """Kong OSS (no limit at all, and what was let through is forgotten), Traefik #12043 (500 for all)."""
    # Fails if `on_store_failure` is not looked at, if a debt is dropped when the breaker opens, or if a start waits for
    # Redis until it is there.
    redis = make_redis(start=False)
    async with house(tmp_path, POLICY, CALLERS, bootstrap=kafka_server.bootstrap, redis=redis.url) as running:
        code, told = await running.node.tell("/readyz")
        assert code == 503
        assert any("redis has not answered yet" in reason for reason in told["reasons"])
        wide = [await running.ask("k-wide") for _ in range(10)]
        assert {answer.status for answer in wide} == {200}
        assert (await running.ask("k-wide", delay_ms=7)).status == 429, "this limit says deny"
        tight = [(await running.ask("k-tight")).status for _ in range(45)]
        assert Counter(tight) == {200: 40, 429: 5}, "a worker's share of the limit, no more"
        assert max(answer.took_s for answer in running.answers) < SLOW_S

        await asyncio.to_thread(redis.start)
        await running.ready()
        await until(lambda: _counted(redis, "c-wide") == 10, "the catching up")
        await until(lambda: _counted(redis, "c-tight") == 40, "the catching up")
        assert (await running.ask("k-tight")).status == 429, "what was let through counts"
        assert await running.stop() == 0, running.log()
        records = running.records()
        numbered(records)
        joined(running.answers, running.origin.seen(), records)
        assert _modes(records) == {"degraded": 50}


async def test_a_start_while_redis_is_far_decides_nothing_alone(tmp_path, make_redis, kafka_server):
    # Fails if a worker opens its port before it has reached a Redis that answers: limits would be exceeded.
    redis = make_redis()
    async with FaultyProxy(redis.port) as proxy:
        proxy.delay_us = 50_000
        url = f"redis://127.0.0.1:{proxy.port}/0"
        async with house(tmp_path, POLICY, CALLERS, bootstrap=kafka_server.bootstrap, redis=url) as running:
            assert {(await running.ask("k-wide")).status for _ in range(3)} == {200}
            assert await running.stop() == 0, running.log()
            assert _modes(running.records()) == {"exact": 3}


async def test_a_redis_that_is_killed_in_mid_traffic_costs_no_answer_and_its_counters_are_made_whole(
    tmp_path, make_redis, kafka_server
):
    """litellm #30460 (added again after a timeout), envoyproxy/ratelimit #462 (each call waits the timeout)."""
    # Fails if debts are not paid.
    redis = make_redis("appendonly yes", "appendfsync always")  # so that the counter's whole history can be checked
    async with house(
        tmp_path, POLICY, CALLERS, bootstrap=kafka_server.bootstrap, redis=redis.url, redis_timeout="50ms", workers=2
    ) as running:
        await running.ready()
        async with Traffic(running, LOAD) as traffic:
            await traffic.answered(100)
            await asyncio.to_thread(redis.kill)
            killed_s = time.monotonic()
            await traffic.answered(300)
            assert (await running.node.tell("/readyz"))[0] == 200, "it serves"
            status = await running.node.until(
                lambda status: all("redis" in child["away"] for child in status["children"][:2])
            )
            assert status["children"][0]["away"]["redis"]
            await asyncio.to_thread(redis.start)
            await running.node.until(lambda status: not any("redis" in child["away"] for child in status["children"]))
            await traffic.answered(100)
        answers = running.answers
        assert {answer.status for answer in answers} <= {200, 404, 429, 500}
        assert not [answer for answer in answers if answer.status == 500 and _our_own(answer)]
        assert max(answer.took_s for answer in answers if answer.sent_s > killed_s - 1) < SLOW_S
        await until(lambda: _counted(redis, "c-wide") == _served(running, "c-wide"), "the catching up")
        assert await running.stop() == 0, running.log()

        records = running.records()
        numbered(records)
        joined(answers, running.origin.seen(), records)
        modes = _modes(records)
        assert modes["degraded"] > 0
        assert modes["exact"] + modes["leased"] > 100
        for customer in ("c-wide", "c-tight"):
            assert _counted(redis, customer) == usage(records)[customer]
        assert usage(records)["c-tight"] <= 40 + 40, "the limit, and what `sidecar check` says may come on top"


def _our_own(answer):
    return answer.body[:1] == b"{"


async def test_a_redis_that_freezes_slows_nobody_down(tmp_path, make_redis, kafka_server):
    # Fails if the mark of idempotency is taken out of reserve.lua: what had reached Redis is reserved again, and counts
    # twice. Two things keep requests from waiting, the breaker and a wire that is given up: either one is enough here.
    redis = make_redis()
    async with house(
        tmp_path, POLICY, CALLERS, bootstrap=kafka_server.bootstrap, redis=redis.url, redis_timeout="50ms"
    ) as running:
        await running.ready()
        async with Traffic(running, {"k-wide": 6}) as traffic:
            await traffic.answered(100)
            redis.pause()
            before = len(running.answers)
            await traffic.answered(300)
            late = [answer for answer in running.answers[before:] if answer.took_s > TIMEOUT_S]
            assert len(late) < 150, "they wait for the timeout, one after the other"
            redis.resume()
            await traffic.answered(100)
        assert {answer.status for answer in running.answers} <= {200, 404, 500}
        assert max(answer.took_s for answer in running.answers) < SLOW_S
        await until(lambda: _counted(redis, "c-wide") == _served(running, "c-wide"), "the catching up")
        assert await running.stop() == 0, running.log()
        records = running.records()
        joined(running.answers, running.origin.seen(), records)
        assert _modes(records)["degraded"] > 100
        assert _counted(redis, "c-wide") == usage(records)["c-wide"]


async def test_without_kafka_records_wait_and_arrive_once(tmp_path, make_redis, kafka_server):
    """tyk-pump (popped, then lost), APISIX #8555 (silent after the broker's restart)."""
    # Fails if the shipper gives up.
    redis = make_redis()
    async with _kafka_away(kafka_server) as proxy:
        where = f"127.0.0.1:{proxy.port}"
        async with house(
            tmp_path, POLICY, CALLERS, bootstrap=kafka_server.bootstrap, redis=redis.url, workers=2, where=where
        ) as running:
            code, told = await running.node.tell("/readyz")
            assert code == 200, "the journal takes all"
            assert "kafka has not answered yet" in told["degraded"]["shipper"]
            async with Traffic(running, LOAD) as traffic:
                await traffic.answered(300)
                assert running.records() == []
                proxy.refuse = False
                await traffic.answered(100)
            assert await running.stop() == 0, running.log()
            records = running.records()
            numbered(records)
            joined(running.answers, running.origin.seen(), records)
            assert all(answer.status for answer in running.answers)


async def test_what_a_stopped_node_could_not_ship_is_carried_later(tmp_path, make_redis, kafka_server):
    # Fails if a drain throws away what it cannot ship, or if `sidecar ship` goes by a position of its own.
    redis = make_redis()
    async with (
        _kafka_away(kafka_server) as proxy,
        house(
            *(tmp_path, POLICY, CALLERS),
            bootstrap=kafka_server.bootstrap,
            redis=redis.url,
            workers=2,
            where=f"127.0.0.1:{proxy.port}",
            drain_seconds=2,
        ) as running,
    ):
        async with Traffic(running, LOAD) as traffic:
            await traffic.answered(200)
        assert await running.stop() == 1, "records are left in the journal"
        assert running.records() == []
        for _ in range(2):  # the second time there is nothing to do
            await running.sidecar("ship", "-c", str(tmp_path / "topics.yaml"))
        records = running.records()
        numbered(records)
        joined(running.answers, running.origin.seen(), records)


async def test_a_full_journal_refuses_what_it_could_not_record_and_recovers(tmp_path, make_redis, kafka_server):
    # Fails if the cap is not looked at, if the reservation of a refused request is kept, or if nothing is freed again.
    redis = make_redis()
    async with _kafka_away(kafka_server) as proxy:
        where = f"127.0.0.1:{proxy.port}"
        more = "journal: { cap_bytes: 131072, segment_bytes: 65536, on_full: reject }"
        async with house(
            tmp_path, POLICY, CALLERS, bootstrap=kafka_server.bootstrap, redis=redis.url, where=where, more=more
        ) as running:
            await _fill(running, lambda answers: any(answer.status == 503 for answer in answers))
            problem = running.answers[-1]
            assert b'"type"' in problem.body, problem
            assert (await running.totals())["sidecar_journal_full"] == 1
            proxy.refuse = False
            await running.ready()
            await _serves_again(running)
            assert await running.stop() == 0, running.log()
            records = running.records()
            numbered(records)
            joined(running.answers, running.origin.seen(), records)
            assert _counted(redis, "c-wide") == usage(records)["c-wide"] == _served(running, "c-wide")


async def test_a_full_journal_that_is_to_serve_serves_and_counts_what_nobody_will_bill(
    tmp_path, make_redis, kafka_server
):
    # Fails if a full journal that serves is not shown as full, or if what it let pass is not counted one by one.
    redis = make_redis()
    async with _kafka_away(kafka_server) as proxy:
        where = f"127.0.0.1:{proxy.port}"
        more = "journal: { cap_bytes: 131072, segment_bytes: 65536, on_full: serve }"
        async with house(
            tmp_path, POLICY, CALLERS, bootstrap=kafka_server.bootstrap, redis=redis.url, where=where, more=more
        ) as running:
            await _fill(running, lambda answers: len(answers) == 400)
            assert {answer.status for answer in running.answers} == {200}
            unrecorded = (await running.totals())["sidecar_unrecorded_total"]
            assert unrecorded > 0
            assert (await running.totals())["sidecar_journal_full"] == 1, "an operator is told"
            proxy.refuse = False
            await running.ready()
            deadline = time.monotonic() + 20
            while (await running.totals())["sidecar_journal_full"]:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            last = await running.ask("k-wide")
            assert await running.stop() == 0, running.log()
            records = running.records()
            numbered(records)
            assert last.id in {record["id"] for record in records}
            assert len(exchanges(records)) + unrecorded == len(running.answers) == len(running.origin.seen())
            assert _counted(redis, "c-wide") == len(running.answers)


def _kafka_away(kafka_server):
    proxy = FaultyProxy(int(kafka_server.bootstrap.rpartition(":")[2]))
    proxy.refuse = True
    return proxy


async def _fill(running, full):
    client = running.client("k-wide")
    deadline = time.monotonic() + 20
    while not full(running.answers):
        assert time.monotonic() < deadline
        await client.ask(running.nonce())
    client.hang_up()


async def _serves_again(running):
    deadline = time.monotonic() + 20
    while (await running.ask("k-wide")).status != 200:
        assert time.monotonic() < deadline, await running.node.tell("/status")
        await asyncio.sleep(0.05)
