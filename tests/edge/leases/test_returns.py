"""What the store has yet to hear: told until it has taken it, and once."""

import pytest

from sidecar.core.errors import StoreError
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.core.record import Ids
from sidecar.edge.leases import returns
from sidecar.edge.leases.lease import Lease
from sidecar.edge.leases.returns import Returns
from sidecar.testing import CounterBook, HandClock

QUOTA = Limit("quota", "quota", 1000, calendar="month")
AWAY = StoreError("away")


class Desk:
    def __init__(self):
        self.clock = HandClock()
        self.store = CounterBook(self.clock)
        ids = Ids(1)
        self.mint = lambda: ids.mint(self.clock.now_us() // 1000)
        self.returns = Returns(self.store, self.clock, self.mint)
        self.checks = checks_for((QUOTA,), (100,), Identity("k", "s", "c", "p"), self.clock.now_us())

    def reserved(self):
        id_ = self.mint()
        self.store.reserve(id_, self.checks, lambda _: None)
        return id_

    @property
    def used(self):
        return self.store.used("quota")


@pytest.fixture
def desk():
    return Desk()


def test_what_comes_back_is_told_at_once(desk):
    desk.returns.settle(desk.reserved(), desk.checks, (30,))
    assert (desk.used, len(desk.returns)) == (30, 0)


def test_what_the_store_refuses_is_told_again_until_it_is_taken(desk):
    id_ = desk.reserved()
    desk.store.fails = AWAY
    desk.returns.settle(id_, desk.checks, (30,))
    desk.returns.pay()
    assert len(desk.returns) == 1
    desk.store.fails = None
    desk.returns.pay()
    desk.returns.pay()
    assert (desk.used, len(desk.returns)) == (30, 0)


def test_what_a_predecessor_left_is_told_once_and_only_while_the_store_remembers_it(desk):
    desk.returns.late(desk.reserved(), desk.checks, (30,), 100_000_000)
    assert (desk.used, len(desk.returns)) == (30, 0)
    id_ = desk.reserved()
    desk.store.fails = AWAY
    desk.returns.late(id_, desk.checks, (30,), 100_000_000)
    assert len(desk.returns) == 1
    desk.clock.turn(returns.GIVE_UP_US - 100_000_000)
    desk.store.fails = None
    desk.returns.pay()
    desk.returns.late(desk.reserved(), desk.checks, (30,), -1)
    assert (desk.used, len(desk.returns), desk.returns.lost) == (230, 0, 2)


# Mutation: its age is counted from the last attempt.
def test_what_is_refused_for_too_long_is_given_up(desk):
    id_ = desk.reserved()
    desk.store.fails = AWAY
    desk.returns.settle(id_, desk.checks, (30,))
    for _ in range(3):
        desk.clock.turn(returns.GIVE_UP_US // 2)
        desk.returns.pay()
    assert (len(desk.returns), desk.returns.lost) == (0, 1)


def test_what_the_store_has_not_answered_is_owed(desk):
    desk.store.holding = True
    desk.returns.confirm(Lease(desk.checks, 10))
    assert len(desk.returns) == 1
    desk.store.let_go()
    assert (len(desk.returns), desk.used) == (0, 0)


# Fails if more is told with the mint's id: a start after a kill could not send it again without counting it twice.
def test_more_than_the_costs_is_settled_at_once_in_one_command_under_the_exchange_s_own_id(desk):
    lease = Lease(desk.checks, 10)
    desk.reserved()
    id_ = desk.mint()
    desk.returns.correct(id_, lease, (5,))
    desk.returns.correct(id_, lease, (5,))  # again, by whoever comes after a kill
    assert (desk.used, len(desk.returns)) == (105, 0)
    assert [told for told, _ in desk.store.settled] == [id_, id_]


def test_less_than_the_costs_waits_so_that_many_are_one_call(desk):
    lease = Lease(desk.checks, 10)
    desk.reserved()
    desk.returns.correct(desk.mint(), lease, (-40,))
    desk.returns.correct(desk.mint(), lease, (-2,))
    desk.returns.correct(desk.mint(), lease, (5,))
    assert (desk.used, len(desk.returns)) == (105, 1)
    desk.returns.pay()
    assert (desk.used, len(desk.returns), len(desk.store.settled)) == (63, 0, 2)


def test_a_correction_waits_while_the_store_is_away(desk):
    lease = Lease(desk.checks, 10)
    desk.store.fails = AWAY
    desk.returns.correct(desk.mint(), lease, (5,))
    desk.returns.correct(desk.mint(), lease, (6,))
    desk.returns.pay()
    desk.store.fails = None
    desk.returns.pay()
    assert (desk.used, len(desk.returns)) == (11, 0)


def test_what_is_owed_is_bounded(monkeypatch):
    monkeypatch.setattr(returns, "CAP", 2)
    desk = Desk()
    ids = [desk.reserved() for _ in range(3)]
    desk.store.fails = AWAY
    for id_ in ids:
        desk.returns.settle(id_, desk.checks, (0,))
        desk.returns.correct(desk.mint(), Lease(desk.checks, 10), (1,))
    assert (len(desk.returns), desk.returns.lost) == (2, 4)
