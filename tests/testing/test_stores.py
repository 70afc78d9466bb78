import pytest

from sidecar.core.decision import Decision
from sidecar.core.errors import StoreError
from sidecar.core.identity import digest
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.core.price import Price
from sidecar.testing import AlertBook, CounterBook, HandClock, KeyBook, RetryBook, minted
from tests.stage import ANN, quota


@pytest.fixture
def clock():
    return HandClock()


def test_a_key_is_found_until_it_is_revoked():
    keys, found = KeyBook(), []
    keys.register("a", ANN)
    keys.find(digest(b"a"), found.append)
    keys.revoke("a")
    keys.find(digest(b"a"), found.append)
    keys.fails = StoreError("away")
    keys.find(digest(b"a"), found.append)
    assert found == [ANN, None, keys.fails]
    assert keys.requested == [digest(b"a")] * 3


# litellm #34732. Fails if the double does not write what the rule says.
def test_counters_refuse_past_the_limit_and_settle_to_the_truth(clock):
    counters, mint, found = CounterBook(clock), minted(), []
    checks = checks_for((quota(2), Limit("slots", "concurrency", 9, period_us=60_000_000)), (1, 1), ANN, clock.now_us())
    ids = [mint(clock.now_us() // 1000) for _ in range(3)]
    for id_ in ids:
        counters.reserve(id_, checks, found.append)
    assert [decision.allowed for decision in found] == [True, True, False]
    assert (counters.used("monthly"), counters.used("slots")) == (2, 2)
    counters.settle(ids[0], checks, (0, 0))
    assert (counters.used("monthly"), counters.used("slots")) == (1, 1)
    counters.charge_unconditionally(ids[2], checks, found.append)
    counters.charge_unconditionally(mint(clock.now_us() // 1000), checks, found.append)
    assert counters.used("monthly") == 3
    assert counters.settled == [(ids[0], (0, 0))]


def test_counters_that_are_away_say_so(clock):
    counters, found = CounterBook(clock), []
    counters.fails = StoreError("away")
    checks = checks_for((quota(1),), (1,), ANN, clock.now_us())
    counters.reserve(b"0" * 26, checks, found.append)
    counters.settle(b"0" * 26, checks, (0,), found.append)
    assert found == [counters.fails] * 2


def test_a_question_of_a_window_that_has_passed_is_asked_in_that_of_now(clock):
    counters, found = CounterBook(clock), []
    checks = checks_for((quota(1),), (1,), ANN, clock.now_us())
    clock.turn(40 * 86_400_000_000)
    counters.reserve(minted()(clock.now_us() // 1000), checks, found.append)
    assert found[0].checks.keys != checks.keys


def test_first_attempts_are_told_apart_until_they_are_forgotten():
    retries, told = RetryBook(), []
    for id_ in (b"1", b"2", b"1"):
        retries.first(ANN, b"key", 5, id_, told.append)
    retries.forget(ANN, b"key", b"2")
    retries.first(ANN, b"key", 5, b"3", told.append)
    retries.forget(ANN, b"key", b"1")
    retries.first(ANN, b"key", 5, b"4", told.append)
    retries.fails = StoreError("away")
    retries.first(ANN, b"key", 5, b"5", told.append)
    assert told == [True, False, True, False, True, retries.fails]


def test_an_alert_is_handed_over_until_it_is_written(clock):
    alerts, told = AlertBook(), []
    checks = checks_for((quota(10, alerts=(50, 100)),), (1,), ANN, clock.now_us())
    for left in (6, 5, 5, 0):
        alerts.evaluate(Decision(checks, clock.now_us(), (left,), (0,)), told.append)
        for alert in told[1:]:
            alerts.wrote(alert)
    assert [alert.percent for alert in told] == [50, 50, 100]


def test_counters_charge_a_wallet_that_a_test_has_filled(clock):
    counters, said = CounterBook(clock), []
    price = Limit("credit.requests", "priced", 0, calendar="month", unit="usd", price=Price("per_unit", 10))
    credit = Limit("credit", "balance", 0, unit="usd", period_us=600_000_000)
    counters.fund(ANN.customer, "usd", 15)
    checks = checks_for((price, credit), (1, 0), ANN, clock.now_us())
    mint = minted()
    for _ in range(2):
        counters.reserve(mint(clock.now_us() // 1000), checks, said.append)
    assert [each.allowed for each in said] == [True, False]
    assert (counters.balance(ANN.customer, "usd"), counters.used("credit.requests")) == (5, 1)
    assert [(kind, change, balance) for kind, _, change, balance in counters.postings(ANN.customer, "usd")] == [
        ("grant", 15, 15),
        ("reserve", -10, 5),
    ]
