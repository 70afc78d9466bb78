"""The file of an outage: whoever comes after a killed worker goes on where it was, within the same share."""

import asyncio
import random
from dataclasses import replace

import pytest

from sidecar.core.errors import StoreError
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.core.price import Price
from sidecar.core.price import wallet as wallets
from sidecar.core.price.wallet import Grant, Wallet
from sidecar.core.record.ids import Ids
from sidecar.edge.degraded import Degraded, Ledger, debts, ledger, over_admission_bound
from sidecar.edge.degraded.outage import read
from sidecar.edge.memory.counters import MemoryCounters
from sidecar.testing import HandClock
from tests.edge.degraded.test_outage import UNREADABLE

START_US = 1_790_000_000_000_000
QUOTA = Limit("monthly", "quota", 100, calendar="month", scope="customer")
WINDOW = Limit("hourly", "window", 60, period_us=3_600_000_000)
BURST = Limit("burst", "rate", 20, per=1, period_us=1_000_000)
SLOTS = Limit("inflight", "concurrency", 1000, period_us=600_000_000)
SPENT = Limit(
    "credit.requests", "priced", 0, calendar="month", scope="customer", unit="usd", price=Price("per_unit", 10)
)
LENDING = Limit("credit", "balance", 0, scope="customer", unit="usd", period_us=600_000_000, offline=100)
WHO = Identity("k1", "app", "cust", "free")
WALLET = "sc:{cust}:wallet:cust:usd"


class Store(MemoryCounters):
    away = True

    def reserve(self, id, checks, done):
        done(StoreError("away")) if self.away else super().reserve(id, checks, done)

    def charge_unconditionally(self, id, checks, done):
        done(StoreError("away")) if self.away else super().charge_unconditionally(id, checks, done)

    def settle(self, id, checks, actual, failed=None):
        failed(StoreError("away")) if self.away and failed else super().settle(id, checks, actual, failed)


class Life:
    """One life of a worker: what it knows at its start is what its predecessor wrote. It is never closed: kill -9."""

    def __init__(self, path, clock, store, *, workers=1, seed=0):
        self.clock, self.store = clock, store
        self.ids = Ids(seed)
        self.path = path
        self.local = MemoryCounters(clock)
        self.port = Degraded(store, self.local, clock, self.mint, Ledger(path, workers, workers))
        self.port.adopt()

    def mint(self):
        return self.ids.mint(self.clock.now_us() // 1000)

    def ask(self, *limits, cost=1):
        said = []
        id_, checks = self.mint(), checks_for(limits, [cost] * len(limits), WHO, self.clock.now_us())
        self.port.reserve(id_, checks, said.append)
        return said[0].allowed, id_, checks

    def asks(self, many, *limits):
        return sum(self.ask(*limits)[0] for _ in range(many))

    async def paid(self):
        self.store.away = False
        async with asyncio.timeout(10):
            while self.port.owed:
                self.port.tick()
                await asyncio.sleep(0)

    def used(self, limit):
        key = checks_for([limit], [1], WHO, self.clock.now_us()).keys[0][0]
        return self.store.state.get(key, 0)


@pytest.fixture
def lives(tmp_path):
    clock = HandClock(START_US)
    store = Store(clock)
    numbers = iter(range(1, 1000))
    return lambda **how: Life(tmp_path / "outage.0.jsonl", clock, store, seed=next(numbers), **how)


# conservation V3. Fails if the local counters, or the debts, are not in the file.
async def test_through_any_number_of_kills_a_share_is_one_share_and_all_of_it_is_told(lives):
    passed = sum(lives().asks(70, QUOTA, WINDOW, SLOTS) for _ in range(5))
    assert passed == WINDOW.amount
    last = lives()
    assert last.asks(70, QUOTA, SLOTS) == QUOTA.amount - WINDOW.amount
    assert last.port.owed == QUOTA.amount
    await last.paid()
    assert (last.used(QUOTA), last.used(WINDOW)) == (QUOTA.amount, WINDOW.amount)
    last.store.away = True
    assert lives().asks(70, QUOTA) == 0  # told or not, this window's share is used


# Fails if the answer comes first: a kill in between would forget what was let through.
def test_what_was_let_through_is_in_the_file_before_the_answer(lives):
    life, found = lives(), []
    _, _, checks = life.ask(QUOTA)
    id_ = life.mint()
    life.port.reserve(id_, checks, lambda said: found.append((said.allowed, id_ in read(life.path).debts)))
    assert found == [(True, True)]


async def test_what_was_told_before_the_kill_is_not_owed_any_more(lives):
    first = lives()
    first.asks(80, QUOTA)
    first.store.away = False
    first.port.tick()
    assert first.used(QUOTA) == debts.BATCH
    second = lives()
    assert second.port.owed == 80 - debts.BATCH
    await second.paid()
    assert second.used(QUOTA) == 80
    assert lives().port.owed == 0


# Fails if a truth is not written down, or if it is taken for one that the store has a reservation of.
async def test_the_truth_of_what_was_let_through_survives_a_kill(lives):
    first = lives()
    _, settled, checks = first.ask(QUOTA, cost=10)
    first.ask(QUOTA, cost=5)
    first.port.settle(settled, checks, (3,))
    second = lives()
    await second.paid()
    assert second.used(QUOTA) == 3 + 5


async def test_a_settle_that_the_store_did_not_take_is_told_by_the_successor(lives):
    first = lives()
    first.store.away = False
    _, id_, checks = first.ask(QUOTA, cost=10)
    first.store.away = True
    first.port.settle(id_, checks, (4,))
    second = lives()
    assert second.port.owed == 1
    await second.paid()
    assert second.used(QUOTA) == 4


# Fails if it is told again under another id, or is given up at once.
async def test_what_a_killed_worker_had_sent_is_told_again_only_while_its_mark_is_sure_to_live(lives):
    first = lives()
    first.asks(3, QUOTA)
    first.store.away = False
    first.store.charge_unconditionally = lambda id_, checks, _done: MemoryCounters.charge_unconditionally(
        first.store, id_, checks, lambda _: None
    )
    first.port.tick()
    del first.store.charge_unconditionally
    assert first.used(QUOTA) == 3
    first.clock.turn(100_000_000)
    second = lives()
    await second.paid()
    assert (second.used(QUOTA), second.port.lost) == (3, 0)


# Fails if what was sent is not written down before it is sent: it would be told again when its mark has gone.
async def test_what_may_have_been_taken_too_long_ago_is_given_up(lives):
    first = lives()
    first.asks(3, QUOTA)
    first.store.away = False
    first.store.charge_unconditionally = lambda _id, _checks, _done: None
    first.port.tick()
    del first.store.charge_unconditionally
    first.clock.turn(200_000_000)
    second = lives()
    await second.paid()
    assert (second.used(QUOTA), second.port.lost) == (0, 3)


async def test_an_allowance_of_a_wallet_is_lent_once_an_outage_through_kills(lives):
    assert sum(lives().asks(7, SPENT, LENDING) for _ in range(4)) == 10
    last = lives()
    last.store.state[WALLET] = Wallet((Grant("g", 0, 0, 0, 1000, 1000),))
    await last.paid()
    assert wallets.balance(last.store.state[WALLET]) == 1000 - 100
    last.store.away = True
    assert lives().asks(20, SPENT, LENDING) == 10  # another outage has an allowance of its own


async def test_past_the_cap_sums_survive_too(lives, monkeypatch):
    monkeypatch.setattr(debts, "CAP", 5)
    for _ in range(3):
        lives().asks(12, QUOTA, BURST)
    last = lives()
    assert last.port.owed == 5 + 2
    await last.paid()
    assert last.used(QUOTA) == 20
    assert last.port.lost == 0
    assert lives().port.owed == 0  # Fails if a sum that is told by its own id stays in the file.


# Fails if a file that has grown is not shortened, or loses something by it.
async def test_a_long_outage_does_not_fill_the_disk(lives, monkeypatch):
    monkeypatch.setattr(ledger, "GROWN_BYTES", 4_000)
    life = lives()
    life.ask(WINDOW)  # no later line tells of it
    big = replace(QUOTA, amount=10_000)
    _, _, checks = life.ask(big, cost=0)
    checks = checks.with_costs((1,))
    for number in range(600):
        id_ = life.mint()
        life.port.reserve(id_, checks, lambda said: None)
        life.port.settle(id_, checks, (number % 2,))
        life.port.tick()
    assert life.path.stat().st_size < 4 * 70 * 600  # four times what is owed; in full it would be ten times as much
    found = read(life.path)
    assert truths(found.debts) == truths(life.port._debts.by_id)
    assert [used for _, used, _ in found.local.values()] == [1, 300]
    monkeypatch.setattr(ledger, "REST_BYTES", 1_000)
    await life.paid()
    life.port.tick()
    assert life.path.stat().st_size < 1_000
    assert lives().used(big) == 300


def truths(debts):
    return {id_: debt.actual for id_, debt in debts.items()}


# Fails if a line that was cut by a kill hides what stands before it.
@pytest.mark.parametrize("cut", [1, 3, 17, 60])
def test_a_torn_end_costs_what_it_says_and_no_more(lives, cut):
    life = lives()
    life.asks(10, QUOTA)
    data = life.path.read_bytes()
    life.path.write_bytes(data[:-cut])
    assert lives().port.owed == 9 if cut > 1 else 10


async def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, caplog):
    clock = HandClock(START_US)
    life = Life(tmp_path / "gone" / "outage.0.jsonl", clock, Store(clock))
    assert life.asks(150, QUOTA) == 100
    assert caplog.text.count("if this worker is killed now, its shares and debts are lost") == 1
    await life.paid()  # fails if debts wait for a file that cannot be there
    assert life.used(QUOTA) == 100


def expire_marks(life):
    """The store knows an exchange for 180 s."""
    life.clock.turn(200_000_000)


# Fails if the "m" line is not synced before the first send, or not in one sync with all before it.
@pytest.mark.parametrize("asked", [5, 80])
async def test_after_a_power_cut_no_paid_debt_is_charged_again(lives, disk, asked):
    first = lives()
    first.asks(asked, QUOTA)
    early = first.path.read_bytes()
    await first.paid()
    assert first.used(QUOTA) == asked
    disk.cut_power(first.path)
    assert first.path.read_bytes() != early
    expire_marks(first)
    second = lives()
    await second.paid()
    assert (second.used(QUOTA), second.port.lost) == (asked, asked)


# Fails if each batch is synced by itself, or if what is marked in advance stays marked when the store goes away again.
async def test_one_sync_is_for_many_debts_and_what_was_not_sent_is_paid_however_late(lives, disk):
    first = lives()
    first.asks(100, QUOTA)
    first.store.away = False
    first.port.tick()
    first.store.away = True
    first.port.tick()
    assert (disk.syncs, first.port.owed) == (1, 100 - debts.BATCH)
    expire_marks(first)
    second = lives()
    await second.paid()
    assert (second.used(QUOTA), second.port.lost) == (100, 0)


# Fails if a file with missing lines stays when its debts are sent, or if a short write is taken for a whole one.
async def test_on_a_full_disk_debts_are_paid_and_not_charged_again_by_a_successor(lives, disk, caplog):
    first = lives()
    first.asks(20, QUOTA)
    disk.full = True
    first.asks(8, QUOTA)
    first.port.tick()
    await first.paid()
    assert first.used(QUOTA) == 28
    expire_marks(first)
    second = lives()
    await second.paid()
    assert (second.used(QUOTA), second.port.lost) == (28, 0)
    assert caplog.text.count("if this worker is killed now, its shares and debts are lost") == 1


# Fails if the file is given up for good, or if lines are appended behind a torn one.
async def test_once_the_disk_has_room_the_file_is_whole_again(lives, disk):
    first = lives()
    first.asks(20, QUOTA)
    disk.full = True
    first.asks(6, QUOTA)
    disk.full = False
    first.asks(2, QUOTA)
    torn = read(first.path)
    assert (torn.damage, len(torn.debts)) == ("", 21)  # of the last only the end of its line is missing
    disk.full = True
    first.port.tick()
    assert not first.path.with_name(first.path.name + ".new").exists()
    disk.full = False
    first.asks(2, QUOTA)
    first.port.tick()
    first.asks(3, QUOTA)
    second = lives()
    assert second.port.owed == 33
    assert second.asks(100, QUOTA) == 67


# Fails if a debt is sent though the file that says "never sent" can neither be written nor removed.
async def test_where_the_file_can_only_be_read_debts_wait(lives, disk):
    first = lives()
    first.asks(20, QUOTA)
    disk.full = disk.fixed = True
    first.store.away = False
    first.port.tick()
    assert (first.used(QUOTA), first.port.owed) == (0, 20)
    disk.full = disk.fixed = False
    second = lives()
    await second.paid()
    assert (second.used(QUOTA), second.port.lost) == (20, 0)


# Fails if lines are appended behind what cannot be read, or if shares begin unused behind a damaged file.
@pytest.mark.parametrize("data", UNREADABLE)
async def test_a_damaged_file_is_kept_aside_and_its_shares_count_as_used_up_through_kills(lives, data, caplog):
    path = lives().path
    path.write_bytes(data)
    for life in (lives(), lives()):
        assert [life.asks(30, limit) for limit in (QUOTA, WINDOW, BURST)] == [0, 0, 0]
        assert life.asks(5, SPENT, LENDING) == 0
    assert caplog.text.count("shares count as used up") == 1
    assert path.with_name(path.name + ".damaged").read_bytes() == data
    life.store.away = False
    life.asks(1, QUOTA)
    life.store.away = True
    last = lives()
    assert (last.asks(5, SPENT, LENDING), last.asks(30, BURST)) == (5, 0)  # what is lent is known after an outage
    last.clock.turn(22_000_000)
    assert [last.asks(100, limit) for limit in (BURST, QUOTA)] == [BURST.amount, 0]
    last.clock.turn(3_600_000_000)
    assert last.asks(100, WINDOW) == WINDOW.amount


# Fails if a debt counts as never sent though the line that says it was may be lost.
async def test_of_a_file_with_a_damaged_middle_no_debt_is_charged_again(lives):
    first = lives()
    first.asks(5, QUOTA)
    middle = first.path.stat().st_size
    await first.paid()
    data = bytearray(first.path.read_bytes())
    data[middle : middle + 9] = bytes(9)
    first.path.write_bytes(data + b'["p",[]]\n')
    expire_marks(first)
    second = lives()
    assert second.port.damaged == 1
    await second.paid()
    assert (second.used(QUOTA), second.port.lost) == (5, 5)
    assert lives().port.damaged == 0


def test_nothing_is_written_while_the_store_answers(lives):
    life = lives()
    life.store.away = False
    life.asks(50, QUOTA, BURST)
    life.port.tick()
    assert not life.path.exists()


# conservation V11. Fails if a forced cost is clipped to the burst, if what has leaked beside the store's own bucket is
# not charged, if the share is full again after a kill, or if NOTICE_US is 0.
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("seed", range(4))
async def test_a_rate_keeps_its_bound_over_many_outages_and_kills(tmp_path, workers, seed):
    limit = Limit("r", "rate", 40, per=40, period_us=1_000_000)
    clock, dice = HandClock(START_US), random.Random(seed)
    store = Store(clock)
    store.away = False
    numbers = iter(range(1, 10_000))

    def life(index):
        return Life(tmp_path / f"outage.{index}.jsonl", clock, store, workers=workers, seed=next(numbers))

    nodes = [life(index) for index in range(workers)]
    level = peak = 0.0  # of a bucket that all admitted requests go into
    flips_us = START_US + 1_000_000
    for _ in range(12_000):
        passed_us = dice.randrange(1, 9_000)
        clock.turn(passed_us)
        level = max(0.0, level - passed_us * 40 / 1_000_000)
        if clock.now_us() > flips_us:
            store.away = not store.away
            flips_us = clock.now_us() + dice.choice([200_000, 700_000, 3_000_000, 8_000_000])
        which = dice.randrange(workers)
        if dice.random() < 0.003:
            nodes[which] = life(which)
        if dice.random() < 0.02:
            for each in nodes:
                each.port.tick()
        await asyncio.sleep(0)
        if nodes[which].ask(limit)[0]:
            level += 1
            peak = max(peak, level)
    assert peak > 45, "outages let something through"
    assert peak <= 40 + over_admission_bound(limit, workers)
