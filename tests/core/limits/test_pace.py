from sidecar.core.limits import Limit
from sidecar.core.limits.pace import OutageTime, backlog_of, pace_of, shift_of

SECOND_US = 1_000_000
THIRD = Limit("r", "rate", 3, per=3, period_us=SECOND_US)


def test_a_unit_of_three_a_second_is_a_third_of_a_second_and_nothing_is_rounded():
    assert pace_of(THIRD, 2) == (1_000_000, 3, (1_000_000, 0), (666_666, 2), 2**51 // 3)


def test_a_backlog_is_what_lies_ahead_of_now():
    assert backlog_of((5_000_010, 2), THIRD, 5_000_000) == 32
    assert backlog_of((4_999_999, 2), THIRD, 5_000_000) == backlog_of(None, THIRD, 5_000_000) == 0


def test_what_an_outage_let_through_leaks_after_a_full_burst_and_the_time_to_notice():
    time = OutageTime(Limit("r", "rate", 40, per=40, period_us=SECOND_US), 2)
    leaks_us = time.after(0, 20, away_us=100 * SECOND_US, now_us=101 * SECOND_US)
    assert leaks_us == 103 * SECOND_US  # 100 s + a burst of 1 s + 1 s to notice + 20 units at half the rate
    assert time.unleaked(leaks_us, 20, now_us=103 * SECOND_US) == 20
    assert time.unleaked(leaks_us, 20, now_us=104 * SECOND_US) == 0


# Fails if the age is left out: a burst that time has given back is given back again.
def test_a_rate_gives_back_only_what_time_has_not():
    per_second = Limit("r", "rate", 100, per=1, period_us=1_000_000)
    assert shift_of(per_second, 10, -10, 0) == (-10_000_000, 0)
    assert shift_of(per_second, 10, -10, 4_000_000) == (-6_000_000, 0)
    assert shift_of(per_second, 10, -3, 4_000_000) == (-3_000_000, 0)
    assert shift_of(per_second, 10, -10, 10_000_000) == (0, 0)
    assert shift_of(per_second, 10, 5, 10_000_000) == (5_000_000, 0)
