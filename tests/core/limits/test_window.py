from sidecar.core.limits import KINDS, Limit, check_for
from sidecar.core.limits.window import previous_ceiling
from tests.core.limits.examples import WHO

SECOND_US = 1_000_000
START_US = 60 * SECOND_US * 29_920_650
SLIDING = Limit("minute", "window", 100, period_us=60 * SECOND_US)


def asked(cost, passed_us, used=30, before=80):
    check = check_for(SLIDING, cost, WHO, START_US + passed_us)
    state = dict(zip(check.keys, (used, before), strict=True))
    return KINDS["window"].evaluator(check, forced=False)(state, START_US + passed_us)


# The example of window.py. Fails if the weight is rounded down, or the previous window is not weighted.
def test_the_previous_window_counts_for_as_much_of_it_as_is_within_one_length():
    denies, remaining, opens_us, *_ = asked(12, 15 * SECOND_US)
    assert (denies, remaining, opens_us) == (True, 10, 1_500_000)
    assert not asked(12, 16_500_000)[0]
    assert asked(12, 16_499_000)[0]


def test_what_is_more_than_the_amount_never_passes_and_the_reset_is_the_end():
    denies, _, opens_us, *_ = asked(101, 15 * SECOND_US)
    assert (denies, opens_us) == (True, 45 * SECOND_US)


def test_a_weight_stays_exact():
    assert (previous_ceiling(SLIDING) + 1) * 60_000 <= 2**53


def test_after_a_loss_a_fixed_window_ends_and_a_sliding_one_lasts_a_length():
    fixed = Limit("minute", "window", 100, period_us=60 * SECOND_US, fixed=True)
    at_us = START_US + 15 * SECOND_US
    assert KINDS["window"].loss_ends_latest_us(SLIDING, at_us) == at_us + 60 * SECOND_US
    assert KINDS["window"].loss_ends_latest_us(fixed, at_us) == START_US + 60 * SECOND_US
