"""Mirrors sidecar/core/record/voice.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.counter import checks_for
from sidecar.core.decision import Decision
from sidecar.core.identity import Identity
from sidecar.core.policy import Limit
from sidecar.core.record import Facts, Voice, open_entry, usage_record

WHO = Identity("k%d", "app", "cust%b", "pro")
LIMITS = (Limit("m%d", "quota", 1_000_000, calendar="month"), Limit("burst", "rate", 10, per=5, period_us=1_000_000))
NOW_US = 1_795_223_006_000_456
CHECKS = [checks_for(LIMITS, costs, WHO, NOW_US) for costs in ((1, 1), (2, 2))]
USAGES = [{"requests": 1}, {"requests": 1, "bytes": 7}]
MEMBERS = {
    "path": ["/a%62", "/b"],
    "status": [200, 404],
    "usage": USAGES,
    "quality": ["exact", "partial"],
    "billable": [True, False],
    "billable_reason": ["plan:pro", "odd%s"],
    "outcome": ["ok", "client_gone"],
    "attempts": [1, 2],
    "traceparent": ["", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
    "dims": [{}, {"model": "m"}],
    "client_disconnected": [False, True],
    "checks": [*CHECKS, None],
    "mode": ["exact", "leased"],
    "violated": [-1, 1],
    "shadowed": [(), (0,)],
    "source": ["//here/1", "//here/%d"],
}


class Exchange(Facts):
    """An exchange as it was; of each member the n-th value."""

    def __init__(self, voice, picked, number):
        said = {name: values[picked.get(name, 0)] for name, values in MEMBERS.items()}
        checks, mode, violated, shadowed, self.source = (
            said.pop(name) for name in ("checks", "mode", "violated", "shadowed", "source")
        )
        self.decision = checks and Decision(checks, NOW_US, [number, number + 1], [5, 6], violated, shadowed, mode)
        for name, value in said.items():
            setattr(self, name, value)
        self.id = b"%026d" % number
        self.identity, self.plan, self.route, self.method = WHO, "pro@3", "all%d", "GET"
        self.bytes_in, self.bytes_out, self.duration_us, self.upstream_us = number, number + 1, number + 2, number + 3
        self.spelled = b""
        self.voice = voice


def voice():
    return Voice(WHO, "pro@3", "all%d", "GET")


def told(exchange, number):
    return open_entry(exchange, NOW_US + number), usage_record(exchange, NOW_US + number, exchange.source, number)


ODD = [{}, *({name: n} for name, values in MEMBERS.items() for n in range(1, len(values)))]


@given(st.lists(st.sampled_from(ODD), min_size=3, max_size=12))
def test_an_exchange_is_told_alike_whatever_was_told_before(odds):
    # Mutation: leave any one member out of `Like.holds`, or out of the conditions of `Voice.like`.
    known = voice()
    for number, odd in enumerate(odds):
        assert told(Exchange(known, odd, number), number) == told(Exchange(voice(), odd, number), number)


@pytest.mark.parametrize("odd", ODD[1:], ids="-".join)
def test_one_that_differs_among_those_that_do_not_is_told_as_it_was(odd):
    known = voice()
    for number, picked in enumerate([{}, {}, {}, odd, {}, {}, odd, odd, odd, {}]):
        assert told(Exchange(known, picked, number), number) == told(Exchange(voice(), picked, number), number)


def test_the_form_is_filled_when_a_second_is_like_the_first():
    known = voice()
    for number in range(2):
        told(Exchange(known, {}, number), number)
    like = known.like(Exchange(known, {}, 9), "//here/1")
    assert like is not None
    assert like.filled
