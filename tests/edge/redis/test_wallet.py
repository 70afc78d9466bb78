"""Mirrors sidecar/edge/redis/wallet.py and its scripts, on real Redis servers, held to core/price/wallet.py."""

import asyncio
import contextlib
import random
import time
from typing import NamedTuple

import pytest

from sidecar.core.errors import StoreError
from sidecar.core.limits import wallet_of
from sidecar.core.price import wallet as rule
from sidecar.core.price.book import EVERY
from sidecar.core.price.wallet import Grant, Wallet, balance
from sidecar.edge.redis.endpoint import connect, disconnect
from sidecar.edge.redis.wallet import RedisWallet, all_wallets

pytestmark = pytest.mark.redis

UNIT = 10**9
WALLET, LEDGER, GRANTED, HELD = (f"sc:{{cust-9}}:{name}:cust-9:usd" for name in ("wallet", "ledger", "granted", "held"))
SEED = 20261121


class Endpoint(NamedTuple):
    mode: str
    hosts: tuple[tuple[str, int], ...]
    tls: bool = False
    db: int = 0
    username: str | None = None
    password: str | None = None
    service: str = ""
    ssl: tuple = ()


@contextlib.asynccontextmanager
async def opened(endpoint: Endpoint, customer: str = "cust-9", timeout_s: float = 2.0):
    client = connect(endpoint, timeout_s)
    try:
        yield RedisWallet(client, customer, "usd")
    finally:
        await disconnect(client)


@pytest.fixture
async def wallet(redis_clean):
    async with opened(Endpoint("single", (("127.0.0.1", redis_clean.port),))) as wallet:
        yield wallet


def grant(name: str = "g1", amount: int = 10 * UNIT, **more) -> Grant:
    figures = {"priority": 0, "starts_us": 0, "expires_us": 0, "amount": amount, "remaining": amount}
    return Grant(id=name, **figures | more)


def soon(redis, ms: int) -> int:
    """So many ms from now by Redis's clock, in µs."""
    seconds, us = redis.cli.time()
    return seconds * 1_000_000 + us + ms * 1000


def expire(redis, *names: str) -> None:
    """Let grants end in the past: where a command has to come before the end, a slow machine may miss it."""
    for name in names:
        figures = redis.cli.hget(WALLET, f"g:{name}").split()
        redis.cli.hset(WALLET, f"g:{name}", b" ".join([*figures[:2], b"1", *figures[3:]]))
        figures = redis.cli.hget(GRANTED, name).split()
        redis.cli.hset(GRANTED, name, b" ".join([*figures[:3], b"1", *figures[4:]]))


def spend(redis, grants: dict[str, int], debt: int = 0) -> None:
    """What requests do, without them: what is left of grants, the debt, and the posting that says so."""
    before = sum(int(value.split()[4]) for name, value in redis.cli.hgetall(WALLET).items() if name[:2] == b"g:")
    before -= int(redis.cli.hget(WALLET, "debt") or 0)
    for name, left in grants.items():
        figures = redis.cli.hget(WALLET, f"g:{name}").split()
        redis.cli.hset(WALLET, f"g:{name}", b" ".join([*figures[:4], str(left).encode(), *figures[5:]]))
    redis.cli.hset(WALLET, "debt", debt)
    after = sum(int(value.split()[4]) for name, value in redis.cli.hgetall(WALLET).items() if name[:2] == b"g:") - debt
    fields = {"kind": "reserve", "id": "01JD0000000000000000000000", "delta": after - before, "balance": after}
    redis.cli.xadd(LEDGER, fields)


def sums(book) -> bool:
    """The ledger's deltas and what was trimmed sum to the balance, and so does each posting's own figure."""
    total = book.wallet.carried
    for posted in book.postings:
        total += posted.delta
        assert posted.balance == total
    return total == balance(book.wallet)


# --- Grants ----------------------------------------------------------------------------------------------------------


async def test_a_grant_is_in_the_wallet_with_its_posting(wallet):
    change = await wallet.grant(grant(priority=3, rollover_max=UNIT, expires_us=2**52, rollover_until_us=2**52 + 1))
    assert (change.done, change.moved, balance(change.wallet)) == ("made", 10 * UNIT, 10 * UNIT)
    book = await wallet.read(EVERY)
    (held,) = book.wallet.grants
    assert held._replace(made_us=0) == grant(
        priority=3, rollover_max=UNIT, expires_us=2**52, rollover_until_us=2**52 + 1
    )
    assert held.made_us == change.now_us
    assert [posted[1:] for posted in book.postings] == [("grant", "g1", 10 * UNIT, 10 * UNIT, "")]
    assert book.granted == {"g1": held}


# Mutation: the script does not look at what was granted before.
async def test_the_same_grant_again_changes_nothing(wallet):
    await wallet.grant(grant())
    assert (await wallet.grant(grant())).done == "there"
    book = await wallet.read(EVERY)
    assert (balance(book.wallet), len(book.postings)) == (10 * UNIT, 1)


async def test_fifty_at_once_with_one_id_are_one_grant(wallet):
    done = await asyncio.gather(*(wallet.grant(grant()) for _ in range(50)))
    assert sorted(change.done for change in done) == ["made", *["there"] * 49]
    assert balance((await wallet.read()).wallet) == 10 * UNIT


@pytest.mark.parametrize(
    "other",
    [{"amount": 1}, {"priority": 1}, {"expires_us": 2**52}, {"starts_us": 1}, {"rollover_max": 1}],
    ids=lambda other: next(iter(other)),
)
async def test_an_id_with_other_figures_is_refused(wallet, other):
    await wallet.grant(grant())
    assert (await wallet.grant(grant()._replace(**other))).done == "other"
    assert balance((await wallet.read()).wallet) == 10 * UNIT


class SettledMeanwhile:
    """A client of Redis; between two of its commands, another client settles the open exchange for nothing."""

    def __init__(self, client, redis) -> None:
        self._client, self._redis = client, redis

    def __getattr__(self, name):
        command = getattr(self._client, name)

        async def run(*words, **options):
            answer = await command(*words, **options)
            self._redis.cli.delete(HELD)
            spend(self._redis, {"g1": 10 * UNIT})
            return answer

        return run


# A wallet that shows less than it has while nothing is held looks as if money was lost.
# Fails if what is held is read after the wallet: the balance lacks what nobody holds any more.
async def test_a_wallet_and_its_holds_are_read_at_one_instant(wallet, redis_clean):
    await wallet.grant(grant())
    spend(redis_clean, {"g1": 6 * UNIT})
    redis_clean.cli.hset(HELD, "01JD0000000000000000000000", f"{4 * UNIT} requests 1 0")
    book = await RedisWallet(SettledMeanwhile(wallet._redis, redis_clean), "cust-9", "usd").read()
    assert balance(book.wallet) + sum(book.held.values()) == 10 * UNIT


# A payment's web hook comes again weeks later. Mutation: known ids are looked for in the wallet alone.
async def test_a_grant_that_is_gone_is_not_made_again(wallet, redis_clean):
    await wallet.grant(grant("void"))
    await wallet.grant(grant("ended"))
    await wallet.void("void")
    expire(redis_clean, "ended")
    assert (await wallet.grant(grant("void"))).done == "there"
    assert (await wallet.grant(grant("ended", expires_us=1))).done == "there"
    assert balance((await wallet.read()).wallet) == 0


async def test_what_has_expired_is_not_granted(wallet, redis_clean):
    assert (await wallet.grant(grant(expires_us=soon(redis_clean, 0)))).done == "past"
    assert (await wallet.read(EVERY)).postings == ()


async def test_debt_is_paid_by_the_next_grant_that_has_started(wallet, redis_clean):
    await wallet.grant(grant("old"))
    spend(redis_clean, {"old": 0}, debt=3 * UNIT)
    change = await wallet.grant(grant("later", starts_us=2**52))
    assert change.wallet.debt == 3 * UNIT
    change = await wallet.grant(grant("new", amount=2 * UNIT))
    assert (change.wallet.debt, balance(change.wallet)) == (UNIT, 9 * UNIT)
    change = await wallet.grant(grant("more", amount=2 * UNIT))
    left = {each.id: each.remaining for each in change.wallet.grants}
    assert (change.wallet.debt, left) == (0, {"old": 0, "later": 10 * UNIT, "new": 0, "more": UNIT})
    assert sums(await wallet.read(EVERY))


async def test_a_wallet_holds_64_grants_and_what_is_used_up_makes_room(wallet, redis_clean):
    for number in range(64):
        assert (await wallet.grant(grant(f"g{number}", priority=number))).done == "made"
    assert (await wallet.grant(grant("more"))).done == "many"
    spend(redis_clean, {"g0": 0, "g1": 0})
    change = await wallet.grant(grant("more"))
    assert change.done == "made"
    assert {each.id for each in change.wallet.grants} == {"more", *(f"g{number}" for number in range(1, 64))}
    assert sums(await wallet.read(EVERY))


# Mutation: no ceiling. Above 2^53 a Lua double would skip units.
async def test_all_grants_together_stay_where_doubles_are_exact(wallet, redis_clean):
    assert (await wallet.grant(grant("most", amount=2**51 - 1))).done == "made"
    assert (await wallet.grant(grant("one", amount=1))).done == "made"
    assert (await wallet.grant(grant("two", amount=1))).done == "full"
    spend(redis_clean, {"most": 0})
    change = await wallet.grant(grant("two", amount=1))
    assert (change.done, balance(change.wallet)) == ("made", 2)


async def test_the_register_of_ids_does_not_grow_without_bound(wallet, redis_clean):
    await wallet.grant(grant("here"))
    given = "0 0 0 1 0 0"
    redis_clean.cli.hset(GRANTED, mapping={f"old{number}": f"{number} {given}" for number in range(1, 1001)})
    redis_clean.cli.hset(GRANTED, "here", f"0 {given}")
    await wallet.grant(grant("new"))
    book = await wallet.read()
    assert len(book.granted) == 902
    assert {"here", "new", "old101", "old1000"} <= book.granted.keys()
    assert "old100" not in book.granted


# --- Taking ----------------------------------------------------------------------------------------------------------


async def test_a_void_takes_what_is_left_and_leaves_what_was_used(wallet, redis_clean):
    await wallet.grant(grant("g1"))
    await wallet.grant(grant("g2"))
    spend(redis_clean, {"g1": 4 * UNIT})
    change = await wallet.void("g1")
    assert (change.done, change.moved, balance(change.wallet)) == ("void", 4 * UNIT, 10 * UNIT)
    assert (await wallet.void("g1")).done == "gone"
    assert (await wallet.void("g3")).done == "unknown"
    book = await wallet.read(EVERY)
    assert [posted.kind for posted in book.postings] == ["grant", "grant", "reserve", "void"]
    assert sums(book)


async def test_what_expired_goes_with_the_next_change_and_says_so(wallet, redis_clean):
    await wallet.grant(grant("short"))
    await wallet.grant(grant("rolls", expires_us=2**51, rollover_max=UNIT, rollover_until_us=2**52))
    await wallet.grant(grant("stays"))
    expire(redis_clean, "short", "rolls")
    change = await wallet.expire_grants()
    left = {each.id: (each.amount, each.remaining, each.expires_us) for each in change.wallet.grants}
    assert left == {"rolls": (UNIT, UNIT, 2**52), "stays": (10 * UNIT, 10 * UNIT, 0)}
    book = await wallet.read(EVERY)
    assert [posted[1:4] for posted in book.postings[-2:]] == [
        ("rollover", "rolls", -9 * UNIT), ("expire", "short", -10 * UNIT)
    ]  # fmt: skip
    assert sums(book)


# Mutation: `carried` is not raised by what is trimmed.
async def test_a_ledger_of_10000_postings_is_trimmed_and_still_sums(wallet, redis_clean):
    await wallet.grant(grant("all", amount=2**50))
    pipeline = redis_clean.cli.pipeline(transaction=False)
    for number in range(1, 9_999):
        left = 2**50 - number
        pipeline.xadd(LEDGER, {"kind": "reserve", "id": "x", "delta": -1, "balance": left})
    pipeline.execute()
    redis_clean.cli.hset(WALLET, "g:all", f"0 0 0 {2**50} {2**50 - 9_998} 0 0 1")
    assert redis_clean.cli.xlen(LEDGER) == 9_999
    await wallet.grant(grant("last", amount=1))
    book = await wallet.read(EVERY)
    assert len(book.postings) == 9_000
    assert book.wallet.carried == 2**50 - 999
    assert sums(book)


async def test_the_last_postings_are_those_that_are_asked_for(wallet):
    for number in range(7):
        await wallet.grant(grant(f"g{number}"))
    for count in (0, 1, 6, 7, 8, EVERY):
        book = await wallet.read(count)
        assert [posted.id for posted in book.postings] == [f"g{number}" for number in range(7)][-count or 7 :]


class Trimming:
    """Redis as it is, but for a trim between two pages."""

    def __init__(self, redis, times: int) -> None:
        self._redis, self._times = redis, times

    def __getattr__(self, name):
        return getattr(self._redis, name)

    async def xrevrange(self, key, *arguments, **more):
        rows = await self._redis.xrevrange(key, *arguments, **more)
        if self._times:
            self._times -= 1
            first = (await self._redis.xrange(key, count=1))[0][1]
            await self._redis.hincrby(WALLET, "carried", int(first[b"delta"]))
            await self._redis.xtrim(key, maxlen=await self._redis.xlen(key) - 1, approximate=False)
        return rows


# Mutation: what was read is taken as it is. The sum would miss what went meanwhile.
async def test_a_ledger_that_is_trimmed_while_it_is_read_is_read_again(wallet, monkeypatch):
    monkeypatch.setattr("sidecar.edge.redis.wallet._PAGE", 2)
    for number in range(12):
        await wallet.grant(grant(f"g{number}"))
    monkeypatch.setattr(wallet, "_redis", Trimming(wallet._redis, 3))
    book = await wallet.read(EVERY)
    assert len(book.postings) == 9
    assert sums(book)
    monkeypatch.setattr(wallet, "_redis", Trimming(wallet._redis._redis, 9))
    monkeypatch.setattr("sidecar.edge.redis.wallet._ATTEMPTS", 1)
    with pytest.raises(StoreError, match="when there are fewer requests"):
        await wallet.read(EVERY)


# --- The rule --------------------------------------------------------------------------------------------------------


class Oracle:
    """The rule of core/price/wallet.py over the same changes, at the times that the script says."""

    def __init__(self) -> None:
        self.wallet, self.postings = Wallet(), []

    def apply(self, change, what, *told) -> None:
        self.wallet, postings = rule.expire_grants(self.wallet, change.now_us)
        self.postings += postings
        if what == "grant" and change.done == "made":
            one = told[0]._replace(made_us=change.now_us)
            self.wallet, postings = rule.add(self.wallet, one, change.now_us)
        elif what == "void":
            self.wallet, postings = rule.void(self.wallet, told[0])
        else:
            postings = []
        self.postings += postings


def unordered(wallet: Wallet) -> tuple:
    return sorted(wallet.grants), wallet.debt


# Mutations: burn by expiry before priority when debt is paid, an amount that is kept at a rollover, no debt paid in a
# sweep: each is a difference within three seeds.
@pytest.mark.parametrize("seed", range(SEED, SEED + 8))
async def test_the_scripts_are_the_rule_over_random_changes_in_real_time(wallet, redis_clean, seed):
    chance = random.Random(seed)
    oracle, names = Oracle(), []
    for number in range(120):
        what = chance.choices(("grant", "void", "sweep", "spend"), (6, 2, 2, 3))[0]
        if what == "grant" or not names:
            names.append(f"g{number}")
            ends = soon(redis_clean, chance.randrange(2, 40)) if chance.random() < 0.5 else 0
            one = grant(
                names[-1],
                chance.randrange(1, 50),
                priority=chance.randrange(3),
                starts_us=soon(redis_clean, chance.randrange(-10, 20)) if chance.random() < 0.4 else 0,
                expires_us=ends,
                **({"rollover_max": chance.randrange(1, 30), "rollover_until_us": ends + 15_000} if ends else {}),
            )
            oracle.apply(await wallet.grant(one), "grant", one)
        elif what == "void":
            name = chance.choice(names)
            oracle.apply(await wallet.void(name), "void", name)
        elif what == "sweep":
            oracle.apply(await wallet.expire_grants(), "sweep")
        else:
            oracle.apply(await wallet.expire_grants(), "sweep")
            spent = spent_by_half(oracle.wallet, chance)
            spend(redis_clean, {one.id: one.remaining for one in spent.grants}, spent.debt)
            delta = balance(spent) - balance(oracle.wallet)
            oracle.wallet = spent
            oracle.postings.append(rule.Posting("reserve", "01JD0000000000000000000000", delta))
        book = await wallet.read(EVERY)
        assert unordered(book.wallet) == unordered(oracle.wallet), f"seed {seed}, step {number}"
        assert sums(book)
    said = [rule.Posting(posted.kind, posted.id, posted.delta) for posted in book.postings if posted.delta]
    assert said == [posting for posting in oracle.postings if posting.delta]


def spent_by_half(wallet: Wallet, chance) -> Wallet:
    """About half of the grants used, some of them up; where all are, a debt."""
    grants = tuple(
        one._replace(remaining=chance.choice((0, one.remaining // 2, one.remaining))) for one in wallet.grants
    )
    return wallet._replace(grants=grants, debt=wallet.debt + (chance.randrange(20) if chance.random() < 0.3 else 0))


# --- A wallet made anew ----------------------------------------------------------------------------------------------


async def test_a_wallet_is_replaced_only_where_nothing_was_posted_meanwhile(wallet, redis_clean):
    await wallet.grant(grant())
    before = await wallet.read(EVERY)
    made = Wallet((grant("g1")._replace(remaining=UNIT),), 2, 3)
    await wallet.grant(grant("g2"))
    assert not await wallet.replace(before, made)
    assert balance((await wallet.read()).wallet) == 20 * UNIT
    assert await wallet.replace(await wallet.read(EVERY), made)
    assert (await wallet.read()).wallet == made


async def test_a_replaced_wallet_keeps_what_its_ledger_does_not_know(wallet, redis_clean):
    await wallet.grant(grant())
    redis_clean.cli.hset(WALLET, "other", "kept")
    assert await wallet.replace(await wallet.read(EVERY), Wallet())
    fields = redis_clean.cli.hgetall(WALLET)
    assert fields[b"other"] == b"kept"
    assert not [name for name in fields if name.startswith(b"g:")]


# --- The store -------------------------------------------------------------------------------------------------------


async def test_customers_and_their_keys_cannot_be_mistaken(redis_clean):
    endpoint = Endpoint("single", (("127.0.0.1", redis_clean.port),))
    async with opened(endpoint, "a}:b") as one, opened(endpoint, "a") as other:
        await one.grant(grant())
        assert balance((await other.read()).wallet) == 0
    assert {key.decode() for key in redis_clean.cli.keys("*")} - {"sc:wallets:unread"} == {
        f"sc:{{a%7D%3Ab}}:{name}:a%7D%3Ab:usd" for name in ("wallet", "ledger", "granted")
    }


async def test_no_key_of_a_wallet_expires(wallet, redis_clean):
    await wallet.grant(grant(expires_us=2**52))
    assert {redis_clean.cli.ttl(key) for key in redis_clean.cli.keys("*")} == {-1}


async def test_a_store_that_is_away_is_a_store_error_in_time(make_redis):
    server = make_redis()
    async with opened(Endpoint("single", (("127.0.0.1", server.port),)), timeout_s=0.2) as wallet:
        server.pause()
        start = time.monotonic()
        with pytest.raises(StoreError, match="did not answer: Timeout") as caught:
            await wallet.grant(grant())
        assert caught.value.maybe_applied
        assert time.monotonic() - start < 1
        server.resume()
        assert (await wallet.grant(grant())).done in {"made", "there"}
        assert balance((await wallet.read()).wallet) == 10 * UNIT
        server.kill()
        with pytest.raises(StoreError):
            await wallet.read()


async def test_what_is_no_wallet_is_refused_in_words(wallet, redis_clean):
    redis_clean.cli.set(WALLET, "x")
    with pytest.raises(StoreError, match=r"refused: .*WRONGTYPE"):
        await wallet.grant(grant())
    redis_clean.cli.delete(WALLET)
    redis_clean.cli.hset(WALLET, "g:a", "1 2 3")
    with pytest.raises(StoreError, match="damaged"):
        await wallet.read()


async def test_a_cluster_holds_each_customers_wallet_on_one_node(redis_cluster):
    endpoint = Endpoint("cluster", tuple(("127.0.0.1", node.port) for node in redis_cluster.nodes))
    for number in range(12):
        async with opened(endpoint, f"cust-{number}") as wallet:
            assert (await wallet.grant(grant())).done == "made"
            assert sums(await wallet.read(EVERY))
    client = connect(endpoint, 2.0)
    customers = {wallet_of(key)[0] for key, _ in await all_wallets(client, "usd".__eq__)}
    await disconnect(client)
    assert {f"cust-{number}" for number in range(12)} <= customers


async def test_wallets_are_kept_over_tls_by_a_named_user(redis_tls):
    ssl = (("ssl_ca_certs", redis_tls.url.partition("ssl_ca_certs=")[2]),)
    endpoint = Endpoint("single", (("127.0.0.1", redis_tls.port),), True, 3, "gateway", "s3cr%t", ssl=ssl)
    async with opened(endpoint) as wallet:
        assert (await wallet.grant(grant())).done == "made"


# --- All wallets -----------------------------------------------------------------------------------------------------


async def test_all_wallets_with_a_wanted_name_are_found_and_no_other_key(redis_clean):
    # Fails if a ledger or a holds key of a customer named `wallet` is taken for a wallet, or one is left out.
    endpoint = Endpoint("single", (("127.0.0.1", redis_clean.port),))
    client = connect(endpoint, 2.0)
    for number in range(30):
        await RedisWallet(client, f"c:{number}", "credits.2").grant(grant(amount=number + 1))
        await RedisWallet(client, f"c:{number}", "credits").grant(grant())
    await RedisWallet(client, "wallet", "credits.2").grant(grant(amount=500))
    redis_clean.cli.hset("sc:{old}:wallet:credits.2", "debt", 7)  # as version 0.1 named them
    found = {wallet_of(key): balance(wallet) for key, wallet in await all_wallets(client, "credits.2".__eq__)}
    await disconnect(client)
    assert found == {(f"c:{number}", "credits.2"): number + 1 for number in range(30)} | {
        ("wallet", "credits.2"): 500, ("old", "credits.2"): -7
    }  # fmt: skip


async def test_a_store_that_is_away_is_an_error_of_the_walk():
    client = connect(Endpoint("single", (("127.0.0.1", 1),)), 0.5)
    with pytest.raises(StoreError, match="did not answer: Error 111 "):
        await all_wallets(client, bool)
    await disconnect(client)


def from_stream() -> tuple[Wallet, list[Grant]]:
    known = grant("g1", 10 * UNIT, priority=3, made_us=1_795_000_000_000_000)
    return Wallet((known._replace(remaining=4 * UNIT),), 0, 0, (5, 10 * UNIT, "g1")), [known, grant("g0", 2 * UNIT)]


async def test_a_wallet_from_the_stream_takes_the_place_of_a_lost_one_and_can_be_used(wallet, redis_clean):
    # Fails if: the ledger does not sum up to the balance, an id can be granted again, or a posting would be on the
    # stream twice.
    made, granted = from_stream()
    assert await wallet.restore(made, granted, replaces=False) == "done"
    book = await wallet.read(EVERY)
    assert book.wallet._replace(topped=made.topped) == made._replace(carried=4 * UNIT)
    assert redis_clean.cli.hget(WALLET, "topped") == b"5 10000000000 g1"
    assert redis_clean.cli.hget(WALLET, "posted").decode() == book.postings[-1].place
    assert sum(each.delta for each in book.postings) + book.wallet.carried == balance(book.wallet)
    assert [(each.kind, each.balance) for each in book.postings] == [("rebuild", 4 * UNIT)]
    assert (await wallet.grant(grant("g1", 10 * UNIT, priority=3))).done == "there"
    assert (await wallet.grant(grant("g0", 2 * UNIT))).done == "there"
    assert (await wallet.grant(grant("g1", 11 * UNIT, priority=3))).done == "other"
    assert balance((await wallet.grant(grant("g2", UNIT))).wallet) == 5 * UNIT


async def test_a_wallet_that_is_not_empty_is_replaced_only_where_that_is_asked_and_it_is_on_the_stream(
    wallet, redis_clean
):
    # Fails if postings that are not on the stream are lost, or holds of the old wallet stay.
    made, granted = from_stream()
    await wallet.grant(grant("late", UNIT))
    assert await wallet.restore(made, granted, replaces=False) == "full"
    assert await wallet.restore(made, granted, replaces=True) == "unread"
    place = (await wallet.read(EVERY)).postings[-1].place
    redis_clean.cli.hset(WALLET, "posted", place)
    redis_clean.cli.hset(HELD, "x", "5")
    assert await wallet.restore(made, granted, replaces=True) == "done"
    book = await wallet.read(EVERY)
    assert (balance(book.wallet), book.held, set(book.granted)) == (4 * UNIT, {}, {"g0", "g1"})
    assert book.postings[0].place > place
    assert redis_clean.cli.hget(WALLET, "posted").decode() == book.postings[-1].place
