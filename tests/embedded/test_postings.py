"""A node without Redis: the postings of its wallets on the stream, through kills at any moment."""

import json
import random

import pytest

from sidecar.core.price.wallet import Grant, balance
from sidecar.embedded import postings as module
from sidecar.embedded.postings import EmbeddedPostings
from sidecar.embedded.state import EmbeddedState
from sidecar.testing import HandClock, MemoryJournal
from tests.edge.journal.logs import entries
from tests.embedded.survivor import WHOSE, Node

KEY = "sc:{cust-ann}:wallet:cust-ann:usd"


def reader_of(node):
    reader = EmbeddedPostings(node.state, node.journal, node.clock)
    node.state.counters.charged = reader.touch
    reader.touch_all()
    return reader


async def postings(node):
    """The postings in the journals of all lives, by id; and how many there are with the copies."""
    await node.rest()
    records = [json.loads(entry.body) for entry in entries(node.folder) if b"sidecar.posting.v1" in entry.body]
    return {record["id"]: record["data"] for record in records}, len(records)


async def used(node, size=100):
    await node.begin()
    if node.open:  # otherwise a limit refused it
        node.open.pop()[1].connect().respond(200, b"x" * size)
    await node.rest()


def held(node):
    wallet = node.state.read(WHOSE | {"postings": 0})
    return balance(wallet.wallet) + sum(wallet.held.values())


@pytest.fixture
async def node(tmp_path):
    return await Node(tmp_path).start()


async def test_grants_and_charges_are_on_the_stream_and_sum_up_to_the_balance(node):
    # Fails if a change by a command is not noticed, or if the amount that is held is left out of a charge.
    reader = reader_of(node)
    await node.grant("g1", 10**9)
    for size in (100, 99, 0, 2_000):
        await used(node, size)
    reader.tick()
    records, number = await postings(node)
    assert sum(each["delta"] for each in records.values()) == held(node) < 10**9
    assert [each["change"] for each in records.values()] == ["grant", "settle", "settle", "settle"]
    assert [each["charges"][0]["units"] for each in list(records.values())[1:]] == [100, 99, 2_000]
    reader.tick()
    assert (await postings(node))[1] == number == reader.written
    assert reader.unread == 0


async def test_a_wallet_with_many_postings_is_read_in_batches(node, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 3)
    reader = reader_of(node)
    for number in range(10):
        await node.grant(f"g{number}", 5)
    for _ in range(10):
        reader.tick()
        await node.rest()
    records, number = await postings(node)
    assert [each["grant"] for each in records.values()] == [f"g{n}" for n in range(10)]
    assert number == 10


@pytest.mark.parametrize("seed", range(8))
async def test_through_kills_every_posting_comes_and_a_repeated_one_has_its_id(tmp_path, seed):
    # Fails if the saved position is trusted for postings that a replay makes again, or if an id depends on their time.
    chance, node = random.Random(seed), await Node(tmp_path).start()
    reader = reader_of(node)
    granted, lives = 0, 0
    for _ in range(40):
        match chance.choice(("grant", "use", "use", "use", "tick", "save", "kill", "pass")):
            case "grant":
                granted += 1
                expires_us = chance.choice([0, node.clock.now_us() + 5_000_000])
                await node.grant(f"g{granted}", 10**7, expires_us=expires_us)
            case "use":
                await used(node, chance.randrange(3_000))
            case "tick":
                reader.tick()
                await node.rest()
            case "save":
                assert await node.saver.save(rest=0)
            case "pass":
                node.clock.turn(chance.choice([1_000, 7_000_000]))
            case "kill":
                node, lives = await node.next_life(), lives + 1
                reader = reader_of(node)
    await node.change(do="sweep")
    reader.tick()
    records, _ = await postings(node)
    assert sum(each["delta"] for each in records.values()) == held(node)
    grants = [each["grant"] for each in records.values() if each["change"] == "grant"]
    assert sorted(grants) == sorted(f"g{number}" for number in range(1, granted + 1))


async def test_after_a_clean_end_nothing_is_repeated(node):
    reader = reader_of(node)
    await node.grant("g1", 10**9)
    await used(node)
    reader.tick()
    await node.rest()
    assert await node.saver.save(rest=0)
    later = await node.next_life()
    reader_of(later).tick()
    records, number = await postings(later)
    assert number == len(records) == 2


async def test_a_journal_that_takes_nothing_loses_no_posting(node):
    # Fails if the position moves although the records are not written.
    journal = MemoryJournal()
    reader = EmbeddedPostings(node.state, journal, node.clock)
    await node.grant("g1", 10**9)
    reader.touch_all()
    journal.broken = True
    reader.tick()
    assert journal.entries == []
    journal.broken = False
    for _ in range(module.RETRY_TICKS + 1):
        reader.tick()
    assert [json.loads(entry.body)["data"]["grant"] for entry in journal.entries] == ["g1"]


def test_a_saved_position_beyond_the_saved_ledger_is_not_trusted():
    # A save takes the position last, and the ledger before it; a replay repeats all in between, under new numbers.
    # Fails if the position is restored as it is: the repeated postings would count as read.
    clock = HandClock()
    state = EmbeddedState(clock, lambda _body, then: then(True))
    ledger = KEY.replace(":wallet:", ":ledger:")
    state.restore(["ledger", ledger, 0, [[7, "grant", "g1", 5, 5], [9, "grant", "g2", 5, 10]]], clock.now_us())
    for saved, restored in ((99, 9), (7, 7)):
        state.restore(["posted", KEY, 0, saved], clock.now_us())
        assert state.posted == {KEY: restored}
    state.restore(["posted", "sc:{c}:wallet:c:usd", 0, 4], clock.now_us())
    assert state.posted["sc:{c}:wallet:c:usd"] == 0


@pytest.mark.parametrize("kind", ["expire", "rollover", "grant"])
def test_a_posting_that_a_replay_makes_a_little_later_has_the_same_id(kind):
    # Fails if its id has the time of the posting: an expiry would be on the stream twice.
    granted = {b"g1": Grant("g1", 0, 0, 1_795_000_000_000_000, 5, 5, made_us=1_794_000_000_000_000)}
    ids = {
        module._record_of(KEY, at_ms * 4096, (kind, "g1", -5, 0), granted).id
        for at_ms in (1_795_000_000_001, 1_795_000_000_009)
    }
    assert len(ids) == 1
