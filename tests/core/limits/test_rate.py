from sidecar.core.limits import KINDS, Limit, check_for
from tests.core.limits.examples import NOW_US, WHO

SECOND_US = 1_000_000
THIRD = Limit("r", "rate", 3, per=3, period_us=SECOND_US)


def ask(state, cost, now_us, limit=THIRD, *, forced=False):
    check = check_for(limit, cost, WHO, now_us)
    denies, remaining, until_us, left, _, value, _ = KINDS["rate"].evaluator(check, forced=forced)(state, now_us)
    if not denies or forced:
        state[check.keys[0]] = value
    return denies, remaining, until_us, left


# The example of pace.py. Fails if the remainder is dropped: the fourth unit then passes after 333,333 µs.
def test_a_burst_passes_at_once_and_then_a_unit_each_third_of_a_second():
    state = {}
    assert ask(state, 1, NOW_US) == (False, 3, 0, 2)
    assert ask(state, 2, NOW_US)[3] == 0
    assert ask(state, 1, NOW_US)[::2] == (True, 333_334)
    assert ask(state, 1, NOW_US + SECOND_US // 2) == (False, 1, 500_000, 0)


def test_what_is_forced_fills_the_bucket_beyond_its_burst_unless_it_may_be_passed():
    state = {}
    assert ask(state, 3, NOW_US, forced=True)[3] == 0
    assert ask(state, 3, NOW_US, forced=True)[3] == -3
    lenient = Limit("r", "rate", 3, per=3, period_us=SECOND_US, over="allow")
    assert ask({}, 4, NOW_US, lenient, forced=True)[3] == 0


def test_a_late_return_of_units_is_worth_what_time_has_not_given_back():
    state = {}
    ask(state, 3, NOW_US)
    check = check_for(THIRD, 3, WHO, NOW_US)
    key, _, (arrival_us, _), _ = check.kind.correction(state, check, b"id", 0, 0, NOW_US)
    assert (key, arrival_us) == (check.keys[0], NOW_US)
    assert check.kind.correction(state, check, b"id", 0, SECOND_US, NOW_US + SECOND_US) is None


def test_a_worker_s_share_leaks_at_its_part_of_the_rate():
    share = KINDS["rate"].share(THIRD, 3)
    assert (share.amount, share.period_us) == (1, 3 * SECOND_US)
