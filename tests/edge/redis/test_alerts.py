import json
from dataclasses import replace

import jsonschema
import pytest
import redis.asyncio

from sidecar.core.decision import Decision
from sidecar.core.errors import StoreError, StoreReason
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.core.price.wallet import Grant
from sidecar.core.record import alert_record, record_schema
from sidecar.edge.memory.alerts import AGAIN_US, MemoryAlerts
from sidecar.edge.redis import alerts as redis_alerts
from sidecar.edge.redis.alerts import CLAIM_MS, GRACE_US, TOPPED_TICKS, RedisAlerts
from sidecar.edge.redis.wallet import RedisWallet
from sidecar.testing import HandClock
from tests.edge.alerts_suite import ANN, AlertsSuite, decision, look, pass_a_minute, tell
from tests.edge.redis.at_once import AtOnce

pytestmark = pytest.mark.redis
YEAR_2099_US = 4_101_537_600_000_000  # what Redis keeps until a window's end outlives the test


class Worker:
    """One of several: its own memory, connection and knowledge of whether the store is away."""

    def __init__(self, port, clock):
        self.commands = AtOnce(port)
        self.away = False
        self.alerts = RedisAlerts(MemoryAlerts(clock), self.commands, clock, lambda: self.away)


@pytest.fixture
def clock():
    return HandClock(YEAR_2099_US)


@pytest.fixture
def workers(redis_clean, clock):
    made = [Worker(redis_clean.port, clock) for _ in range(3)]
    yield made
    for each in made:
        each.commands.close()


@pytest.fixture
def alerts(redis_clean, workers, clock):
    turned = clock.turn

    def turn(us):  # Redis's clock is not ours to turn: what would have run out by then is taken away
        turned(us)
        if us >= CLAIM_MS * 1000:
            claims_run_out(redis_clean)

    clock.turn = turn
    return workers[0].alerts


def claims_run_out(server):
    for key in server.cli.scan_iter("sc:*:alert:*"):
        if server.cli.get(key) == b"claimed":
            server.cli.delete(key)


class TestRedisAlerts(AlertsSuite):
    pass


def test_over_all_workers_a_threshold_is_told_once(clock, workers):
    # Mutation: the claim is not asked for.
    said = [decision(clock, used) for used in (5_000, 5_001, 8_000)]
    assert [tell(worker.alerts, *said) for worker in workers] == [[50, 80], [], []]


def test_one_that_was_told_is_asked_for_once_by_each_worker(clock, workers):
    # Mutation: WRITTEN is not remembered, so that every minute each counter past a threshold costs a command.
    said = decision(clock, 5_000)
    tell(workers[0].alerts, said)
    for _ in range(3):
        tell(workers[1].alerts, said, said)
        pass_a_minute(clock, workers[1].alerts)
    assert len(workers[1].commands.sent) == 1


def test_one_whose_claimer_was_killed_is_told_by_the_next_to_look(clock, redis_clean, workers):
    # Mutations: the claim lasts; another's claim is taken for told.
    said = decision(clock, 5_000)
    assert look(workers[0].alerts, said) == [50]  # and killed before it was written
    assert tell(workers[1].alerts, said) == []
    (key,) = redis_clean.cli.keys("*")
    assert 0 < redis_clean.cli.pttl(key) <= CLAIM_MS
    assert CLAIM_MS * 1000 < AGAIN_US
    claims_run_out(redis_clean)
    pass_a_minute(clock, workers[1].alerts)
    assert tell(workers[1].alerts, said) == [50]
    assert tell(workers[2].alerts, said) == []


def test_what_was_told_stays_so_until_the_period_is_over(clock, redis_clean, workers):
    # Mutation: the mark does not put the claim's end off.
    tell(workers[0].alerts, decision(clock, 5_000))
    (key,) = redis_clean.cli.keys("*")
    assert key == b"sc:{cust-ann}:alert:q=monthly:ccust-ann:2099-12:50"
    end_us = decision(clock, 0).checks.entries[1].window.end_us
    assert redis_clean.cli.execute_command("PTTL", key) > CLAIM_MS
    until_ms = redis_clean.cli.execute_command("PTTL", key) + int(redis_clean.cli.time()[0]) * 1000
    assert abs(until_ms - (end_us + GRACE_US) // 1000) < 5_000


def test_the_record_s_id_is_the_same_whoever_tells(clock, redis_clean, workers):
    found = []
    workers[0].alerts.evaluate(decision(clock, 5_000), found.append)
    redis_clean.cli.flushall()
    workers[1].alerts.evaluate(decision(clock, 6_000), found.append)
    assert found[0].id == found[1].id


def test_a_mark_that_redis_did_not_take_is_sent_again(clock, redis_clean, workers):
    # Mutation: `tick` sends nothing, so that another worker tells it again once the claim has run out.
    one, two, _ = workers
    found = []
    one.alerts.evaluate(decision(clock, 5_000), found.append)
    one.commands.lost = StoreError("redis: no reply", StoreReason.NO_REPLY)
    one.alerts.wrote(found[0])
    one.commands.lost = None
    one.alerts.tick()
    claims_run_out(redis_clean)
    assert tell(two.alerts, decision(clock, 5_000)) == []
    sent = len(one.commands.sent)
    one.alerts.tick()
    assert len(one.commands.sent) == sent


def test_a_mark_is_not_sent_past_its_period_nor_to_a_store_that_is_away(clock, workers):
    one = workers[0]
    found = []
    one.alerts.evaluate(decision(clock, 5_000), found.append)
    one.away = True
    sent = len(one.commands.sent)
    one.alerts.wrote(found[0])
    one.alerts.tick()
    clock.turn(60 * 86_400_000_000)
    one.away = False
    one.alerts.tick()
    assert (len(one.commands.sent), one.alerts._unmarked) == (sent, {})


def test_marks_that_cannot_be_sent_cost_no_memory(clock, workers, monkeypatch):
    monkeypatch.setattr(redis_alerts, "UNMARKED", 2)
    one = workers[0]
    found = []
    one.alerts.evaluate(decision(clock, 10_000), found.append)
    one.away = True
    for alert in found:
        one.alerts.wrote(alert)
    assert [key.rpartition(":")[2] for key in one.alerts._unmarked] == ["80", "100"]


def test_while_the_store_is_away_nothing_is_asked_and_nothing_is_lost(clock, workers):
    one = workers[0]
    one.away = True
    assert look(one.alerts, decision(clock, 5_000)) == []
    assert one.commands.sent == []
    one.away = False
    pass_a_minute(clock, one.alerts)
    assert tell(one.alerts, decision(clock, 5_000)) == [50]


def test_an_answer_that_was_an_error_is_asked_for_again(clock, redis_clean, workers):
    one = workers[0]
    one.commands.lost = StoreError("redis: READONLY")
    assert look(one.alerts, decision(clock, 5_000)) == []
    one.commands.lost = None
    pass_a_minute(clock, one.alerts)
    assert tell(one.alerts, decision(clock, 5_000, who=ANN)) == [50]
    assert {slot_key for slot_key, _ in one.commands.sent} == {"sc:{cust-ann}:alert:q=monthly:ccust-ann:2099-12:50"}


# A balance: percents of what could be spent right after the newest grant.

CREDIT = Limit("credit", "balance", 0, scope="customer", unit="usd", period_us=600_000_000, alerts=(50, 80, 100))
USD = 1_000_000_000


def left(clock, amount, mode="exact"):
    checks = checks_for((CREDIT,), (0,), ANN, clock.now_us())
    return Decision(checks, clock.now_us(), (amount,), (0,), mode=mode)


async def grant(server, id_, amount, starts_us=0, customer="cust-ann"):
    client = redis.asyncio.Redis(host="127.0.0.1", port=server.port)
    made = await RedisWallet(client, customer, "usd").grant(Grant(id_, 0, starts_us, 0, amount, amount))
    assert made.done == "made"
    await client.aclose()


def see_top_up(alerts):
    for _ in range(TOPPED_TICKS):
        alerts.tick()


async def test_a_balance_tells_how_much_of_the_last_top_up_is_gone_once_over_all_workers(clock, redis_clean, workers):
    await grant(redis_clean, "g1", 10 * USD)
    said = [left(clock, amount) for amount in (5 * USD + 1, 5 * USD, 2 * USD, 1, 0)]
    assert [tell(workers[0].alerts, each) for each in said] == [[], [50], [80], [], [100]]
    assert tell(workers[1].alerts, *said) == []


async def test_a_top_up_begins_another_period_from_what_is_there_after_it(clock, redis_clean, workers):
    # Mutations: percents of the grant alone; of all that was ever granted; the period is the wallet's.
    one = workers[0].alerts
    await grant(redis_clean, "g1", 10 * USD)
    assert tell(one, left(clock, 0)) == [50, 80, 100]
    await grant(redis_clean, "g2", 20 * USD)
    see_top_up(one)
    assert tell(one, left(clock, 30 * USD), left(clock, 15 * USD), left(clock, 14 * USD)) == [50]


async def test_an_alert_of_a_balance_meets_the_schema_and_says_what_there_was(clock, redis_clean, workers):
    await grant(redis_clean, "purchase:1 {x}", 10 * USD)
    found = []
    workers[0].alerts.evaluate(left(clock, -USD), found.append)
    said = json.loads(alert_record(found[0], "pro@1", clock.now_us(), "//sidecar/a/b/1/1", 1))
    assert list(jsonschema.Draft202012Validator(record_schema()).iter_errors(said)) == []
    assert said["data"] == {
        "customer": "cust-ann",
        "account": "cust-ann",
        "plan": "pro@1",
        "limit": "credit",
        "scope": "customer",
        "unit": "usd",
        "period": "purchase:1 {x}",
        "percent": 50,
        "used": 11 * USD,
        "amount": 10 * USD,
    }
    assert found[0].key == "sc:{cust-ann}:alert:b=credit:ccust-ann:gpurchase%3A1%20%7Bx%7D:50"


async def test_what_was_told_of_a_balance_is_kept_for_two_years(clock, redis_clean, workers):
    await grant(redis_clean, "g1", 10 * USD)
    tell(workers[0].alerts, left(clock, 5 * USD))
    (key,) = redis_clean.cli.keys("*:alert:*")
    assert redis_clean.cli.pttl(key) > 2 * 365 * 86_400_000


async def test_a_grant_that_has_not_started_begins_no_period(clock, redis_clean, workers):
    # Mutations: what cannot be spent yet counts as spent; the later grant's id is taken for a period.
    await grant(redis_clean, "g1", 10 * USD)
    assert tell(workers[0].alerts, left(clock, 5 * USD)) == [50]
    await grant(redis_clean, "g2", 90 * USD, starts_us=YEAR_2099_US)
    see_top_up(workers[0].alerts)
    assert tell(workers[0].alerts, left(clock, 10 * USD), left(clock, 5 * USD)) == []
    await grant(redis_clean, "g3", 10 * USD)
    see_top_up(workers[0].alerts)
    assert tell(workers[0].alerts, left(clock, 20 * USD), left(clock, 10 * USD)) == [50]


def test_a_wallet_that_nobody_filled_tells_nothing_and_is_asked_about_once_in_a_while(clock, workers):
    one = workers[0]
    assert tell(one.alerts, *(left(clock, -amount) for amount in range(5))) == []
    assert len(one.commands.sent) == 1
    see_top_up(one.alerts)
    assert tell(one.alerts, left(clock, 0), left(clock, 0)) == []
    assert len(one.commands.sent) == 2


async def test_of_a_balance_nothing_is_told_on_figures_that_are_not_exact_nor_asked_of_a_store_that_is_away(
    clock, redis_clean, workers
):
    await grant(redis_clean, "g1", 10 * USD)
    one = workers[0]
    one.away = True
    assert tell(one.alerts, left(clock, 0), left(clock, 0, mode="degraded")) == []
    assert one.commands.sent == []
    one.away = False
    assert tell(one.alerts, left(clock, 0, mode="degraded")) == []
    assert tell(one.alerts, left(clock, 0)) == [50, 80, 100]


def test_wallets_without_number_cost_no_memory(clock, workers, monkeypatch):
    monkeypatch.setattr(redis_alerts, "TOPPED_MAX", 10)
    for number in range(25):
        who = replace(ANN, customer=f"cust-{number}")
        tell(workers[0].alerts, Decision(checks_for((CREDIT,), (0,), who, 1), 1, (0,), (0,)))
    assert len(workers[0].alerts._topped) <= 10
