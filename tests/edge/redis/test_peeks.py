"""The script is held to the rule by the property tests of test_counters.py and test_balances.py."""

import pytest
import redis.asyncio

from sidecar.core.decision.peek import WalletFigures
from sidecar.core.errors import StoreError
from sidecar.core.limits import checks_for
from sidecar.edge.clock import SystemClock
from sidecar.edge.redis.peeks import ClientPeeks, RedisPeeks
from tests.edge.counters_suite import DAY_US, WHO, credit, five, spent
from tests.edge.redis.at_once import Blocking

pytestmark = pytest.mark.redis


def ask(*limits, now_us=None):
    return checks_for(limits, (0,) * len(limits), WHO, SystemClock().now_us() if now_us is None else now_us)


@pytest.fixture
async def client(redis_clean):
    client = redis.asyncio.Redis(port=redis_clean.port)
    yield client
    await client.aclose()


async def test_a_question_writes_nothing_and_needs_no_script_that_is_known(client, redis_clean):
    # Fails if an unknown script is an error, or a mark is left.
    redis_clean.cli.script_flush()
    before = redis_clean.cli.keys("*")
    for limits in ((five,), (spent, credit)):
        shown = await ClientPeeks(client).peek(ask(*limits))
        assert shown.remaining in {(5,), (0, 0)}
    assert redis_clean.cli.keys("*") == before


async def test_it_is_answered_in_the_window_of_redis_s_clock(client):
    now_us = SystemClock().now_us()
    shown = await ClientPeeks(client).peek(ask(five, now_us=now_us - 40 * DAY_US))
    assert shown.checks.covers(now_us)
    assert shown.remaining == (5,)


@pytest.fixture
def commands(redis_clean):
    commands = Blocking(redis_clean.port)
    yield commands
    commands.close()


def asked(commands, checks):
    answers = []
    RedisPeeks(commands).peek(checks, answers.append)
    (answer,) = answers
    return answer


def test_a_worker_asks_over_its_own_connection(commands, redis_clean):
    # Fails if an unknown script is an answer, or one that is known is sent in full.
    redis_clean.cli.script_flush()
    assert [asked(commands, ask(five)).remaining for _ in range(2)] == [(5,), (5,)]
    assert [b"EVALSHA" in packed for packed in commands.sent] == [True, False, True]
    assert asked(commands, ask(spent, credit)).wallets == {1: WalletFigures()}
    now_us = SystemClock().now_us()
    assert asked(commands, ask(five, now_us=now_us - 40 * DAY_US)).checks.covers(now_us)


def test_an_error_of_redis_is_the_answer(commands, redis_clean):
    redis_clean.cli.set(ask(credit).entries[0].keys[0], "no wallet")
    answer = asked(commands, ask(spent, credit))
    assert isinstance(answer, StoreError)


async def test_a_redis_that_is_away_says_what_to_do():
    away = redis.asyncio.Redis(port=1)
    with pytest.raises(StoreError, match="repeat the command"):
        await ClientPeeks(away).peek(ask(five))
    await away.aclose()
