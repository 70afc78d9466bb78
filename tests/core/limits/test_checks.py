from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.limits import COUNT_MAX, NEVER_US, Derived, checks_for
from tests.core.limits.examples import NOW_US, WHO, burst, cost, credit, fixed, inflight, minute, monthly


def facts(checks):
    names = "limit", "kind", "cost", "keys", "window", "payer", "role"
    entries = [[getattr(check, name) for name in names] for check in checks.entries]
    return entries, checks.costs, checks.keys, checks.must_settle, checks.until_us, checks.alerting


@given(st.lists(st.integers(0, COUNT_MAX + 5), min_size=7, max_size=7))
def test_the_same_question_with_other_costs_is_what_was_asked_with_them(costs):
    # Fails if a slot's cost is not cut to one, or if `must_settle` is that of the costs before.
    for limits in ((burst, monthly, minute, fixed, inflight), (inflight,), (burst,), (cost, credit)):
        alike = checks_for(limits, (0,) * len(limits), WHO, NOW_US)
        made = alike.with_costs(costs[: len(limits)])
        assert facts(made) == facts(checks_for(limits, costs[: len(limits)], WHO, NOW_US))


# Fails if `with_costs` shares what depends on costs, or a copy with other limits shares anything.
def test_a_derived_value_is_worked_out_once_for_all_that_it_depends_on():
    of_costs, of_limits = Derived(lambda _: object(), by_costs=True), Derived(lambda _: object(), by_costs=False)
    one = checks_for((burst, monthly), (1, 1), WHO, NOW_US)
    other, wider = one.with_costs((2, 1)), one.with_limits((burst, replace(monthly, amount=1)))
    assert of_costs.of(one) is of_costs.of(one) is not of_costs.of(other)
    assert of_limits.of(other) is of_limits.of(one) is not of_limits.of(wider)
    assert of_limits.of(one) is not of_costs.of(one)


def test_what_is_left_out_takes_no_part_and_the_rest_has_its_payer():
    checks = checks_for((monthly, cost, credit), (1, 2, 0), WHO, NOW_US)
    some = checks.only((1, 2))
    assert [check.payer for check in some.entries] == [1, -1]
    assert (some.costs, some.keys, some.must_settle) == ((2, 0), checks.keys[1:], True)


def test_checks_hold_until_the_first_of_their_windows_ends():
    checks = checks_for((burst, monthly, minute), (1, 1, 1), WHO, NOW_US)
    assert checks.until_us == checks.entries[2].window.end_us < checks.entries[1].window.end_us
    assert checks.covers(NOW_US)
    assert checks.covers(checks.until_us - 1)
    assert not checks.covers(checks.until_us)
    assert checks.at(checks.until_us).covers(checks.until_us)


def test_checks_without_windows_hold_for_ever():
    assert checks_for((burst, inflight), (1, 1), WHO, NOW_US).until_us == NEVER_US


def test_an_exchange_holds_one_slot_whatever_it_costs():
    checks = checks_for((inflight, monthly), (7, 7), WHO, NOW_US)
    assert checks.costs == (1, 7)
    assert checks.must_settle
    assert not checks_for((inflight,), (0,), WHO, NOW_US).must_settle


def test_a_balance_is_settled_in_every_ending():
    checks = checks_for((cost, credit), (0, 0), WHO, NOW_US)
    assert checks.must_settle
    assert [check.payer for check in checks.entries] == [1, -1]
    assert not checks_for((cost, monthly), (1, 1), WHO, NOW_US).has_wallet


def test_an_absurd_cost_stays_exact():
    assert checks_for((monthly,), (10**30,), WHO, NOW_US).costs == (COUNT_MAX,)
