from itertools import islice

from sidecar.core.decision import MARK_LIFE_US, changes_nothing, reserve, settle
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.testing import apply_writes

# What every backend does is in tests/edge/counters_suite.py; here is what the rule promises as a rule.

NOW_US = 1_795_239_000_000_000
SECOND_US = 1_000_000
WHO = Identity("k", "s", "c", "free")
AN_ID = b"01KAJ52YB0ABCDEFGHJKMNPQRS"
monthly = Limit("monthly", "quota", 5, calendar="month")
inflight = Limit("inflight", "concurrency", 1, period_us=SECOND_US)


def checks(*limits, costs=None, now_us=NOW_US):
    return checks_for(limits, costs or (1,) * len(limits), WHO, now_us)


def ids():
    return (b"01KAJ52%019d" % n for n in range(10**9))


def test_the_rule_changes_nothing_itself():
    state = {}
    decision, writes = reserve(state, AN_ID, checks(monthly), NOW_US)
    assert decision.allowed
    assert state == {}
    assert [(key, value) for key, _, value, _ in writes] == [
        ("sc:{c}:q=monthly:kk:2026-11", 1),
        ("sc:{c}:ids:01KAJ52", "0"),
    ]


# Kong docs #6586: refused calls counted, so a steady client was blocked for ever
def test_a_refusal_writes_its_mark_and_no_more():
    state = {"sc:{c}:q=monthly:kk:2026-11": 5}
    decision, writes = reserve(state, AN_ID, checks(monthly, inflight), NOW_US)
    assert decision.violated == 0
    assert [(key, value) for key, _, value, _ in writes] == [("sc:{c}:ids:01KAJ52", "1")]


def test_a_window_that_is_not_that_of_now_is_no_decision():
    asked = checks(monthly)
    assert reserve({}, AN_ID, asked, asked.entries[0].window.end_us) == (None, [])
    assert reserve({}, AN_ID, asked, asked.entries[0].window.start_us - 1) == (None, [])


def test_a_settle_that_changes_nothing_need_not_be_sent():
    assert changes_nothing(checks(monthly), [1])
    assert not changes_nothing(checks(monthly), [0])
    assert not changes_nothing(checks(monthly, inflight), [1, 1])


def test_a_mark_holds_the_verdict():  # 1 + the index that denied, and 64 x a bit for each shadow limit that would have
    full = Limit("full", "quota", 1, calendar="day")
    shadow = Limit("trial", "quota", 1, calendar="month", stage="shadow")
    asked = checks(full, shadow, costs=(1, 2))
    state = {}
    marks = []
    for id_ in islice(ids(), 2):
        _, writes = reserve(state, id_, asked, NOW_US)
        apply_writes(state, writes)
        marks.append(writes[-1][2])
    assert marks == ["128", "129"]


def test_a_settle_without_a_reservation_leaves_a_mark_and_no_more():
    asked = checks(monthly)
    writes = settle({}, AN_ID, asked, [3], NOW_US, MARK_LIFE_US)
    assert [(key, value) for key, _, value, _ in writes] == [("sc:{c}:ids:01KAJ52", "s0")]
    writes = settle({}, AN_ID, asked, [3], NOW_US, MARK_LIFE_US + 1)
    assert [value for _, _, value, _ in writes] == [2, "s0"]
