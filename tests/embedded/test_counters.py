"""Mirrors sidecar/embedded/counters.py."""

from functools import partial

import pytest

from sidecar.core.decision.peek import WalletFigures
from sidecar.core.errors import StoreError
from sidecar.core.limits import checks_for
from sidecar.embedded.counters import EmbeddedCounterValues, EmbeddedPeeks
from sidecar.embedded.listener import ask_worker
from tests.edge.counters_suite import DAY_US, WHO, credit, five, spent

KEYS = [f"sc:{{acme}}:q=monthly:k{number}:2026-11" for number in range(25)]
LATER_US = 1 << 52


@pytest.fixture
def values(worker):
    return EmbeddedCounterValues(partial(ask_worker, worker.folder))


async def test_counters_are_read_and_set_in_several_requests(values, monkeypatch):
    # Fails if the last part of them is left out.
    monkeypatch.setattr("sidecar.embedded.counters._AT_ONCE", 10)
    assert await values.set([(key, 7, LATER_US) for key in KEYS], is_exact=False) == [0] * 25
    assert await values.read([*KEYS, "sc:{acme}:q=other:k1:2026-11"]) == [7] * 25 + [0]


async def test_counters_with_long_names_are_asked_in_smaller_requests(values, monkeypatch):
    # Fails if the number of counters alone bounds a request, of which a worker reads four megabytes at most.
    long = [f"sc:{{{'%7B' * 700}}}:q=monthly:c{'%7B' * 700}{number}:2026-11" for number in range(1_200)]
    assert await values.set([(key, 3, LATER_US) for key in long], is_exact=False) == [0] * 1_200
    assert await values.read(long) == [3] * 1_200


async def test_a_counter_is_lowered_only_if_it_is_to_be_exact(values):
    await values.set([(KEYS[0], 7, LATER_US)], is_exact=False)
    assert await values.set([(KEYS[0], 3, LATER_US), (KEYS[1], 2, LATER_US)], is_exact=False) == [7, 0]
    assert await values.read(KEYS[:2]) == [7, 2]
    await values.set([(KEYS[0], 3, LATER_US)], is_exact=True)
    assert await values.read(KEYS[:1]) == [3]


async def test_what_is_left_is_asked_of_the_worker_in_its_windows(worker):
    # Fails if the worker answers in windows of the one who asks.
    clock_us = worker.state._clock.now_us()
    limits = (five, spent, credit)
    checks = checks_for((five,), (2,), WHO, clock_us)
    worker.state.counters.reserve(b"01" + b"A" * 24, checks, lambda _decision: None)
    peeks = EmbeddedPeeks(partial(ask_worker, worker.folder))
    shown = await peeks.peek(checks_for(limits, (0, 0, 0), WHO, clock_us - 40 * DAY_US))
    assert shown.remaining == (3, 0, 0)
    assert shown.wallets == {2: WalletFigures()}
    assert shown.checks.covers(clock_us)


async def test_a_worker_whose_journal_is_full_sets_nothing_and_can_be_read(worker, values):
    worker.accepts = False
    with pytest.raises(StoreError, match="does not take it"):
        await values.set([(KEYS[0], 7, LATER_US)], is_exact=False)
    assert await values.read(KEYS[:1]) == [0]
