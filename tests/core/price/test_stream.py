import random

import pytest

from sidecar.core.price.stream import GRANTS_MAX, REMEMBERED_MAX, StreamPosting, is_whole, remade
from sidecar.core.price.wallet import Grant, Wallet, add, balance, expire_grants, move, void

HOUR_US = 3_600_000_000
START_US = 1_795_000_000_000_000


def given(name, amount, at_us=START_US, **more):
    return StreamPosting("grant", amount, at_us, name, **more)


def left(made):
    return {grant.id: grant.remaining for grant in made.wallet.grants}


def test_settles_are_paid_in_the_order_of_use_and_debt_by_the_next_grant():
    # Fails if the priority or the expiry of a grant is not read, or debt stays beside credit.
    made = remade([
        given("late", 50, expires_us=START_US + 9 * HOUR_US),
        given("soon", 30, expires_us=START_US + 5 * HOUR_US),
        given("first", 20, priority=-1),
        StreamPosting("settle", -15, START_US + 1),
    ])  # fmt: skip
    assert left(made) == {"first": 5, "soon": 30, "late": 50}
    made = remade([
        given("late", 50, expires_us=START_US + 9 * HOUR_US),
        given("soon", 30, expires_us=START_US + 5 * HOUR_US),
        given("first", 20, priority=-1),
        StreamPosting("settle", -60, START_US + 1),
        StreamPosting("settle", -60, START_US + 2),
        given("more", 100, START_US + 3),
    ])  # fmt: skip
    assert left(made) == {"first": 0, "soon": 0, "late": 0, "more": 80}
    assert (made.wallet.debt, balance(made.wallet), made.total) == (0, 80, 80)
    assert [grant.id for grant in made.granted] == ["late", "soon", "first", "more"]
    assert made.wallet.topped == (START_US + 3, 80, "more")


def test_what_an_exchange_held_of_a_grant_that_expired_pays_for_its_settle():
    # The example of the module. Fails if a grant that ends takes all that is left here: the settle would be debt.
    postings = [
        given("g1", 100, expires_us=START_US + HOUR_US),
        StreamPosting("expiry", -70, START_US + HOUR_US, "g1"),
        StreamPosting("settle", -20, START_US + 1),
        StreamPosting("expiry", -10, START_US + 1),
    ]
    made = remade(postings)
    assert (made.wallet.grants, made.wallet.debt, made.left_out, made.total) == ((), 0, 0, 0)
    assert remade(postings[:2]).left_out == 30


def test_a_grant_that_has_rolled_over_goes_on_without_an_end_and_is_named():
    made = remade([
        given("g1", 100, expires_us=START_US + HOUR_US), StreamPosting("rollover", -60, START_US + HOUR_US, "g1"),
    ])  # fmt: skip
    assert (left(made), made.rolled_over, made.wallet.grants[0].expires_us) == ({"g1": 40}, ("g1",), 0)


def test_units_that_a_void_of_a_record_gives_back_fill_grants_in_reverse_order():
    made = remade([
        given("a", 10, priority=1), given("b", 10, priority=2),
        StreamPosting("settle", -15, START_US + 1), StreamPosting("settle", 7, START_US + 2),
    ])  # fmt: skip
    assert left(made) == {"a": 2, "b": 10}


def test_a_lost_amount_and_a_settle_that_is_recorded_late_leave_no_debt():
    # Fails if a lost amount is charged twice, or a grant has ended before its expiry is on the stream.
    end = START_US + HOUR_US
    lost = [given("a", 10), StreamPosting("settle", 7, START_US + 1), StreamPosting("expiry", -7, START_US + 1)]
    assert left(remade(lost)) == {"a": 10}
    late = [given("a", 10, expires_us=end), StreamPosting("settle", -4, end + 1), StreamPosting("expiry", -6, end, "a")]
    assert remade(late).wallet[:2] == ((), 0)
    assert remade(late).left_out == 0


def test_grants_and_remembered_ids_are_bounded():
    postings = []
    for number in range(1_200):
        at_us = START_US + number
        postings += [given(f"g{number}", 5, at_us), StreamPosting("settle", -5, at_us)]
    made = remade([*postings, given("last", 3, START_US + 5_000)])
    assert len(made.wallet.grants) == GRANTS_MAX
    assert len(made.granted) == REMEMBERED_MAX
    assert left(made)["last"] == balance(made.wallet) == 3


class Store:
    """A wallet as a store keeps it, with holds, and what of its ledger is on the stream."""

    def __init__(self, rng):
        self.rng, self.now_us, self.wallet = rng, START_US, Wallet()
        self.held, self.stream, self.count = {}, [], 0

    def _expire(self):
        self.wallet, postings = expire_grants(self.wallet, self.now_us)
        self.stream += [
            StreamPosting("expiry" if each.kind == "expire" else each.kind, each.delta, self.now_us, each.id)
            for each in postings
        ]

    def grant(self):
        self.count += 1
        amount, ends = (
            self.rng.randrange(1, 500),
            self.rng.choice([0, self.now_us + self.rng.randrange(1, 9) * HOUR_US]),
        )
        one = Grant(f"g{self.count}", self.rng.randrange(3), 0, ends, amount, amount, made_us=self.now_us)
        self.wallet, _ = add(self.wallet, one, self.now_us)
        self.stream.append(given(one.id, amount, self.now_us, priority=one.priority, expires_us=ends))

    def void(self):
        for grant in self.wallet.grants[:1]:
            self.wallet, postings = void(self.wallet, grant.id)
            self.stream += [StreamPosting("void", each.delta, self.now_us, each.id) for each in postings]

    def reserve(self):
        self.count += 1
        self.held[self.count] = amount = self.rng.randrange(200), self.now_us
        self.wallet, _ = move(self.wallet, "reserve", "x", amount[0], self.now_us)

    def settle(self, exchange):
        amount, at_us = self.held.pop(exchange)
        cost = self.rng.randrange(250)
        self.wallet, postings = move(self.wallet, "settle", "x", cost - amount, self.now_us)
        self.stream.append(StreamPosting("settle", -cost, at_us))
        self.stream += [StreamPosting("expiry", each.delta, at_us) for each in postings if each.kind == "lost"]

    def step(self):
        self.now_us += self.rng.randrange(HOUR_US)
        self._expire()
        what = self.rng.randrange(10)
        if what == 0:
            self.grant()
        elif what == 1 and self.rng.random() < 0.3:
            self.void()
        elif what < 6 or not self.held:
            self.reserve()
        else:
            self.settle(self.rng.choice(sorted(self.held)))


@pytest.mark.parametrize("seed", range(30))
def test_the_balance_is_that_of_the_store_whatever_happened(seed):
    # Fails if what is held of a grant that ends is forgotten, or an expiry takes less than its posting says.
    store = Store(random.Random(seed))
    store.grant()
    for number in range(200):
        store.step()
        assert number % 40 or is_whole(remade(store.stream))
    for exchange in sorted(store.held):
        store.settle(exchange)
    made = remade(store.stream)
    assert (balance(made.wallet), made.left_out) == (balance(store.wallet), 0)
    assert all(0 <= grant.remaining <= grant.amount for grant in made.wallet.grants)
