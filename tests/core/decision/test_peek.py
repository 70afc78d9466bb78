"""A question shows the figures that a request would find; tests/edge/redis has the script that is held to this rule."""

import pytest

from sidecar.core.decision import reserve
from sidecar.core.decision.peek import WalletFigures, peek
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.core.price import Price
from sidecar.core.price.wallet import Grant, Wallet
from sidecar.testing import apply_writes
from tests.edge.counters_suite import DAY_US, SECOND_US, START_US, WHO

MONTHLY = Limit("monthly", "quota", 100, calendar="month", scope="customer")
PACE = Limit("pace", "rate", 5, per=1, period_us=SECOND_US)
PRICED = Limit(
    "credit.requests", "priced", 0, calendar="month", scope="customer", unit="usd", price=Price("per_unit", 7)
)
CREDIT = Limit("credit", "balance", 0, scope="customer", unit="usd", period_us=60 * SECOND_US)
WALLET_KEY = "sc:{cust-1}:wallet:cust-1:usd"


def ask(*limits, now_us=START_US):
    return checks_for(limits, (0,) * len(limits), WHO, now_us)


def reserved(state, *limits, cost=1, id_=b"01" + b"A" * 24):
    decision, writes = reserve(state, id_, checks_for(limits, (cost,) * len(limits), WHO, START_US), START_US)
    apply_writes(state, writes)
    return decision


def test_what_is_left_is_what_the_decision_said_was_left():
    # Fails if a question charges, or is answered by the mark of an exchange.
    state = {}
    decision = reserved(state, MONTHLY, PACE, cost=3)
    for _ in range(2):
        shown = peek(state, ask(MONTHLY, PACE), START_US)
        assert (shown.remaining, shown.reset_us) == (tuple(decision.remaining), tuple(decision.reset_us))
    assert shown.wallets == {}


def test_a_balance_has_what_is_held_and_what_expires_next():
    # Fails if a grant that has not started, or is used up, is the next to expire, or one of two that expire together is
    # left out.
    day = START_US + DAY_US
    grants = (
        Grant("later", 0, 0, day + 1, 100, 100),
        Grant("one", 0, 0, day, 40, 40),
        Grant("two", 0, 0, day, 2, 2),
        Grant("empty", 0, 0, day - 5, 9, 0),
        Grant("future", 0, START_US + 1, day - 9, 9, 9),
        Grant("never", 0, 0, 0, 5, 5),
    )
    state = {WALLET_KEY: Wallet(grants)}
    reserved(state, PRICED, CREDIT)
    shown = peek(state, ask(PRICED, CREDIT), START_US)
    assert shown.remaining == (-1, 140)
    assert shown.wallets == {1: WalletFigures(7, 35, day)}


def test_a_hold_whose_time_has_come_is_available_again():
    state = {WALLET_KEY: Wallet((Grant("g", 0, 0, 0, 50, 50),))}
    reserved(state, PRICED, CREDIT)
    later = START_US + 61 * SECOND_US
    shown = peek(state, ask(PRICED, CREDIT, now_us=later), later)
    assert (shown.remaining, shown.wallets) == ((0, 50), {1: WalletFigures()})


@pytest.mark.parametrize("moved_us", [-40 * DAY_US, 40 * DAY_US])
def test_a_question_about_another_month_is_not_answered(moved_us):
    assert peek({}, ask(MONTHLY, now_us=START_US + moved_us), START_US) is None
