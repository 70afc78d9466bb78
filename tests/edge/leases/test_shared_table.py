"""What is in hand outlives its worker, to the unit; nothing that was spent is found."""

import os

import pytest

from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.edge.leases import BYTES, Chain, Leases, SharedLeaseTable
from sidecar.edge.leases.shared_table import PLACES
from tests.edge.leases.simulation import SECOND_US, START_US, WHO
from tests.edge.leases.test_counters import AWAY, FIXED, PACE, QUOTA, Desk, modes

SLIDING = Limit("sliding", "window", 5000, period_us=SECOND_US)


class Shift(Desk):
    """A worker that keeps what it has in hand in `memory`, and who comes after it was killed."""

    def __init__(self, *limits, memory=None, **how):
        self.memory = bytearray(BYTES) if memory is None else memory
        super().__init__(*limits, demand=0, **how)
        self.leases.adopt(SharedLeaseTable(self.memory))
        self.asks(20)
        self.turn()
        self.asks(1)

    def next(self, us=0):
        """Kill it; another begins `us` later."""
        self.clock.turn(us)
        chain = Chain(self.store, self.store, self._alone)
        self.leases = Leases(chain, self.clock, self.mint)
        self.leases.adopt(SharedLeaseTable(self.memory))


def counted(shift):
    return [shift.store.state[key] for key, *_ in shift.checks.keys]


# Mutations: `reserve` or `_serve` does not take off there what it spends (15 come back, or none); `_end` leaves it.
@pytest.fixture
def shift():
    return Shift(QUOTA)


def test_what_a_killed_worker_had_in_hand_comes_back_and_nothing_more(shift):
    shift.asks(5)
    assert shift.used() == 41
    shift.next()
    assert shift.used() == 26
    shift.next()
    assert (shift.used(), shift.leases.owed) == (26, 0)


def test_a_unit_that_came_to_nothing_comes_back_too(shift):
    shift.asks(1)
    id_ = shift.mint()
    [said] = shift.ask(id_)
    shift.leases.settle(id_, said.checks, (0,))
    shift.next()
    assert shift.used() == 22


def test_what_was_given_back_before_the_kill_does_not_come_back_again(shift):
    shift.asks(5)
    shift.leases.recall()
    shift.next()
    assert shift.used() == 26


# Mutation: a lease is written down only when it is answered.
def test_a_lease_on_its_way_comes_back_and_charges_nothing_if_it_arrives_later(shift):
    shift.store.holding = True
    shift.ask()
    shift.next()
    shift.store.holding = False
    shift.store.let_go()
    assert shift.used() == 21


def test_who_is_killed_while_he_answers_those_who_waited_gives_back_what_he_had_not_answered(shift):
    shift.store.holding = True
    for _ in range(3):
        shift.leases.reserve(shift.mint(), shift.checks, lambda _: found.append(bytes(shift.memory)))
    found = []
    shift.store.holding = False
    shift.store.let_go()
    shift.memory[:] = found[1]
    shift.next()
    assert shift.used() == 21 + 2


# Mutation: a lease's entry says nothing of `reset_us`: nothing of a rate would come back.
def test_of_every_kind_as_much_comes_back_as_the_worker_would_have_given_back_itself():
    shifts = [Shift(QUOTA, PACE, SLIDING, costs=(3, 12, 2)) for _ in range(2)]
    before = []
    for shift in shifts:
        shift.asks(2)
        before = counted(shift)
    shifts[0].leases.recall()
    shifts[1].next()
    assert counted(shifts[0]) == counted(shifts[1])
    assert all(less < more for less, more in zip(counted(shifts[1]), before, strict=True))


def test_after_a_while_it_is_not_known_whether_the_store_still_remembers(shift):
    shift.asks(1)
    shift.next(151 * SECOND_US)
    assert (shift.used(), shift.leases.lost) == (41, 1)


def test_a_clock_that_was_set_back_gives_nothing_back(shift):
    shift.asks(1)
    shift.clock.step(-SECOND_US)
    shift.next()
    assert (shift.used(), shift.leases.lost) == (41, 1)


def test_it_is_told_until_the_store_has_taken_it(shift):
    shift.asks(5)
    shift.store.fails = AWAY
    shift.next()
    assert shift.leases.owed == 1
    shift.store.fails = None
    shift.turn()
    assert (shift.used(), shift.leases.owed) == (26, 0)


def test_places_are_used_again_and_who_finds_none_leases_all_the_same():
    table = SharedLeaseTable()
    places = [table.place() for _ in range(PLACES)]
    assert sorted(places) == list(range(PLACES))
    assert [table.place(), table.place()] == [PLACES, PLACES]
    table.free(PLACES)
    table.free(7)
    assert [table.place(), table.place()] == [7, PLACES]


def test_a_lease_too_long_for_its_place_is_not_kept():
    limits = [Limit(f"limit-with-a-long-name-{n}", "quota", 10_000, calendar="month") for n in range(30)]
    shift = Shift(*limits)
    assert modes(shift.asks(5)) == ["leased"] * 5
    shift.next()
    assert shift.used(limits[0]) == 41


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memory that is a file")
def test_shared_memory_is_what_the_next_process_finds():
    fd = os.memfd_create("test")
    try:
        os.ftruncate(fd, BYTES)
        checks = checks_for((FIXED,), (10,), WHO, START_US)
        first = SharedLeaseTable.shared(fd)
        first.write(first.place(), b"0" * 26, checks, ((2,), (5,), START_US))
        first.units[0] = 4
        [left] = SharedLeaseTable.shared(fd).claim_orphans(START_US)
    finally:
        os.close(fd)
    assert (left.id, left.actual, left.sent_us) == (b"0" * 26, (2,), START_US)
    assert left.checks.keys == checks.keys
