import pytest

from sidecar.edge.memory import retries as memory_retries
from sidecar.edge.memory.retries import MemoryRetries
from sidecar.testing import HandClock
from tests.edge.retries_suite import ANN, DAY_US, ONE, THREE, TWO, RetriesSuite, ask


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def retries(clock):
    return MemoryRetries(clock)


class TestMemoryRetries(RetriesSuite):
    pass


def test_after_its_window_a_key_is_new_and_begins_another(clock, retries):
    # Mutation: no end is looked at; or one window is put off by whoever asks within it.
    assert ask(retries, ONE)
    clock.turn(DAY_US - 1)
    assert not ask(retries, TWO)
    clock.turn(1)
    assert [ask(retries, TWO), ask(retries, THREE)] == [True, False]


def test_a_step_of_the_wall_clock_ends_no_window(clock, retries):
    ask(retries, ONE)
    clock.step(2 * DAY_US)
    assert not ask(retries, TWO)


def test_what_has_ended_goes_as_others_come(clock, retries):
    # Mutation: nothing is dropped before the cap.
    for number in range(100):
        ask(retries, ONE, b"%d" % number)
    clock.turn(DAY_US)
    for number in range(100):
        ask(retries, ONE, b"later %d" % number)
    assert len(retries._firsts) == 100


def test_a_flood_of_keys_costs_no_memory_and_the_oldest_are_forgotten_first(monkeypatch, retries):
    # Mutation: the cap is not looked at.
    monkeypatch.setattr(memory_retries, "CAP", 10)
    for number in range(25):
        ask(retries, ONE, b"%d" % number)
    assert len(retries._firsts) == 10
    assert [ask(retries, TWO, b"24"), ask(retries, TWO, b"14")] == [False, True]


def test_nothing_of_a_header_is_kept(retries):
    ask(retries, ONE, b"a-secret-of-the-client", ANN)
    assert b"secret" not in repr(retries._firsts).encode()
