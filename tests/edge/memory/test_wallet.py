"""Mirrors sidecar/edge/memory/wallet.py: what Redis's scripts do to a wallet is done here, over random changes."""

import random

import pytest

from sidecar.core.price.book import EVERY
from sidecar.core.price.wallet import Grant, Wallet, balance
from sidecar.edge.memory.counters import MemoryCounters
from sidecar.edge.memory.wallet import MemoryWallet
from tests.edge.counters_suite import SetClock
from tests.edge.redis.test_wallet import Endpoint, opened, soon

SEED = 20261130


@pytest.fixture
def memory():
    counters = MemoryCounters(SetClock())
    return MemoryWallet(counters.state, counters.store, "cust-9", "usd")


def shape(book):
    """A wallet, but for where the grants are and what its newest top-up is kept as."""
    return sorted(book.wallet.grants), book.wallet.debt, book.wallet.carried, book.granted


# Fails if a grant with other figures is taken, if debt is not paid, or if a posting of 0 is left out.
# No exchange spends here: what is used up, or owed, a repair says.
@pytest.mark.redis
@pytest.mark.parametrize("seed", range(SEED, SEED + 6))
async def test_random_changes_do_here_what_they_do_on_redis(memory, redis_clean, seed):
    async with opened(Endpoint("single", (("127.0.0.1", redis_clean.port),))) as redis:
        await hold_alike(memory, redis, redis_clean, seed)


async def hold_alike(memory, redis, redis_clean, seed):
    chance, names = random.Random(seed), ["g"]
    for number in range(120):
        match chance.choices(("grant", "void", "sweep", "repair"), (6, 2, 2, 1))[0]:
            case "grant":
                ends = soon(redis_clean, chance.randrange(-1, 40)) if chance.random() < 0.5 else 0
                names.append(f"g{number}" if chance.random() < 0.8 else chance.choice(names))
                amount, more = chance.randrange(1, 50), {}
                if ends:
                    more = {"rollover_max": chance.randrange(1, 30), "rollover_until_us": ends + 15_000}
                starts = soon(redis_clean, chance.randrange(-10, 20)) if chance.random() < 0.4 else 0
                one = Grant(names[-1], chance.randrange(3), starts, ends, amount, amount, **more)
                told = await redis.grant(one)
                made = memory.grant(one, told.now_us)
            case "void":
                name = chance.choice(names)
                told = await redis.void(name)
                made = memory.void(name, told.now_us)
            case "sweep":
                told = await redis.expire_grants()
                made = memory.expire_grants(told.now_us)
            case "repair":
                await repair(memory, redis, chance)
                told = await redis.expire_grants()
                made = memory.expire_grants(told.now_us)
        assert (made.done, made.moved) == (told.done, told.moved), f"seed {seed}, step {number}"
        one, other = await redis.read(EVERY), memory.read(EVERY, told.now_us)
        assert shape(one) == shape(other), f"seed {seed}, step {number}"
    assert [posted[1:] for posted in one.postings] == [posted[1:] for posted in other.postings]


async def repair(memory, redis, chance):
    """Some grants are used up in both, or there is debt."""
    book = await redis.read(EVERY)
    if not book.postings:
        return
    if chance.random() < 0.5:
        kept = [each._replace(remaining=each.remaining * chance.randrange(2)) for each in book.wallet.grants]
        wallet = book.wallet._replace(grants=tuple(kept))
    else:
        wallet = book.wallet._replace(grants=(), debt=chance.randrange(1, 90))
    assert await redis.replace(book, wallet)
    assert memory.replace(memory.read(1, book.now_us).postings[0].place, wallet, book.now_us)


def test_the_last_postings_are_those_that_are_asked_for(memory):
    for number in range(7):
        memory.grant(Grant(f"g{number}", 0, 0, 0, 5, 5), 1_763_692_406_000_000 + number // 2 * 1_000)
    for count in (0, 1, 6, 7, 8, EVERY):
        found = memory.read(count, 0).postings
        assert [posted.id for posted in found] == [f"g{number}" for number in range(7)][-count or 7 :]
    places = [posted.place for posted in memory.read(EVERY, 0).postings]
    assert places[:3] == ["1763692406000-0", "1763692406000-1", "1763692406001-0"]
    assert len(set(places)) == 7


def test_a_wallet_is_replaced_only_where_nothing_was_posted_meanwhile(memory):
    memory.grant(Grant("g1", 0, 0, 0, 5, 5), 10**15)
    before = memory.read(EVERY, 10**15)
    memory.grant(Grant("g2", 0, 0, 0, 5, 5), 10**15)
    made = Wallet((before.wallet.grants[0]._replace(remaining=1),), 2, 3)
    assert not memory.replace(before.postings[-1].place, made, 10**15)
    assert memory.replace(memory.read(EVERY, 10**15).postings[-1].place, made, 10**15)
    assert balance(memory.read(0, 10**15).wallet) == -1
    assert memory.read(0, 10**15).wallet.topped[2] == "g2"
