from dataclasses import replace

import pytest

from sidecar.edge.memory.counters import DROPPED_MAX, MemoryCounters
from tests.edge.counters_suite import (
    DAY_US,
    MINUTE_US,
    SECOND_US,
    WHO,
    CountersSuite,
    SetClock,
    Store,
    credit,
    five,
    fixed,
    inflight,
    pace,
    sliding,
    spent,
)


@pytest.fixture
def store():
    clock = SetClock()
    return Store(MemoryCounters(clock), clock)


class TestMemoryCounters(CountersSuite):
    pass


# litellm #12685, #15128, #27954: memory grew until it was killed
# Fails if `_forget` is not called.
def test_memory_is_bounded_by_what_is_live(store):
    for _ in range(2000):
        store.reserve(store.checks(pace, sliding, fixed, inflight))
        store.pass_us(SECOND_US)
    assert len(store.counters.state) < 30
    store.pass_us(DAY_US)
    store.reserve(store.checks(fixed))
    assert len(store.counters.state) == 2  # the counter and its mark


def test_slots_that_nobody_gave_back_make_room(store):
    for _ in range(300):
        store.reserve(store.checks(inflight))
        store.pass_us(MINUTE_US // 60)
    (slots,) = (value for key, value in store.counters.state.items() if "=inflight:" in key)
    assert len(slots) <= inflight.amount


# Fails if one call drops all that has expired: a window's end would hold up whoever comes first after it.
def test_what_has_expired_is_dropped_a_few_at_a_time(store):
    for number in range(300):
        store.reserve(store.checks(fixed, who=replace(WHO, key_id=f"k{number}")))
    store.pass_us(DAY_US)
    before = len(store.counters.state)
    store.reserve(store.checks(five))
    assert len(store.counters.state) == before - DROPPED_MAX + 2
    for _ in range(5):
        store.reserve(store.checks(five))
    assert len(store.counters.state) == 2


def test_a_wallet_is_kept_until_it_is_told_to_go(store):
    checks = store.checks(spent, replace(credit, over="allow"), costs=(1, 0))
    store.reserve(checks)
    store.pass_us(100 * DAY_US)
    assert store.left(credit) == 0  # the hold ran out
    assert {key.split(":")[2] for key in store.counters.state} == {"wallet", "ledger", "held", "ids"}
    store.counters.forget(checks.keys[1])
    assert {key.split(":")[2] for key in store.counters.state} == {"ids"}
