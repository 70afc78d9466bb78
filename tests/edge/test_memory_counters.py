import pytest

from sidecar.edge.memory_counters import MemoryCounters
from tests.edge.counters_suite import (
    DAY_US,
    MINUTE_US,
    SECOND_US,
    CountersSuite,
    SetClock,
    Store,
    fixed,
    inflight,
    pace,
    sliding,
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
    (slots,) = (value for key, value in store.counters.state.items() if ":inflight:" in key)
    assert len(slots) <= inflight.amount
