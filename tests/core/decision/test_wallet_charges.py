"""What a balance pays, as a rule. Redis is held to it in tests/edge/redis/test_balances.py."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.decision import MARK_LIFE_US, reserve, settle
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.core.price import Price, Tier, charged, wallet
from sidecar.core.price.wallet import Grant, Wallet
from sidecar.testing import apply_writes

NOW_US = 1_795_239_000_000_000
SECOND_US = 1_000_000
WHO = Identity("k", "s", "c", "free")
WALLET, LEDGER, HELD = "sc:{c}:wallet:c:usd", "sc:{c}:ledger:c:usd", "sc:{c}:held:c:usd"
tokens = Limit("credit.tokens", "priced", 0, meter="tokens", scope="customer", calendar="month", unit="usd",
               price=Price("per_unit", 10))  # fmt: skip
calls = replace(tokens, id="credit.calls", meter="requests", price=Price("package", 100, 10))
credit = Limit("credit", "balance", 0, scope="customer", unit="usd", period_us=600 * SECOND_US)
monthly = Limit("monthly", "quota", 3, calendar="month")


class World:
    """The rule on a dict, with a clock and a wallet."""

    def __init__(self, *grants):
        self.now_us, self.state, self.made = NOW_US, {}, 0
        for each in grants:
            self.grant(each)

    def grant(self, grant):
        held, postings = wallet.add(self.state.get(WALLET, Wallet()), grant, self.now_us)
        self.state[WALLET] = held
        self.post(postings)

    def post(self, postings):
        ledger = self.state.setdefault(LEDGER, {})
        for each in postings:
            ledger[max(ledger, default=0) + 1] = (*each[:3], wallet.balance(self.state[WALLET]))

    def mint(self):
        self.made += 1
        return b"01KAJ52%019d" % self.made

    def ask(self, *limits, costs, id_=None, force=False):
        checks = checks_for(limits, costs, WHO, self.now_us)
        decision, writes = reserve(self.state, id_ or self.mint(), checks, self.now_us, force=force)
        self.store(writes)
        return decision

    def settle(self, id_, checks, *actual, age_us=0):
        self.store(settle(self.state, id_, checks, actual, self.now_us, age_us))

    def store(self, writes):
        apply_writes(self.state, writes)
        held = self.state.get(WALLET, Wallet())
        assert held.carried + sum(delta for _, _, delta, *_ in self.ledger) == wallet.balance(held)

    @property
    def ledger(self):
        return list(self.state.get(LEDGER, {}).values())

    @property
    def balance(self):
        return wallet.available(self.state[WALLET], self.now_us)


def purchase(amount, name="purchase", **more):
    return Grant(name, 0, 0, more.pop("expires_us", 0), amount, amount, **more)


def test_a_balance_denies_what_it_cannot_pay_and_charges_nothing_for_it():
    world = World(purchase(100))
    said = [world.ask(tokens, credit, costs=(4, 0)) for _ in range(3)]
    assert [each.allowed for each in said] == [True, True, False]
    assert [list(each.remaining) for each in said] == [[-4, 60], [-8, 20], [-8, 20]]
    assert [each.reset_us[1] for each in said] == [0, 0, 0]
    assert said[2].violated == 1
    assert world.ask(tokens, credit, costs=(2, 0)).allowed
    assert world.balance == 0


def test_a_wallet_that_nobody_ever_filled_is_empty():
    assert World().ask(tokens, credit, costs=(1, 0)).violated == 1


def test_what_costs_nothing_passes_an_empty_balance():
    free = replace(tokens, price=Price("per_unit", 10, included=5))
    world = World()
    assert [world.ask(free, credit, costs=(1, 0)).allowed for _ in range(6)] == [True] * 5 + [False]


# unkey #1995: an earlier limit was charged when a later one refused
def test_a_denial_by_another_limit_charges_no_balance():
    world = World(purchase(100))
    for _ in range(5):
        world.ask(tokens, credit, monthly, costs=(1, 0, 1))
    assert world.balance == 70
    assert [kind for kind, *_ in world.ledger] == ["grant", "reserve", "reserve", "reserve"]


# Fails if each priced limit is held against the balance alone.
def test_the_sum_of_all_that_is_priced_counts():
    world = World(purchase(149))
    assert not world.ask(tokens, calls, credit, costs=(5, 1, 0)).allowed
    assert world.ask(tokens, calls, credit, costs=(4, 1, 0)).allowed
    assert world.balance == 9


def test_a_priced_limit_is_paid_by_the_next_balance_of_its_unit_and_by_none_before_it():
    gpu = replace(credit, id="gpu", unit="gpu_seconds")
    checks = checks_for((tokens, gpu, credit, calls), (1, 0, 0, 1), WHO, NOW_US)
    assert [check.payer for check in checks.entries] == [2, -1, -1, -1]
    world = World(purchase(100))
    assert world.ask(tokens, gpu, credit, calls, costs=(1, 0, 0, 1)).allowed
    assert world.balance == 90


@pytest.mark.parametrize("lenient", [{"over": "allow"}, {"stage": "shadow"}, {"stage": "soft"}])
def test_a_balance_that_refuses_nobody_runs_into_debt(lenient):
    world = World(purchase(100))
    said = world.ask(tokens, replace(credit, **lenient), costs=(15, 0))
    assert said.allowed
    assert said.shadowed == (() if "over" in lenient else (1,))
    assert said.remaining[1] == world.balance == -50


def test_a_settle_moves_the_counter_and_the_wallet_to_the_truth():
    world, id_ = World(purchase(100)), b"01KAJ52%019d" % 0
    checks = world.ask(tokens, credit, costs=(6, 0), id_=id_).checks
    world.settle(id_, checks, 9, 0)
    world.settle(id_, checks, 9, 0)
    assert (world.balance, world.state[checks.keys[0][0]]) == (10, 9)
    assert world.state[HELD] == {}
    assert [(kind, delta) for kind, _, delta, *_ in world.ledger] == [("grant", 100), ("reserve", -60), ("settle", -30)]


# DEEIX-Chat #477: settling below zero rolled the usage back
def test_a_settle_may_run_into_debt_which_the_next_grant_pays():
    world, id_ = World(purchase(100)), b"01KAJ52%019d" % 0
    checks = world.ask(tokens, credit, costs=(6, 0), id_=id_).checks
    world.settle(id_, checks, 13, 0)
    assert world.balance == -30
    world.grant(purchase(50, "more"))
    assert world.balance == 20


# litellm #27639: reservations leaked, so honest calls got 429
def test_a_hold_that_nobody_settles_goes_back_when_its_time_has_come():
    world = World(purchase(100))
    checks = world.ask(tokens, credit, costs=(10, 0)).checks
    world.now_us += credit.period_us - 1
    assert not world.ask(tokens, credit, costs=(1, 0)).allowed
    world.now_us += 1
    assert world.ask(tokens, credit, costs=(1, 0)).allowed
    assert (world.balance, world.state[checks.keys[0][0]]) == (90, 1)
    assert ("release", 100) in [(kind, delta) for kind, _, delta, *_ in world.ledger]


# Fails if what a late settle owes is counted from what was held.
def test_a_settle_that_comes_after_its_hold_was_given_back_is_charged_in_full():
    world, id_ = World(purchase(100)), b"01KAJ52%019d" % 0
    checks = world.ask(tokens, credit, costs=(6, 0), id_=id_).checks
    world.now_us += credit.period_us
    world.ask(tokens, credit, costs=(1, 0))
    world.settle(id_, checks, 7, 0, age_us=credit.period_us)
    assert (world.balance, world.state[checks.keys[0][0]]) == (20, 8)


def test_eight_holds_are_given_back_by_one_reserve_the_oldest_first():
    world = World(purchase(1000))
    for _ in range(10):
        world.ask(tokens, credit, costs=(1, 0))
        world.now_us += 1
    world.now_us += credit.period_us
    world.ask(tokens, credit, costs=(1, 0))
    assert len(world.state[HELD]) == 3
    assert world.balance == 970


def test_a_hold_is_given_back_at_the_price_it_was_made_at():
    world = World(purchase(100))
    world.ask(tokens, credit, costs=(5, 0))
    world.now_us += credit.period_us
    world.ask(replace(tokens, price=Price("per_unit", 1)), credit, costs=(1, 0))
    assert world.balance == 99


# Fails if a hold is given back by what it was charged: the dear units are now another's.
def test_a_hold_gives_back_what_its_units_cost_now():
    world, id_ = World(purchase(100)), b"01KAJ52%019d" % 0
    tiered = replace(tokens, price=Price("graduated", tiers=(Tier(5, 10), Tier(None, 1))))
    world.ask(tiered, credit, costs=(5, 0))
    checks = world.ask(tiered, credit, costs=(5, 0), id_=id_).checks
    world.settle(id_, checks, 5, 0)
    world.now_us += credit.period_us
    world.ask(tiered, credit, costs=(0, 0))
    assert world.balance == 50


def test_a_hold_whose_window_is_long_over_gives_back_what_it_took():
    world = World(purchase(100))
    checks = world.ask(tokens, credit, costs=(5, 0)).checks
    del world.state[checks.keys[0][0]]
    world.now_us += credit.period_us
    world.ask(tokens, credit, costs=(0, 0))
    assert world.balance == 100


def test_a_settle_without_a_reservation_moves_no_money():
    world = World(purchase(100))
    checks = checks_for((tokens, credit), (5, 0), WHO, NOW_US)
    world.settle(world.mint(), checks, 9, 0)
    assert world.balance == 100
    world.settle(world.mint(), checks, 9, 0, age_us=MARK_LIFE_US + 1)
    assert world.balance == 10


def test_what_was_let_through_is_charged_without_asking_and_held_until_it_is_settled():
    world, id_ = World(purchase(20)), b"01KAJ52%019d" % 0
    said = world.ask(tokens, credit, costs=(5, 0), id_=id_, force=True)
    world.ask(tokens, credit, costs=(5, 0), id_=id_, force=True)
    assert world.balance == -30
    world.settle(id_, said.checks, 2, 0)
    assert world.balance == 0


def test_grants_burn_in_their_order_and_an_expired_one_is_gone_with_the_next_question():
    soon = purchase(30, "soon", expires_us=NOW_US + SECOND_US)
    world = World(purchase(100), soon)
    world.ask(tokens, credit, costs=(1, 0))
    assert {each.id: each.remaining for each in world.state[WALLET].grants} == {"purchase": 100, "soon": 20}
    world.now_us += SECOND_US
    world.ask(tokens, credit, costs=(50, 0))  # denied, and yet the grant has expired
    assert world.balance == 100
    assert world.ledger[-1] == ("expire", "soon", -20, 100)


def test_a_ledger_that_is_full_carries_its_oldest_postings(monkeypatch):
    monkeypatch.setattr(wallet, "LEDGER_MAX", 6)
    monkeypatch.setattr(wallet, "LEDGER_TRIMMED", 4)
    world = World(purchase(1000))
    for number in range(1, 12):
        world.ask(tokens, credit, costs=(1, 0))
        assert len(world.ledger) < 6
        assert world.state[WALLET].carried + sum(delta for _, _, delta, *_ in world.ledger) == 1000 - 10 * number
    assert world.state[WALLET].carried > 0


PRICES = st.sampled_from([
    Price("per_unit", 3), Price("per_unit", 7, 3), Price("package", 11, 4, included=3),
    Price("graduated", per=3, tiers=(Tier(5, 10), Tier(20, 4), Tier(None, 1)), included=2),
    Price("volume", tiers=(Tier(10, 5), Tier(None, 2))),
])  # fmt: skip
STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "ask", "settle", "wait", "grant"]), st.integers(0, 12), st.integers(0, 30)),
    max_size=40,
)


# What was granted less all charges of the running totals is what is left. Fails if a hold is given back by its charge,
# if the settle forgets a priced limit, or if R is taken of the units and not of the total.
@given(st.tuples(PRICES, PRICES), STEPS)
def test_the_wallet_holds_what_was_granted_less_the_price_of_the_running_totals(prices, steps):
    world, known = World(), []
    priced = [replace(each, price=price) for each, price in zip((tokens, calls), prices, strict=True)]
    limits = (*priced, replace(credit, over="allow", period_us=5 * SECOND_US))
    granted, counters = 0, checks_for(limits, (1, 1, 0), WHO, NOW_US).keys
    for number, (what, one, other) in enumerate(steps):
        if what == "ask":
            id_ = world.mint()
            known.append((id_, world.ask(*limits, costs=(one, other, 0), id_=id_).checks))
        elif what == "settle" and known:
            world.settle(*known[one % len(known)], other, one, 0)
        elif what == "wait":
            world.now_us += one * SECOND_US
        else:
            world.grant(purchase(other + 1, f"g{number}"))
            granted += other + 1
        totals = [world.state.get(key, 0) for key, *_ in counters[:2]]
        owed = sum(charged(limit.price, total) for limit, total in zip(priced, totals, strict=True))
        forfeited = sum(delta for kind, _, delta, *_ in world.ledger if kind == "expire")
        assert granted + forfeited - owed == wallet.balance(world.state.get(WALLET, Wallet()))
