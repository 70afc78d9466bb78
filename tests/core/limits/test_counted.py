from sidecar.core.limits import Limit, check_for
from tests.core.limits.examples import NOW_US, WHO

MONTHLY = Limit("monthly", "quota", 1_000, calendar="month")


def ask(state, cost):
    check = check_for(MONTHLY, cost, WHO, NOW_US)
    return check, check.kind.evaluator(check, forced=False)(state, NOW_US)


def test_the_example_of_the_module_holds():
    # Fails if a request is denied where its cost is all that remains, or if a settle adds the actual units to the cost.
    check, (denies, remaining, _, left, _, after, _) = ask({ask({}, 0)[0].keys[0]: 940}, 50)
    state = {check.keys[0]: after}
    assert (denies, remaining, left, after) == (False, 60, 10, 990)
    assert ask(state, 10)[1][0] is False
    assert ask(state, 20)[1][:2] == (True, 10)
    key, member, used, _ = check.kind.correction(state, check, b"id", 30, 0, NOW_US)
    assert (key, member, used) == (check.keys[0], None, 970)


def test_a_count_settled_to_its_cost_needs_no_change_and_never_falls_below_zero():
    check, _ = ask({}, 50)
    assert check.kind.correction({check.keys[0]: 50}, check, b"id", 50, 0, NOW_US) is None
    assert check.kind.correction({check.keys[0]: 20}, check, b"id", 0, 0, NOW_US)[2] == 0
