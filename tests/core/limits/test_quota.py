from sidecar.core.identity import Identity
from sidecar.core.limits import KINDS, Limit, check_for, checks_for
from tests.core.limits.examples import NOW_US, WHO

MONTHLY = Limit("monthly", "quota", 1_000, calendar="month")


def asked(cost, used):
    check = check_for(MONTHLY, cost, WHO, NOW_US)
    return KINDS["quota"].evaluator(check, forced=False)({check.keys[0]: used}, NOW_US)


def test_what_is_left_decides_and_the_reset_is_the_end_of_the_month():  # the example of counted.py
    denies, remaining, reset_us, left, *_, value, _ = asked(50, 940)
    assert (denies, remaining, left, value) == (False, 60, 10, 990)
    assert NOW_US + reset_us == check_for(MONTHLY, 0, WHO, NOW_US).window.end_us
    assert asked(20, 990)[:2] == (True, 10)


def test_the_actual_units_take_the_place_of_the_cost():
    check = check_for(MONTHLY, 50, WHO, NOW_US)
    key, member, used, _ = check.kind.correction({check.keys[0]: 990}, check, b"id", 30, 0, NOW_US)
    assert (key, member, used) == (check.keys[0], None, 970)
    assert check.kind.correction({}, check, b"id", 50, 0, NOW_US) is None


def test_a_quota_can_follow_the_customer_s_zone_and_day():
    limit = Limit("m", "quota", 1, calendar="month", zone="customer", anchored=True)
    who = Identity("k", "s", "c", "p", zone="Asia/Kathmandu", anchor_us=1_768_600_000_000_000)
    assert checks_for((limit,), (1,), who, NOW_US).entries[0].window.id == "2026-11@17"
