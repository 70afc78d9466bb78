"""What one worker holds: how units are dated, counted, and what ends them. (What becomes of it: test_counters.py.)"""

from sidecar.core.decision import Decision
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.edge.leases.lease import SIZES, Lease

START_US = 1_763_692_440_000_000
TURN_US = 100_000
QUOTA = Limit("quota", "quota", 10_000, calendar="month")
ID = b"01KAJ44KCYJ6VNGGH6BCFN0000"


def lease(demand=20):
    return Lease(checks_for((QUOTA,), (3,), Identity("k1", "app", "cust", "free"), START_US), demand)


def granted(held, units):
    asked = held.of((units * 3,))
    held.take(ID, units, START_US, Decision(asked, START_US, (1000,), (5_000_000,)))
    held.units = units
    return asked


def test_the_command_for_a_size_is_prepared_once_and_few_are_kept():
    held = lease()
    assert held.of((12,)) is held.of((12,))
    for units in range(2 * SIZES):
        held.of((units,))
    assert len(held.sizes) <= SIZES


def test_what_was_granted_is_told_as_left_until_it_is_spent():
    held = lease()
    granted(held, 10)
    assert held.left == [1030]
    assert held.until_us == held.checks.until_us


def test_the_end_of_a_lease_gives_back_what_is_left_once():
    held = lease()
    asked = granted(held, 10)
    held.units = 4
    assert held.end(START_US) == (ID, asked, (18,))
    assert held.end(START_US) is None
    assert (held.units, held.id) == (0, b"")


def test_a_lease_that_is_spent_gives_nothing_back():
    held = lease()
    granted(held, 10)
    held.units = 0
    assert held.end(START_US) is None


# Mutation: what went back counts as demand.
def test_demand_is_what_was_spent_and_asked_for_in_a_turn():
    held = lease(demand=20)
    granted(held, 10)
    held.units, held.exact = 4, 2
    assert held.weigh(TURN_US) == 8
    assert held.demand == 14
    held.end(START_US)
    assert held.weigh(2 * TURN_US) == 0
    assert held.demand == 7


def test_units_are_idle_without_demand_with_too_little_of_it_or_past_their_time():
    held = lease(demand=3)
    granted(held, 10)
    assert not held.idle(1, START_US)
    assert held.idle(0, START_US)
    assert held.idle(1, START_US - 1)  # the clock was set back
    assert held.idle(1, held.until_us)
    held.demand = 2
    assert held.idle(1, START_US)


def test_a_leased_question_is_the_same_and_finds_its_lease():
    held = lease()
    made, checks = held.leased, held.checks
    assert (made.lease, made.is_leased, made.keys) == (held, True, checks.keys)
    assert (made.entries, made.costs, made.until_us) == (checks.entries, checks.costs, checks.until_us)
