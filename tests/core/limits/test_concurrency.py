from sidecar.core.limits import KINDS, check_for
from tests.core.limits.examples import EXAMPLES, NOW_US, WHO

LIMIT = EXAMPLES["concurrency"]


def test_slots_that_have_expired_are_free():
    check = check_for(LIMIT, 7, WHO, NOW_US)
    slots = {b"a": NOW_US + 1, b"b": NOW_US, b"c": NOW_US + 5}
    denies, remaining, _, left, _, until_us, _ = KINDS["concurrency"].evaluator(check, forced=False)(
        {check.keys[0]: slots}, NOW_US
    )
    assert (denies, remaining, left) == (False, 2, 1)
    assert until_us == NOW_US + LIMIT.period_us


def test_only_an_open_exchange_that_asked_for_a_slot_extends_one():
    check, free = check_for(LIMIT, 1, WHO, NOW_US), check_for(LIMIT, 0, WHO, NOW_US)
    assert check.kind.extension({}, check, b"a", 9, is_open=True)[:3] == (check.keys[0], b"a", 9)
    assert check.kind.extension({}, check, b"a", 9, is_open=False) is None
    assert free.kind.extension({}, free, b"a", 9, is_open=True) is None
