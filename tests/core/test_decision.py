from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.counter import checks_for
from sidecar.core.decision import MARK_LIFE_US, changes_nothing, reserve, settle
from sidecar.core.identity import Identity
from sidecar.core.policy import Limit

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


def apply(state, writes):
    for key, member, value, _ in writes:
        if member is None:
            state[key] = value
        elif value is None:
            state.get(key, {}).pop(member, None)
        else:
            state.setdefault(key, {})[member] = value


def test_the_rule_changes_nothing_itself():
    state = {}
    decision, writes = reserve(state, AN_ID, checks(monthly), NOW_US)
    assert decision.allowed
    assert state == {}
    assert [(write.key, write.value) for write in writes] == [
        ("sc:{c}:monthly:kk:2026-11", 1),
        ("sc:{c}:ids:01KAJ52", "0"),
    ]


# Kong docs #6586: refused calls counted, so a steady client was blocked for ever
def test_a_refusal_writes_its_mark_and_no_more():
    state = {"sc:{c}:monthly:kk:2026-11": 5}
    decision, writes = reserve(state, AN_ID, checks(monthly, inflight), NOW_US)
    assert decision.violated == 0
    assert [(write.key, write.value) for write in writes] == [("sc:{c}:ids:01KAJ52", "1")]


def test_a_window_that_is_not_that_of_now_is_no_decision():
    asked = checks(monthly)
    assert reserve({}, AN_ID, asked, asked.ends_us[0]) == (None, [])
    assert reserve({}, AN_ID, asked, asked.starts_us[0] - 1) == (None, [])


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
        apply(state, writes)
        marks.append(writes[-1].value)
    assert marks == ["128", "129"]


def test_a_settle_without_a_reservation_leaves_a_mark_and_no_more():
    asked = checks(monthly)
    writes = settle({}, AN_ID, asked, [3], NOW_US, MARK_LIFE_US)
    assert [(write.key, write.value) for write in writes] == [("sc:{c}:ids:01KAJ52", "s0")]
    writes = settle({}, AN_ID, asked, [3], NOW_US, MARK_LIFE_US + 1)
    assert [write.value for write in writes] == [2, "s0"]


RATES = st.builds(
    lambda amount, per, period_us: Limit("r", "rate", amount, per=per, period_us=period_us),
    st.integers(1, 50), st.integers(1, 1000), st.sampled_from([1_000, SECOND_US, 7 * SECOND_US]),
)  # fmt: skip
ASKED = st.lists(st.tuples(st.integers(0, 3 * SECOND_US), st.integers(1, 12)), min_size=1, max_size=60)


# Fails if the remainder is dropped: at 3/s each rounding grants a third of a µs.
@given(RATES, ASKED)
def test_a_rate_never_admits_more_than_its_burst_and_its_pace(limit, asked):
    state, now_us, admitted = {}, NOW_US, []
    for (passed_us, cost), id_ in zip(asked, ids(), strict=False):
        now_us += passed_us
        decision, writes = reserve(state, id_, checks(limit, costs=(cost,), now_us=now_us), now_us)
        apply(state, writes)
        if decision.allowed:
            admitted.append((now_us, cost))
    for first, (from_us, _) in enumerate(admitted):
        units = 0
        for at_us, cost in admitted[first:]:
            units += cost
            assert (units - limit.amount) * limit.period_us <= (at_us - from_us) * limit.per


# Fails if the weight of the previous window rounds down.
@given(st.integers(1, 30), st.sampled_from([1_000, 60_000]), ASKED)
def test_a_sliding_window_never_holds_more_than_its_amount(amount, period_ms, asked):
    limit = Limit("w", "window", amount, period_us=period_ms * 1000)
    state, now_us, counted = {}, NOW_US, {}
    for (passed_us, cost), id_ in zip(asked, ids(), strict=False):
        now_us += passed_us
        asks = checks(limit, costs=(cost,), now_us=now_us)
        decision, writes = reserve(state, id_, asks, now_us)
        apply(state, writes)
        if decision.allowed:
            counted[asks.windows[0]] = counted.get(asks.windows[0], 0) + cost
            passed = (now_us - asks.starts_us[0]) / limit.period_us
            before = state.get(asks.keys[0][1], 0)
            assert counted[asks.windows[0]] + before * (1 - passed) <= amount + 1e-6


# A denial's reset is when it passes: not a µs later, and never earlier.
@given(
    st.one_of(RATES, st.integers(1, 50).map(lambda amount: Limit("w", "window", amount, period_us=60 * SECOND_US))),
    ASKED,
)
def test_a_denial_tells_exactly_when_the_same_request_passes(limit, asked):
    state, now_us = {}, NOW_US
    for (passed_us, cost), id_ in zip(asked, ids(), strict=False):
        now_us += passed_us // 50
        decision, writes = reserve(state, id_, checks(limit, costs=(cost,), now_us=now_us), now_us)
        if not decision.allowed and cost <= limit.amount:
            for at_us, passes in ((now_us + decision.reset_us[0] - 1, False), (now_us + decision.reset_us[0], True)):
                later, _ = reserve(state, id_, checks(limit, costs=(cost,), now_us=at_us), at_us)
                assert later.allowed == passes
        apply(state, writes)
