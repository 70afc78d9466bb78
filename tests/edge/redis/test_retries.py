import pytest

from sidecar.core.errors import StoreError, StoreReason
from sidecar.core.identity import Identity
from sidecar.edge.redis.retries import RedisRetries, retry_key
from tests.edge.redis.at_once import AtOnce
from tests.edge.retries_suite import ANN, DAY_US, ONE, TWO, RetriesSuite, ask
from tests.servers.redis import wait_until

pytestmark = pytest.mark.redis


@pytest.fixture
def commands(redis_clean):
    made = AtOnce(redis_clean.port)
    yield made
    made.close()


@pytest.fixture
def away():
    return []


@pytest.fixture
def retries(commands, away):
    return RedisRetries(commands, lambda: bool(away))


class TestRedisRetries(RetriesSuite):
    pass


def test_two_workers_agree_who_was_first(redis_clean, commands, retries):
    other = AtOnce(redis_clean.port)
    assert [ask(retries, ONE), ask(RedisRetries(other, lambda: False), TWO)] == [True, False]
    other.close()


def test_a_key_lives_for_its_window_and_is_not_put_off(redis_clean, retries):
    # Mutation: without the expiry; or a retry sets it anew, so that a client that keeps trying never pays again.
    ask(retries, ONE, window_us=DAY_US)
    (name,) = redis_clean.cli.keys("*")
    assert 0 < redis_clean.cli.pttl(name) <= DAY_US // 1000
    redis_clean.cli.pexpire(name, 1_000)
    ask(retries, TWO, window_us=DAY_US)
    assert redis_clean.cli.pttl(name) <= 1_000


def test_after_its_window_a_key_is_new(redis_clean, retries):
    assert ask(retries, ONE, window_us=500) is True  # µs: a part of a millisecond is a whole one
    wait_until(lambda: not redis_clean.cli.keys("*"), "the end of the window")
    assert ask(retries, TWO) is True


def test_nothing_of_a_header_is_stored_and_the_key_is_beside_the_customer_s_counters(redis_clean, commands, retries):
    ask(retries, ONE, b"a-secret-of-the-client", Identity("k", "s", "c{u}:st", "free"))
    (name,) = redis_clean.cli.keys("*")
    assert name.decode() == retry_key(Identity("k", "s", "c{u}:st", "free"), b"a-secret-of-the-client")
    assert name.startswith(b"sc:{c%7Bu%7D%3Ast}:retry:c%7Bu%7D%3Ast:")
    assert redis_clean.cli.get(name) == ONE
    assert commands.sent[0][0] == name.decode()
    assert b"secret" not in commands.sent[0][1]


def test_a_store_that_does_not_answer_is_told_as_that(commands, retries):
    commands.lost = StoreError("redis: no reply", StoreReason.NO_REPLY)
    assert ask(retries, ONE) is commands.lost
    retries.forget(ANN, b"x", ONE)
    assert len(commands.sent) == 2  # neither is sent twice: what may have been applied is not repeated


def test_a_store_that_is_known_to_be_away_is_not_asked(commands, away, retries):
    # Mutation: each request waits for its own timeout.
    away.append(True)
    assert isinstance(ask(retries, ONE), StoreError)
    retries.forget(ANN, b"x", ONE)
    assert commands.sent == []
