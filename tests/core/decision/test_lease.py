"""How much may be leased, for how long, and what goes back."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.decision import Decision
from sidecar.core.decision.lease import (
    HORIZON_US,
    LEAST,
    LIFE_US,
    bound,
    leasable,
    life_us,
    sized,
    spent,
    stamp,
)  # fmt: skip
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for, id_us
from sidecar.core.policy import Limit
from sidecar.core.record import Ids

NOW_US = 1_795_239_000_000_000
SECOND_US = 1_000_000
WHO = Identity("k", "s", "c", "free")
QUOTA = Limit("q", "quota", 10_000, calendar="month")
PACE = Limit("r", "rate", 1000, per=1000, period_us=SECOND_US)
SLOTS = Limit("c", "concurrency", 10, period_us=SECOND_US)


def checks(*limits, costs=None):
    return checks_for(limits, costs or (1,) * len(limits), WHO, NOW_US)


def said(asked, remaining, reset_us=None):
    return Decision(asked, NOW_US, remaining, reset_us or (SECOND_US,) * len(remaining))


def size(asked, known, *, demand=100, age_us=0, held=None, workers=1):
    return sized(asked, demand, known, age_us, held or (0,) * len(asked.limits), workers)


@pytest.mark.parametrize(
    ("asked", "can"),
    [
        (checks(QUOTA, PACE), True),
        (checks(QUOTA, SLOTS), False),
        (checks(QUOTA, replace(PACE, exact=True)), False),
        (checks(QUOTA, PACE, costs=(0, 3)), True),
        (checks(QUOTA, costs=(0,)), False),
        (checks(Limit("p", "priced", 0, calendar="month", unit="usd")), False),
    ],
)
def test_all_limits_of_a_request_are_leased_together_or_none(asked, can):
    assert leasable(asked) is can


def test_no_worker_may_hold_more_than_its_part_of_a_half():
    assert bound(QUOTA, 8) == 625
    assert bound(replace(QUOTA, exact=True), 8) == bound(SLOTS, 8) == 0


def test_a_lease_is_what_will_be_used_in_a_tenth_of_a_second():
    asked = checks(QUOTA, costs=(3,))
    assert size(asked, said(asked, (10_000,)), demand=50) == (48, (144,))


# Mutation: the cost, the workers, or what is held already is left out.
@given(
    st.integers(1, 5), st.integers(0, 5000), st.integers(-50, 10_000), st.integers(1, 16), st.integers(0, 3000),
    st.sampled_from([QUOTA, PACE, replace(QUOTA, stage="shadow"), replace(PACE, over="allow")]),
)  # fmt: skip
def test_a_lease_is_never_more_than_its_part_of_what_remains(cost, demand, left, workers, held, limit):
    asked = checks(limit, costs=(cost,))
    known = said(asked, (left,), (left * 37 % 200_000,))
    units, costs = size(asked, known, demand=demand, held=(held,), workers=workers)
    if not units:
        assert costs == ()
        return
    (total,) = costs
    assert LEAST <= units <= demand
    assert units * cost <= total <= left / (2 * workers)
    assert total + held <= bound(limit, workers)


def test_near_the_limit_each_decision_is_exact():
    asked = checks(QUOTA)
    assert size(asked, said(asked, (64,)), workers=8) == (4, (4,))
    assert size(asked, said(asked, (63,)), workers=8) == (0, ())


def test_a_limit_that_may_be_passed_is_leased_past_its_end_too():
    asked = checks(replace(QUOTA, over="allow"))
    assert size(asked, said(asked, (-500,)))[0] > 0


# Mutation: nothing is leased besides, and units of an idle rate are given out after it has forgotten them.
def test_of_an_idle_rate_some_units_are_leased_only_to_stand_before_the_others():
    asked = checks(PACE)
    units, (total,) = size(asked, said(asked, (990,), (10_000,)), demand=20)
    assert (units, total - units) == (20, 88)
    reply = said(checks(PACE, costs=(total,)), (880,), (10_000 + 108_000,))
    assert 90_000 <= life_us(reply, (1,), units) <= HORIZON_US


def test_a_rate_whose_burst_is_short_is_leased_for_a_shorter_time():
    short = replace(PACE, amount=80)
    asked = checks(short)
    units, (total,) = size(asked, said(asked, (80,), (0,)), demand=30)
    assert (units, total) == (9, 9 + 30)


def test_units_are_good_until_their_window_ends():
    asked = checks(QUOTA, Limit("w", "window", 10, period_us=60 * SECOND_US, fixed=True))
    assert life_us(said(asked, (9, 9)), (1, 1), 5) == asked.until_us - NOW_US


def test_the_fewer_units_of_a_rate_are_left_the_longer_they_are_good():
    reply = said(checks(PACE, costs=(50,)), (900,), (60_000,))
    assert [life_us(reply, (1,), units) for units in (50, 10, 0)] == [9_999, 49_999, 59_999]
    assert life_us(said(checks(PACE), (0,), (900_000,)), (1,), 50) == LIFE_US


def test_what_is_left_of_a_quota_goes_back_in_whole():
    asked = checks(QUOTA, costs=(3,))
    reply = said(checks(QUOTA, costs=(30,)), (900,))
    assert spent(reply, asked.costs, 4, 50_000) == (18,)


# Mutation: all of it goes back, and another worker's units stand on nothing.
@pytest.mark.parametrize(("age_us", "back"), [(0, 299), (600_000, 199), (2_000_000, 0)])
def test_of_a_rate_only_that_goes_back_which_no_other_lease_can_stand_on(age_us, back):
    reply = said(checks(PACE, costs=(600,)), (0,), (1_000_000,))
    assert spent(reply, (1,), 500, age_us) == (600 - back,)


@given(st.integers(2000, 2**45), st.integers(-2000, 2000))
def test_a_stamp_parts_ids_by_their_time(made_ms, apart_ms):
    id_ = Ids(7).mint(made_ms)
    assert (id_ < stamp((made_ms + apart_ms) * 1000 + 999)) is (apart_ms > 0)
    assert id_us(stamp(made_ms * 1000)) == made_ms * 1000
