import pytest

from sidecar.core.errors import StoreError
from sidecar.edge import redis_alerts
from sidecar.edge.memory_alerts import AGAIN_US, MemoryAlerts
from sidecar.edge.redis_alerts import CLAIM_MS, KEPT_US, RedisAlerts
from sidecar.testing import HandClock
from tests.edge.alerts_suite import ANN, AlertsSuite, decision, look, pass_a_minute, tell
from tests.edge.at_once import AtOnce

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
    # Mutation: TOLD is not remembered, so that every minute each counter past a threshold costs a command.
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
    assert key == b"sc:{cust-ann}:alert:monthly:ccust-ann:2099-12:50"
    end_us = decision(clock, 0).checks.ends_us[1]
    assert redis_clean.cli.execute_command("PTTL", key) > CLAIM_MS
    until_ms = redis_clean.cli.execute_command("PTTL", key) + int(redis_clean.cli.time()[0]) * 1000
    assert abs(until_ms - (end_us + KEPT_US) // 1000) < 5_000


def test_the_record_s_id_is_the_same_whoever_tells(clock, redis_clean, workers):
    found = []
    workers[0].alerts.look(decision(clock, 5_000), found.append)
    redis_clean.cli.flushall()
    workers[1].alerts.look(decision(clock, 6_000), found.append)
    assert found[0].id == found[1].id


def test_a_mark_that_redis_did_not_take_is_sent_again(clock, redis_clean, workers):
    # Mutation: `tick` sends nothing, so that another worker tells it again once the claim has run out.
    one, two, _ = workers
    found = []
    one.alerts.look(decision(clock, 5_000), found.append)
    one.commands.lost = StoreError("redis: no reply", maybe_applied=True)
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
    one.alerts.look(decision(clock, 5_000), found.append)
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
    one.alerts.look(decision(clock, 10_000), found.append)
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
    assert {slot_key for slot_key, _ in one.commands.sent} == {"sc:{cust-ann}:alert:monthly:ccust-ann:2099-12:50"}
