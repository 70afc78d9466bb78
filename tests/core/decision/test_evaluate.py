"""What each kind of limit promises as a rule, over any traffic."""

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.decision import reserve
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit

NOW_US = 1_795_239_000_000_000
SECOND_US = 1_000_000
WHO = Identity("k", "s", "c", "free")


def checks(*limits, costs=None, now_us=NOW_US):
    return checks_for(limits, costs or (1,) * len(limits), WHO, now_us)


def ids():
    return (b"01KAJ52%019d" % n for n in count())


def apply(state, writes):
    for key, _, value, _ in writes:
        if ":ids:" not in key:
            state[key] = value


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
            counted[asks.entries[0].window.id] = counted.get(asks.entries[0].window.id, 0) + cost
            passed = (now_us - asks.entries[0].window.start_us) / limit.period_us
            before = state.get(asks.keys[0][1], 0)
            assert counted[asks.entries[0].window.id] + before * (1 - passed) <= amount + 1e-6


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
