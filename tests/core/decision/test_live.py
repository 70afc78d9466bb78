"""Which limits are shown of a caller, and which of them binds."""

from dataclasses import replace

import pytest

from sidecar.core.decision.live import limits_of, live
from sidecar.core.decision.peek import Peeked, WalletFigures
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit, Route
from tests.edge.counters_suite import DAY_US, START_US
from tests.stage import ANN, policy, quota

DAILY = Limit("daily", "quota", 10, calendar="day", scope="subject")
CREDIT = Limit("credit", "balance", 5, scope="customer", unit="usd", period_us=60_000_000, digits=2)
PRICED = Limit("credit.requests", "priced", 0, calendar="month", scope="customer", unit="usd")


def peeked(*left, who=ANN, wallets=None):
    """The limits with what is left of each."""
    limits = [limit for limit, _ in left]
    checks = checks_for(limits, (0,) * len(limits), who, START_US)
    return Peeked(checks, START_US, tuple(each for _, each in left), (7,) * len(left), wallets or {})


def binding(*left):
    return [each.limit.id for each in live([peeked(*left)]).limits if each.is_binding]


def test_a_limit_is_shown_with_its_holder_and_window():
    (shown,) = live([peeked((DAILY, 4))]).limits
    assert (shown.used, shown.remaining, shown.holder, shown.window) == (6, 4, "app-ann", "2099-12-21")
    assert shown.resets_us == START_US + 7


def test_the_limit_with_the_smallest_part_left_binds():
    # Fails if units of different limits are compared, or one that never denies can bind.
    assert binding((quota(1000), 90), (DAILY, 1)) == ["monthly"]
    assert binding((quota(1000), 110), (DAILY, 1)) == ["daily"]
    assert binding((replace(quota(1000), over="allow"), -90), (DAILY, 1)) == ["daily"]
    assert binding((replace(quota(1000), stage="shadow"), 0), (DAILY, 1)) == ["daily"]
    assert binding((replace(DAILY, stage="soft"), 1)) == []


def test_a_customer_s_limit_is_shown_once_and_a_subject_s_for_each():
    of_customer = replace(quota(1000), scope="customer")
    other = replace(ANN, key_id="k2", subject="app-2")
    shown = live([peeked((of_customer, 9), (DAILY, 4)), peeked((of_customer, 9), (DAILY, 5), who=other)]).limits
    assert [(each.limit.id, each.holder) for each in shown] == [
        ("monthly", "cust-ann"), ("daily", "app-ann"), ("daily", "app-2")
    ]  # fmt: skip


def test_a_balance_is_shown_without_its_overdraft():
    # Fails if the amount that may be owed is available.
    figures = live([peeked((PRICED, -12), (CREDIT, 105), wallets={1: WalletFigures(20, 30, START_US + DAY_US)})])
    (balance,) = figures.balances
    assert (balance.available, balance.held, balance.expiring) == (100, 20, 30)
    assert [(each.limit.meter, each.used) for each in figures.priced] == [("requests", 12)]
    assert figures.limits == []


@pytest.mark.parametrize(
    ("left", "over", "binds"),
    [(0, "deny", ["credit"]), (-3, "deny", ["credit"]), (1, "deny", ["daily"]), (0, "allow", ["daily"])],
)
def test_a_balance_without_anything_left_binds_and_no_limit_does(left, over, binds):
    # Fails if a limit with units left is named to somebody whose requests are all answered 402.
    credit = replace(CREDIT, over=over)
    figures = live([peeked((PRICED, -12), (credit, left), (DAILY, 4), wallets={1: WalletFigures()})])
    named = [each.limit.id for each in figures.limits if each.is_binding]
    assert named + ["credit"] * figures.balances[0].is_binding == binds


def test_limits_of_a_route_that_the_plan_may_not_use_are_not_shown():
    limits = quota(10), replace(DAILY, routes=frozenset({"b"}))
    made = policy(*limits, routes=[Route("a"), Route("b", feature="big")])
    assert [[limit.id for limit in some] for some in limits_of(made, ANN)] == [["monthly"]]


@pytest.mark.parametrize("asked", ["cust-ann", "other"])
def test_limits_of_all_routes_are_asked_by_as_few_questions_as_have_them(asked):
    # Fails if a limit of one route is left out, or each route is asked.
    limits = quota(10), replace(DAILY, routes=frozenset({"b"}))
    made = policy(*limits, routes=[Route("a"), Route("b"), Route("c")])
    chosen = limits_of(made, replace(ANN, customer=asked))
    assert [[limit.id for limit in some] for some in chosen] == [["monthly"], ["monthly", "daily"]]
