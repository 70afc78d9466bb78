"""Mirrors sidecar/wallets/audit.py: ledgers summed up, wallets made anew from them."""

import asyncio
import random
import time

import pytest

from sidecar.config.addresses import parse_redis_url
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.core.price import Price, Tier, charged
from sidecar.core.price.book import EVERY, Posted, WalletSnapshot
from sidecar.core.price.wallet import Grant, Posting, Wallet, add, available, balance, expire_grants, move, void
from sidecar.core.record.ids import Ids
from sidecar.edge.clock import SystemClock
from sidecar.edge.redis.counters import RedisCounters
from sidecar.edge.redis.endpoint import connect, disconnect
from sidecar.edge.redis.wallet import RedisWallet
from sidecar.wallets.audit import (
    NEVER_TRIMMED,
    audit,
    differences,
    rebuilt,
)
from tests.edge.redis.scripts import Blocking

DAY_US = 86_400_000_000
START_US = 1_795_000_000_000_000
SEED = 20261121
WHO = Identity("k1", "app-1", "cust-9", "pro")
TIERED = Price("graduated", per=3, tiers=(Tier(500, 10), Tier(2000, 4), Tier(None, 1)), included=20)
PRICED = Limit("credit.tokens", "priced", 0, scope="customer", calendar="year", unit="usd", price=TIERED)
CREDIT = Limit("credit", "balance", 0, scope="customer", unit="usd", period_us=60_000)


def grant(name: str, amount: int = 100, **more) -> Grant:
    figures = {"priority": 0, "starts_us": 0, "expires_us": 0, "amount": amount, "remaining": amount}
    return Grant(id=name, **figures | more)


class Till:
    """A wallet and its ledger as the scripts keep them: each change of the balance is a posting with its place."""

    def __init__(self) -> None:
        self.wallet, self.now_us = Wallet(), START_US
        self.granted, self.postings = {}, []

    def grant(self, one: Grant) -> None:
        one = one._replace(made_us=self.now_us)
        self.granted[one.id] = one
        self._step(lambda wallet: add(wallet, one, self.now_us))

    def void(self, name: str) -> None:
        self._step(lambda wallet: (void(wallet, name)[0], void(wallet, name)[1] or [Posting("void", name, 0)]))

    def move(self, amount: int, kind: str = "reserve") -> None:
        self._step(lambda wallet: move(wallet, kind, "x", amount, self.now_us))

    def book(self, **more) -> WalletSnapshot:
        book = WalletSnapshot(self.now_us, self.wallet, {}, dict(self.granted), tuple(self.postings))
        return book._replace(**more)

    def trim(self, count: int) -> None:
        """As the scripts do it where a ledger is full."""
        carried = sum(posted.delta for posted in self.postings[:count])
        self.wallet = self.wallet._replace(carried=self.wallet.carried + carried)
        del self.postings[:count]

    def _step(self, change) -> None:
        stands = balance(self.wallet)
        self.wallet, expired = expire_grants(self.wallet, self.now_us)
        self.wallet, changed = change(self.wallet)
        for number, posting in enumerate((*expired, *changed)):
            stands += posting.delta
            place = f"{self.now_us // 1000}-{number}"
            self.postings.append(Posted(place, *posting[:3], stands, posting.charges))
        assert stands == balance(self.wallet)


def random_till(seed: int, steps: int = 400) -> Till:
    """Grants, voids, expiries, charges and what is given back, in a random order over some days."""
    chance, till = random.Random(seed), Till()
    for number in range(steps):
        till.now_us += chance.randrange(1, DAY_US // 50)
        what = chance.random()
        day = (till.now_us // 1_000_000 + chance.randrange(1, 300_000)) * 1_000_000
        if what < 0.15:
            roll = {"rollover_max": chance.randrange(60), "rollover_until_us": day + DAY_US} if what < 0.05 else {}
            ends = {"expires_us": day, **roll} if what < 0.1 else {}
            starts = {"starts_us": day - 100_000_000_000} if chance.random() < 0.3 else {}
            till.grant(grant(f"g{number}", chance.randrange(1, 200), priority=chance.randrange(3), **ends, **starts))
        elif what < 0.2 and till.wallet.grants:
            till.void(chance.choice(till.wallet.grants).id)
        elif what < 0.7:
            till.move(chance.randrange(1, 40))
        else:
            till.move(-chance.randrange(1, 30), "settle")
    return till


@pytest.mark.parametrize("seed", range(SEED, SEED + 10))
def test_a_ledger_sums_to_the_balance_also_when_it_was_trimmed(seed):
    till = random_till(seed)
    assert audit(till.book()).whole
    till.trim(123)
    found = audit(till.book())
    assert found.whole
    assert found.ledger == found.balance == balance(till.wallet)


def test_a_lost_posting_is_found_where_it_was_and_as_a_difference():
    till = random_till(SEED)
    lost = till.postings.pop(100)
    found = audit(till.book())
    assert not found.whole
    assert found.balance - found.ledger == lost.delta
    assert found.broken[0] == till.postings[100]


def test_a_wallet_that_was_changed_without_a_posting_is_found():
    till = random_till(SEED)
    found = audit(till.book(wallet=till.wallet._replace(debt=till.wallet.debt + 5)))
    assert (found.whole, found.broken) == (False, ())
    assert found.ledger - found.balance == 5


# The balance is rebuilt from its ledger alone: whatever the wallet says, or without it. Mutations: no expiry before a
# posting is played, or what is given back is burned: the sums differ, and the replay is not taken for exact.
@pytest.mark.parametrize("seed", range(SEED, SEED + 20))
def test_a_wallet_is_made_anew_from_its_ledger_grant_by_grant(seed):
    till = random_till(seed)
    for wallet in (till.wallet, Wallet(), Wallet((grant("forged", 5),), 7)):
        made = rebuilt(till.book(wallet=wallet))
        assert made.exact
        assert balance(made.wallet) == balance(till.wallet)
        assert differences(till.book(), made.wallet) == []
        assert available(expire_grants(made.wallet, till.now_us)[0], till.now_us) == available(till.wallet, till.now_us)


# Redis reads its clock for the script and again for the posting. Mutation: a posting's time is taken as it is.
def test_a_posting_that_is_stamped_in_the_ms_of_an_expiry_is_played_before_it():
    till = Till()
    till.grant(grant("soon", expires_us=START_US + 1000, priority=0))
    till.grant(grant("later", priority=1))
    till.now_us = START_US + 999
    till.move(60)
    till.postings[-1] = till.postings[-1]._replace(place=f"{START_US // 1000 + 1}-0")
    till.now_us = START_US + 1000
    till.move(5)
    made = rebuilt(till.book())
    assert made.exact
    assert differences(till.book(), made.wallet) == []


def test_what_differs_is_told_by_grant_with_what_stands_and_what_would():
    till = Till()
    till.grant(grant("a"))
    till.grant(grant("b"))
    till.move(130)
    book = till.book(wallet=Wallet((grant("a", remaining=7), till.wallet.grants[1])))
    assert differences(book, rebuilt(book).wallet) == [("a", 7, 0)]
    book = till.book(wallet=Wallet((grant("a", remaining=0), grant("c", remaining=0)), 3))
    assert differences(book, rebuilt(book).wallet) == [("b", 0, 70), ("the debt", 3, 0)]


# Mutation: the sum is that of the postings that are left, without what was carried.
@pytest.mark.parametrize("seed", range(SEED, SEED + 10))
def test_from_a_trimmed_ledger_the_sum_is_right_and_the_parts_are_those_of_the_burn_order(seed):
    till = Till()
    chance = random.Random(seed)
    for number in range(5):
        till.grant(grant(f"g{number}", 10**6, priority=chance.randrange(3)))
    for _ in range(NEVER_TRIMMED + 100):
        till.now_us += 1000
        till.move(chance.randrange(1, 300))
    till.trim(50)
    wrong = till.wallet._replace(grants=tuple(one._replace(remaining=1) for one in till.wallet.grants))
    for wallet in (till.wallet, Wallet(), wrong):
        made = rebuilt(till.book(wallet=wallet))
        assert not made.exact
        assert made.wallet.carried == till.wallet.carried
        assert differences(till.book(), made.wallet) == []


# What was trimmed sums to nothing and is not nothing. Mutation: whatever sums up is taken for played from its first.
def test_a_trimmed_ledger_is_never_taken_for_a_whole_one():
    till = Till()
    till.grant(grant("waiting", starts_us=START_US + DAY_US))
    till.move(100)
    for _ in range(NEVER_TRIMMED // 2):
        till.move(5)
        till.move(-5)
    till.trim(2)
    assert till.wallet.carried == 0
    made = rebuilt(till.book())
    assert not made.exact
    assert differences(till.book(), made.wallet) == []


def test_more_used_than_granted_is_debt_also_from_a_trimmed_ledger():
    till = Till()
    till.grant(grant("a"))
    till.move(150)
    till.granted.clear()
    made = rebuilt(till.book())
    assert not made.exact
    assert (made.wallet.grants[0].remaining, made.wallet.debt) == (0, 50)


def test_an_empty_ledger_makes_an_empty_wallet():
    assert rebuilt(Till().book()) == (Wallet(), True)


# Every change here is a script on a real Redis: requests that settle, or not, or late; grants, voids, expiries, holds
# that run out. What was charged is what the running total rates to, less what was lost with a grant that had gone.
# Mutations: a settle that posts its estimate again, a release without a posting.
@pytest.mark.redis
@pytest.mark.parametrize("seed", range(SEED, SEED + 4))
async def test_after_random_traffic_the_ledger_sums_to_the_balance_and_makes_the_wallet_anew(redis_clean, seed):
    street = Street(redis_clean, random.Random(seed))
    client = connect(parse_redis_url(redis_clean.url), 5.0)
    try:
        wallet = RedisWallet(client, WHO.customer, "usd")
        for number in range(300):
            await street.step(wallet, number)
            if number % 50 == 49:
                book = await wallet.read(EVERY)
                assert audit(book).whole
        book = await street.after_all_holds(wallet)
    finally:
        await disconnect(client)
        street.close()
    kinds = {posted.kind for posted in book.postings}
    assert kinds >= {"grant", "void", "expire", "rollover", "reserve", "settle", "release"}
    assert audit(book).whole
    for found in (book, book._replace(wallet=Wallet())):
        made = rebuilt(found)
        assert made.exact
        assert differences(book, made.wallet) == []
    used = -sum(posted.delta for posted in book.postings if posted.kind in {"reserve", "settle", "release"})
    assert used == charged(TIERED, int(redis_clean.cli.get(street.counter)))


class Street:
    """Random requests of one customer, one after the other, through the counters that serve them."""

    def __init__(self, redis, chance) -> None:
        self.redis, self.chance = redis, chance
        self._commands = Blocking(redis.port)
        self._counters = RedisCounters(self._commands, SystemClock())
        self._ids = Ids(chance.getrandbits(80))
        self._open, self._granted = [], []
        self.counter = self._checks(1).keys[0][0]

    def close(self) -> None:
        self._commands.close()

    def now_us(self) -> int:
        seconds, us = self.redis.cli.time()
        return seconds * 1_000_000 + us

    async def step(self, wallet, number) -> None:
        what = self.chance.random()
        if what < 0.12 or not self._granted:
            ends = (self.now_us() // 1000 + self.chance.randrange(5, 60)) * 1000
            more = {"expires_us": ends, "rollover_max": 30, "rollover_until_us": ends + 30_000} if what < 0.08 else {}
            self._granted.append(f"g{number}")
            one = grant(self._granted[-1], self.chance.randrange(50, 400), priority=self.chance.randrange(3), **more)
            assert (await wallet.grant(one)).done in {"made", "past"}
        elif what < 0.16:
            await wallet.void(self.chance.choice(self._granted))
        elif what < 0.65:
            self._reserve()
        elif self._open:
            id_, checks = self._open.pop(self.chance.randrange(len(self._open)))
            if self.chance.random() < 0.8:  # the others are never settled
                self._counters.settle(id_, checks, (self.chance.randrange(0, 30), 0))

    async def after_all_holds(self, wallet):
        deadline = time.monotonic() + 10
        while (book := await wallet.read(EVERY)).held:
            assert time.monotonic() < deadline
            await wallet.expire_grants()
            await asyncio.sleep(0.005)
        return book

    def _reserve(self) -> None:
        id_, checks, told = self._ids.mint(self.now_us() // 1000), self._checks(self.chance.randrange(1, 15)), []
        ask = self._counters.charge_unconditionally if self.chance.random() < 0.1 else self._counters.reserve
        ask(id_, checks, told.append)
        if told[0].allowed:
            self._open.append((id_, checks))

    def _checks(self, cost: int):
        return checks_for((PRICED, CREDIT), (cost, 0), WHO, self.now_us())


# --- What is shown ---------------------------------------------------------------------------------------------------


def test_the_kinds_of_postings_are_those_of_the_rule():
    till = random_till(SEED)
    assert {posted.kind for posted in till.postings} == {"grant", "void", "expire", "rollover", "reserve", "settle"}


def test_a_wallet_from_the_stream_is_rebuilt_as_one_whose_beginning_is_trimmed():
    # Fails if it is played from its first posting, which has no grant: grants that have not started would be gone.
    later = grant("later", 10, starts_us=START_US * 2)
    wallet = Wallet((later,), debt=10)
    book = WalletSnapshot(START_US, wallet, {}, {"later": later}, (Posted("1795000000000-0", "rebuild", "-", 0, 0),))
    made = rebuilt(book)
    assert (made.exact, [each.id for each in made.wallet.grants]) == (False, ["later"])
