"""Remembered denials: the store is not asked again, and a top-up is felt within a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from sidecar.core.decision import Decision
from sidecar.core.errors import StoreError
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.core.price import Price, Tier
from sidecar.core.price.wallet import Grant, Wallet
from sidecar.core.record.ids import Ids
from sidecar.edge.admission import denials
from sidecar.edge.admission.denials import HOLD_US, Denials
from sidecar.edge.memory.counters import MemoryCounters
from sidecar.testing import HandClock

START_US = 1_790_000_000_000_000
SPENT = Limit("credit.requests", "priced", 0, calendar="month", unit="usd", price=Price("per_unit", 10))
CREDIT = Limit("credit", "balance", 0, unit="usd", period_us=600_000_000)
QUOTA = Limit("monthly", "quota", 3, calendar="month", scope="customer")
BURST = Limit("burst", "rate", 2, per=5, period_us=1_000_000)
ANN = Identity("k1", "app", "cust", "free")
BEN = Identity("k2", "app", "other", "free")


class Counting(MemoryCounters):
    asked = 0

    def reserve(self, id, checks, done):
        self.asked += 1
        super().reserve(id, checks, done)


class House:
    def __init__(self) -> None:
        self.clock = HandClock(START_US)
        self.store = Counting(self.clock)
        self.cache = Denials(self.store, self.clock)
        self.ids = Ids(7)

    def ask(self, *limits: Limit, cost: int = 1, who: Identity = ANN) -> Decision:
        return self.ask_for(limits, [cost] * len(limits), who)

    def ask_for(self, limits: Sequence[Limit], costs: Sequence[int], who: Identity = ANN) -> Decision:
        checks = checks_for(limits, costs, who, self.clock.now_us())
        seen: list[Any] = []
        self.cache.reserve(self.ids.mint(self.clock.now_us() // 1000), checks, seen.append)
        assert len(seen) == 1
        assert seen[0].checks.costs == checks.costs
        return seen[0]


@pytest.fixture
def house() -> House:
    return House()


def test_a_denied_hit_asks_the_store_once(house):
    for _ in range(3):
        assert house.ask(QUOTA).allowed
    denied = [house.ask(QUOTA) for _ in range(10)]
    assert not any(each.allowed for each in denied)
    assert house.store.asked == 4  # Fails if denials are not remembered.
    assert house.cache.hits == 9


def test_the_repeated_denial_tells_the_same_figures_with_the_time_passed(house):
    house.ask(BURST, QUOTA, cost=2)
    first = house.ask(BURST, QUOTA, cost=2)
    house.clock.turn(100_000)
    again = house.ask(BURST, QUOTA, cost=2)
    assert house.cache.hits == 1
    assert (again.violated, list(again.remaining), again.mode) == (first.violated, list(first.remaining), "exact")
    assert list(again.reset_us) == [reset - 100_000 for reset in first.reset_us]
    assert again.now_us == house.clock.now_us()


def test_a_denial_ends_with_its_reset_where_that_is_sooner(house):
    house.ask(BURST, cost=2)
    assert not house.ask(BURST).allowed
    house.clock.turn(200_000)  # 5 a second: one is whole again
    assert house.ask(BURST).allowed


def test_a_denial_is_never_kept_longer_than_a_second_so_that_a_top_up_is_felt(house):
    house.ask(QUOTA, cost=3)
    assert not house.ask(QUOTA).allowed
    house.store.state.clear()  # the top-up
    house.clock.turn(HOLD_US - 1)
    assert not house.ask(QUOTA).allowed
    house.clock.turn(1)
    assert house.ask(QUOTA).allowed  # Fails if the denial is kept until the month ends.


def test_a_smaller_cost_than_the_refused_one_is_asked(house):
    house.ask(QUOTA, cost=2)
    assert not house.ask(QUOTA, cost=2).allowed
    assert house.ask(QUOTA, cost=1).allowed  # Fails if costs are not compared.
    assert not house.ask(QUOTA, cost=2).allowed


def test_one_customers_denial_is_not_anothers(house):
    house.ask(QUOTA, cost=3)
    assert not house.ask(QUOTA).allowed
    assert house.ask(QUOTA, who=BEN).allowed


def test_a_question_about_other_counters_is_asked(house):
    house.ask(QUOTA, cost=3)
    assert not house.ask(QUOTA).allowed
    asked = house.store.asked
    assert not house.ask(BURST, QUOTA).allowed
    assert house.store.asked == asked + 1


def test_a_new_window_is_a_new_question(house):
    hourly = replace(QUOTA, calendar="hour")
    house.clock.turn(3_599_900_000 - START_US % 3_600_000_000)
    house.ask(hourly, cost=3)
    assert not house.ask(hourly).allowed
    house.clock.turn(100_000)
    assert house.ask(hourly).allowed


def test_a_slot_may_come_free_at_any_moment_so_it_is_asked_for(house):
    slots = Limit("inflight", "concurrency", 1, period_us=60_000_000)
    assert house.ask(slots).allowed
    assert not house.ask(slots).allowed
    house.store.state.clear()
    assert house.ask(slots).allowed


def test_an_exhausted_balance_is_told_again_for_a_second_and_no_longer(house):
    assert not house.ask(SPENT, CREDIT).allowed
    house.store.state["sc:{cust}:wallet:cust:usd"] = Wallet((Grant("g", 0, 0, 0, 100, 100),))  # the top-up
    house.clock.turn(HOLD_US - 1)
    assert not house.ask(SPENT, CREDIT).allowed
    assert house.cache.hits == 1  # Fails if a reset of 0, which nobody knows, is taken for now.
    house.clock.turn(1)
    assert house.ask(SPENT, CREDIT).allowed


def test_a_balance_is_asked_again_where_any_part_of_the_price_is_less(house):
    other = replace(SPENT, id="credit.other")
    house.store.state["sc:{cust}:wallet:cust:usd"] = Wallet((Grant("g", 0, 0, 0, 30, 30),))
    assert not house.ask_for((SPENT, other, CREDIT), (1, 3, 0)).allowed
    assert not house.ask_for((SPENT, other, CREDIT), (2, 3, 0)).allowed
    assert house.cache.hits == 1
    assert house.ask_for((SPENT, other, CREDIT), (2, 1, 0)).allowed


def test_a_balance_is_always_asked_where_more_may_cost_less(house):
    volume = replace(SPENT, price=Price("volume", tiers=(Tier(5, 10), Tier(None, 1))))
    house.store.state["sc:{cust}:wallet:cust:usd"] = Wallet((Grant("g", 0, 0, 0, 30, 30),))
    assert not house.ask_for((volume, CREDIT), (4, 0)).allowed
    assert house.ask_for((volume, CREDIT), (6, 0)).allowed


def test_what_would_only_have_been_denied_is_not_remembered(house):
    for limit in (replace(QUOTA, id="a", stage="shadow"), replace(QUOTA, id="b", over="allow")):
        assert all(house.ask(limit).allowed for _ in range(9))
    assert house.cache.hits == 0


@pytest.mark.parametrize("mode", ["degraded", "leased", "local"])
def test_only_exact_denials_are_remembered(house, mode):
    checks = checks_for([QUOTA], [1], ANN, house.clock.now_us())
    said = Decision(checks, house.clock.now_us(), (0,), (5_000_000,), 1, mode)
    house.store.reserve = lambda _id, _checks, done: done(said)
    house.ask(QUOTA)
    house.ask(QUOTA)
    assert house.cache.hits == 0


def test_an_error_passes_and_is_not_remembered(house):
    error = StoreError("away")
    house.store.reserve = lambda _id, _checks, done: done(error)
    seen: list[Any] = []
    house.cache.reserve(b"", checks_for([QUOTA], [1], ANN, house.clock.now_us()), seen.append)
    assert seen == [error]


def test_the_cache_is_bounded_and_forgets_the_oldest_first(house, monkeypatch):
    monkeypatch.setattr(denials, "CAP", 3)
    people = [Identity(f"k{i}", "app", f"cust{i}", "free") for i in range(4)]
    for who in people:
        house.ask(QUOTA, cost=3, who=who)
        assert not house.ask(QUOTA, who=who).allowed
    asked = house.store.asked
    for who in people[1:]:
        house.ask(QUOTA, who=who)
    assert house.store.asked == asked
    house.ask(QUOTA, who=people[0])
    assert house.store.asked == asked + 1
