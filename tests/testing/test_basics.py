import pytest

from sidecar.core.identity import digest
from sidecar.testing import HandClock, KeyBook, Tally, minted


@pytest.fixture
def clock():
    return HandClock()


def test_a_clock_moves_when_it_is_turned_and_steps_on_the_wall_alone(clock):
    then = clock.now_us()
    clock.turn(5)
    clock.step(-3_600_000_000)
    assert (clock.now_us() - then, clock.mono_us()) == (5 - 3_600_000_000, 5)


def test_ids_are_the_same_in_every_run_and_never_repeat():
    mint, again = minted(), minted()
    first = [mint(1) for _ in range(3)]
    assert (len(set(first)), first) == (3, [again(1) for _ in range(3)])


def test_what_is_held_is_answered_in_order_when_it_is_let_go():
    keys, found = KeyBook(), []
    keys.holding = True
    for name in (b"a", b"b", b"c"):
        keys.find(digest(name), lambda _, name=name: found.append(name))
    assert (found, keys.waiting) == ([], 3)
    keys.let_go(1)
    assert (found, keys.waiting) == ([b"a"], 2)
    keys.let_go()
    assert (found, keys.waiting) == ([b"a", b"b", b"c"], 0)


def test_a_probe_counts():
    tally = Tally()
    tally.count("a")
    tally.count("a")
    tally.denied("x", shadow=True)
    tally.answered("r", 200, 5)
    assert (tally.counts["a"], tally.denials, tally.answers) == (2, [("x", True)], [("r", 200, 5)])
