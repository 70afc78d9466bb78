"""What a lost store would let through again is denied until the loss is over, limit by limit."""

from dataclasses import replace

import pytest

from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.edge.admission.loss_guard import LossGuard, denies_until_us, guards
from sidecar.testing import CounterBook, HandClock

START_US = 1_790_000_000_000_000  # 2026-09-21
SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
WHO = Identity("k1", "app", "cust", "free")
QUOTA = Limit("q", "quota", 100, calendar="day", on_store_loss="deny")
WINDOW = Limit("w", "window", 100, period_us=HOUR_US, on_store_loss="deny")
FIXED = replace(WINDOW, id="f", fixed=True)
RATE = Limit("r", "rate", 50, per=10, period_us=SECOND_US, on_store_loss="deny")
SLOTS = Limit("s", "concurrency", 4, period_us=60 * SECOND_US, on_store_loss="deny")


class Desk:
    def __init__(self, lost_us=START_US):
        self.clock = HandClock(START_US)
        self.store = CounterBook(self.clock)
        self.lost_us = lost_us
        self.guard = LossGuard(self.store, self.clock, lambda _slot_key: self.lost_us)

    def ask(self, *limits, cost=1):
        said = []
        checks = checks_for(limits, [cost] * len(limits), WHO, self.clock.now_us())
        assert self.guard.try_local(b"0" * 26, checks) is None or self.guard.denied
        self.guard.reserve(b"01KAJ52YB0ABCDEFGHJKMNPQRS", checks, said.append)
        return said[0]


# Fails if a limit is denied for longer, or for less long, than what was counted before the loss could have counted.
@pytest.mark.parametrize(
    ("limit", "until_us"),
    [
        (QUOTA, None),  # the end of its window
        (FIXED, None),
        (WINDOW, START_US + HOUR_US),
        (RATE, START_US + 5 * SECOND_US),
        (SLOTS, START_US + 60 * SECOND_US),
    ],
)
def test_a_limit_is_denied_until_nothing_that_was_lost_could_count_any_more(limit, until_us):
    desk = Desk()
    until_us = until_us or checks_for([limit], [1], WHO, START_US).entries[0].window.end_us
    said = desk.ask(limit)
    assert (said.allowed, said.violated, said.mode, said.unknown) == (False, 0, "degraded", "lost")
    assert denies_until_us([limit], START_US) == until_us
    assert list(said.reset_us) == [until_us - START_US]
    desk.clock.turn(until_us - START_US - 1)
    assert not desk.ask(limit).allowed
    desk.clock.turn(1)
    assert desk.ask(limit).allowed


@pytest.mark.parametrize(
    "more", [{"on_store_loss": "allow"}, {"over": "allow"}, {"stage": "shadow"}, {"stage": "soft"}]
)
def test_what_refuses_nobody_or_allows_is_decided_by_the_store(more):
    assert Desk().ask(replace(QUOTA, **more)).allowed


def test_without_a_loss_or_a_cost_nothing_is_denied():
    assert Desk(lost_us=0).ask(QUOTA).allowed
    assert Desk().ask(QUOTA, cost=0).allowed


def test_a_denial_consumes_nothing_and_names_the_limit():
    desk = Desk()
    said = desk.ask(replace(QUOTA, id="other", on_store_loss="allow"), QUOTA)
    assert (said.violated, desk.store.used("other"), desk.guard.denied) == (1, 0, 2)


# Fails if the end of a calendar window in one zone is taken for that of a customer in another, or if it is forgotten
# that summer time may end before the window.
@pytest.mark.parametrize("own", [{"anchored": True}, {"zone": "customer"}, {"anchored": True, "zone": "customer"}])
def test_where_windows_are_the_customers_own_the_latest_time_possible_is_told(own):
    quota, lost_us = replace(QUOTA, calendar="month", **own), START_US + 20 * 24 * HOUR_US
    who = replace(WHO, anchor_us=lost_us, zone="America/New_York")
    until_us = checks_for([quota], [1], who, lost_us).entries[0].window.end_us
    assert until_us <= denies_until_us([QUOTA, quota], lost_us) <= until_us + 32 * 24 * HOUR_US
    assert denies_until_us([], lost_us) == 0


def test_limits_that_refuse_nobody_do_not_guard():
    assert guards(QUOTA)
    assert not any(guards(replace(QUOTA, **more)) for more in ({"over": "allow"}, {"stage": "soft"}))
