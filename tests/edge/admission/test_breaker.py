"""The breaker: nobody waits for a store that has just failed several times in a row."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar import ports
from sidecar.core.errors import StoreError, StoreReason
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.edge.admission.breaker import Breaker
from sidecar.testing import HandClock

PAUSE_US = 1_000_000
CHECKS = checks_for((), (), Identity("k1", "app", "cust", "free"), 1_000_000)  # passed on, and not looked into


class Store(ports.Counters):
    """A store that answers when it is told to, with what it is told."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    def reserve(self, id, checks, done):
        self.asked.append(("reserve", done))

    def charge_unconditionally(self, id, checks, done):
        self.asked.append(("charge_unconditionally", done))

    def settle(self, id, checks, actual, failed=None):
        self.asked.append(("settle", failed))

    def answer(self, outcome: Any) -> None:
        self.asked.pop(0)[1](outcome)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def breaker(store, clock) -> Breaker:
    return Breaker(store, clock, failures=3, pause_us=PAUSE_US)


def fail(breaker: Breaker, store: Store, times: int, how: str = "reserve") -> list[Any]:
    seen: list[Any] = []
    for _ in range(times):
        getattr(breaker, how)(b"id", CHECKS, seen.append)
        store.answer(StoreError("away", StoreReason.NO_REPLY))
    return seen


def test_closed_it_passes_everything_through(breaker, store):
    seen: list[Any] = []
    breaker.reserve(b"id", CHECKS, seen.append)
    store.answer("decision")
    assert seen == ["decision"]
    assert fail(breaker, store, 2)[0].maybe_applied
    assert not breaker.is_open


def test_after_failures_in_a_row_it_answers_at_once(breaker, store):
    fail(breaker, store, 3)
    seen: list[Any] = []
    breaker.reserve(b"id", CHECKS, seen.append)
    assert isinstance(seen[0], StoreError)  # Traefik #12043: not one more request waits
    assert not seen[0].maybe_applied
    assert store.asked == []
    assert breaker.opened == 1


def test_an_answer_in_between_starts_the_count_again(breaker, store):
    fail(breaker, store, 2)
    breaker.reserve(b"id", CHECKS, lambda _: None)
    store.answer("a denial is an answer too")
    fail(breaker, store, 2)
    assert not breaker.is_open  # Fails if failures are counted and never forgotten.


@pytest.mark.parametrize("how", ["reserve", "charge_unconditionally"])
def test_after_a_pause_one_probe_goes_through_and_only_one(breaker, store, clock, how):
    fail(breaker, store, 3)
    clock.turn(PAUSE_US - 1)
    breaker.reserve(b"id", CHECKS, lambda _: None)
    assert not store.asked
    clock.turn(1)
    seen: list[Any] = []
    getattr(breaker, how)(b"id", CHECKS, seen.append)
    breaker.reserve(b"id", CHECKS, seen.append)
    assert [name for name, _ in store.asked] == [how]  # Fails if all are let through when the pause is over.
    assert isinstance(seen.pop(), StoreError)
    store.answer("decision")
    assert seen == ["decision"]
    assert not breaker.is_open


def test_a_failed_probe_opens_it_for_another_pause(breaker, store, clock):
    fail(breaker, store, 3)
    clock.turn(PAUSE_US)
    fail(breaker, store, 1)
    clock.turn(PAUSE_US - 1)
    breaker.reserve(b"id", CHECKS, lambda _: None)
    assert not store.asked
    assert breaker.opened == 1


def test_a_probe_that_is_never_answered_does_not_keep_it_open_for_ever(breaker, store, clock):
    fail(breaker, store, 3)
    clock.turn(PAUSE_US)
    breaker.reserve(b"lost", CHECKS, lambda _: None)
    clock.turn(PAUSE_US)
    breaker.reserve(b"id", CHECKS, lambda _: None)
    assert len(store.asked) == 2


def test_a_settle_fails_at_once_while_open_so_that_it_becomes_a_debt(breaker, store):
    seen: list[Any] = []
    breaker.settle(b"id", CHECKS, (1,), seen.append)
    assert store.asked.pop() == ("settle", seen.append)
    fail(breaker, store, 3)
    breaker.settle(b"id", CHECKS, (1,), seen.append)
    breaker.settle(b"id", CHECKS, (1,))
    assert isinstance(seen[0], StoreError)
    assert not store.asked
