"""The ledgers of wallets on a real Redis become records: each posting once, whoever is killed."""

import json
import time

import pytest

from sidecar.core.errors import StoreError
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for, wallet_keys
from sidecar.core.policy import Limit
from sidecar.core.price import Price
from sidecar.core.price.wallet import Grant
from sidecar.edge.redis import postings as module
from sidecar.edge.redis.counters import RedisCounters
from sidecar.edge.redis.postings import RedisPostings
from sidecar.testing import HandClock, MemoryJournal
from tests.edge.counters_suite import SECOND_US, WHO, SetClock, Store
from tests.edge.redis.at_once import AtOnce
from tests.edge.redis.scripts import Oracle, stored
from tests.edge.redis.test_balances import fund

pytestmark = pytest.mark.redis
CREDIT = Limit("credit", "balance", 0, scope="customer", unit="usd", period_us=600 * SECOND_US)
TOKENS = Limit("credit.tokens", "priced", 0, scope="customer", calendar="year", meter="tokens", unit="usd",
               price=Price("per_unit", 10))  # fmt: skip
KEY, LEDGER = wallet_keys(WHO.customer, "usd")[:2]
OTHER = Identity("k2", "app-2", "cust-2", "free")


class Life:
    """A worker's counters and its reader of postings, with a journal of its own."""

    def __init__(self, redis, name):
        now_us = time.time_ns() // 1000
        self.redis, self.journal = redis.cli, MemoryJournal()
        self.commands = AtOnce(redis.port)
        self.store = Store(RedisCounters(self.commands, SetClock(now_us)), SetClock(now_us))
        self.store._random.seed(name)
        self.away = False
        self.reader = RedisPostings(self.commands, self.journal, HandClock(now_us), name, lambda: self.away)
        self.store.counters.charged = self.reader.touch

    def use(self, units, estimate=4, who=WHO):
        """One exchange; its id."""
        checks = checks_for((TOKENS, CREDIT), (estimate, 0), who, self.store.clock.at_us)
        id_ = self.store.mint()
        assert self.store.reserve(checks, id_).allowed
        self.store.settle(id_, checks, units, 0)
        return id_

    def tick(self, number=1):
        for _ in range(number):
            self.reader.tick()

    @property
    def records(self):
        return [json.loads(entry.body) for entry in self.journal.of("records")]


@pytest.fixture
def life(redis_clean):
    made = []

    def begin(name="reader-1"):
        made.append(Life(redis_clean, name))
        return made[-1]

    for who in (WHO, OTHER):
        fund(redis_clean.cli, Oracle(), who, "usd", Grant(f"g-{who.customer}", 0, 0, 0, 10_000, 10_000), 1)
    yield begin
    for each in made:
        each.commands.close()


def charges(records):
    return [
        (record["causationid"], record["data"]["delta"]) for record in records if record["data"]["change"] == "settle"
    ]


def test_each_exchange_has_one_record_with_all_that_it_cost(life):
    # Fails if a settle whose estimate was right has no posting, or one has only the difference to its estimate.
    one = life()
    used = [(one.use(units).decode(), -10 * units) for units in (4, 1, 9, 4)]
    one.use(0)
    one.tick()
    assert charges(one.records) == used
    assert [record["data"]["grant"] for record in one.records if "grant" in record["data"]] == ["g-cust-1"]
    assert sum(record["data"]["delta"] for record in one.records) == 10_000 - 180
    assert one.reader.unread == 0
    one.tick(10)
    assert one.reader.written == len(one.records) == 5


def test_a_reader_that_is_killed_before_it_confirmed_is_followed_by_another_under_the_same_ids(life):
    # Fails if the position moves when the postings are read, and not when they are in the journal: they would be lost.
    one = life()
    one.use(3)
    one.journal.holding = True
    one.tick()
    assert len(one.records) == 2  # and then it is killed
    two = life("reader-2")
    two.reader.touch(KEY)
    two.tick(20)
    assert two.records == []  # the other one has its turn, which ends by itself
    one.redis.hset(KEY, "reader", "reader-1 1")
    two.tick(20)
    assert [record["id"] for record in two.records] == [record["id"] for record in one.records]
    three = life("reader-3")
    three.reader.touch(KEY)
    three.tick(20)
    assert three.records == []


def test_a_reader_that_confirms_late_does_not_move_the_position_back(life):
    # Fails if what it confirms is stored as it is: all postings since would be on the stream again.
    one, two = life(), life("reader-2")
    one.use(3)
    one.journal.holding = True
    one.tick()
    one.redis.hset(KEY, "reader", "reader-1 1")  # it was so slow that its turn is over
    two.use(1)
    two.tick()
    assert len(two.records) == 3
    one.journal.holding = False
    one.journal.let_go()
    one.tick(20)
    assert len(one.records) == 2
    three = life("reader-3")
    three.reader.touch(KEY)
    three.tick()
    assert three.records == []


def test_two_readers_of_one_wallet_write_each_posting_once(life):
    # Fails if a ledger is not claimed: each posting of a customer would be there once for each worker.
    one, two = life(), life("reader-2")
    ids = [each.use(1).decode() for _ in range(5) for each in (one, two)]
    one.journal.holding = True
    one.tick()
    two.tick(10)
    assert two.records == []
    assert two.reader.unread == 1
    one.journal.let_go()
    two.tick(10)
    assert sorted(id_ for id_, _ in charges(one.records + two.records)) == sorted(ids)
    assert one.reader.unread == two.reader.unread == 0


def test_a_journal_that_takes_nothing_loses_no_posting(life):
    one = life()
    one.use(2)
    one.journal.broken = True
    one.tick(3)
    assert one.records == []
    one.journal.broken = False
    one.tick(module.RETRY_TICKS + 1)
    assert len(charges(one.records)) == 1


def test_an_outage_of_redis_loses_no_posting(life):
    one = life()
    one.use(2)
    one.away = True
    one.tick(3)
    one.away = False
    one.commands.lost = StoreError("away")
    one.tick()
    one.commands.lost = None
    one.tick(module.RETRY_TICKS + 1)
    assert len(charges(one.records)) == 1


def test_many_postings_are_read_in_batches(life, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 7)
    one = life()
    used = [(one.use(1).decode(), -10) for _ in range(30)]
    one.tick()
    assert charges(one.records) == used


def test_one_wallet_s_ledger_that_cannot_be_read_stops_no_other(life, caplog):
    one = life()
    one.redis.xadd(LEDGER, {"kind": "settle", "id": "x", "delta": "many", "balance": 1})
    one.redis.xadd(LEDGER, {"foreign": "1"})
    one.use(1)
    one.use(2, who=OTHER)
    one.tick()
    assert [delta for _, delta in charges(one.records)] == [-10, -20]
    assert one.reader.unreadable == 2
    assert "cannot be read, and is not on the stream" in caplog.text


def test_a_script_that_the_server_does_not_know_is_sent_in_full(life):
    one = life()
    one.use(1)
    one.redis.script_flush()
    one.tick()
    assert len(charges(one.records)) == 1


def test_a_ledger_is_not_trimmed_of_what_nobody_has_read(life):
    # Fails if postings go although their reader is behind. Without any reader (older nodes) they go as before.
    one = life()
    one.use(1)
    one.tick()
    pipe = one.redis.pipeline(transaction=False)
    for number in range(10_500):
        pipe.xadd(LEDGER, {"kind": "reserve", "id": "x", "delta": 0, "balance": number})
    pipe.execute()
    for _ in range(120):
        one.use(1)
    assert one.redis.xlen(LEDGER) > 10_600
    one.tick()
    for _ in range(120):
        one.use(1)
    assert one.redis.xlen(LEDGER) < 10_600
    one.tick()
    assert len(charges(one.records)) == 241


def test_a_wallet_that_does_not_exist_leaves_no_key(life):
    one = life()
    one.redis.flushdb()
    one.reader.touch(KEY)
    one.tick()
    assert one.reader.unread == 0
    one.tick(2 * module.IDLE_TICKS)
    assert one.redis.keys() == []


def test_a_wallet_is_noted_as_unread_from_before_its_change_until_its_ledger_is_read_and_at_rest(life):
    # Fails if the note comes after the change (a kill in between would hide it), or goes while postings wait.
    one = life()
    one.use(1)
    notes = [packed for _, packed in one.commands.sent if b"sc:wallets:unread" in packed]
    assert one.commands.sent[0][1] == notes[0]
    assert len(notes) == 1
    one.journal.holding = True
    one.tick(3 * module.IDLE_TICKS)
    assert one.redis.hkeys("sc:wallets:unread") == [KEY.encode()]
    one.journal.holding = False
    one.journal.let_go()
    one.tick(3 * module.IDLE_TICKS)
    assert not one.redis.exists("sc:wallets:unread")
    one.use(1)
    one.reader.end()
    one.tick(2)
    assert not one.redis.exists("sc:wallets:unread")


def test_the_wallet_is_the_same_with_and_without_a_reader(life):
    one = life()
    one.use(3)
    before = stored(one.redis)
    one.tick()
    assert stored(one.redis) == before
