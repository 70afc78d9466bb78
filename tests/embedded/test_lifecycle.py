"""tests/e2e/test_embedded.py has whole nodes, tests/cli/test_wallet.py the command."""

import asyncio
import shutil

import pytest

from sidecar.core.errors import SinkError, StateError
from sidecar.core.price.wallet import Grant, balance
from sidecar.core.record.frame import Position
from sidecar.edge.memory import state_file
from sidecar.edge.memory.state_file import needed_from
from sidecar.embedded.folders import WORKER, newest
from sidecar.embedded.lifecycle import Embedded
from tests.embedded.survivor import Node, counted, dies, finish, lives, saved, stop, successor

GRANT = Grant("g1", 0, 0, 0, 10**6, 10**6)


# Fails if a state that somebody removed is made again only with the next save, or lies where no start looks for it.
async def test_what_a_life_held_is_there_after_its_folder_was_removed_and_a_kill(tmp_path):
    node = await lives(tmp_path)
    await node.begin()
    node.call.connect().respond(200, b"x")
    await node.rest()
    shutil.rmtree(tmp_path / WORKER)
    async with asyncio.timeout(10):
        while not (tmp_path / WORKER / "state").exists():
            node.embedded.tick()
            await asyncio.sleep(0.05)
    await node.embedded._listener.aclose()
    stop(node)
    later = await lives(tmp_path)
    assert later.left_of("monthly") == 999
    assert later.embedded.figures()[0]["state_damaged"] == 0
    await dies(later)


# Fails if the last save is left out.
async def test_what_a_life_held_is_there_in_the_next_without_a_replay(tmp_path):
    node = await lives(tmp_path)
    await node.grant("g1", 10**6)
    await node.begin()
    node.call.connect().respond(200, b"x" * 70)
    await node.rest()
    await dies(node)
    later = await lives(tmp_path)
    counts, ages = later.embedded.figures()
    assert (counts["state_replayed"], counts["state_saves"], ages) == (0, 1, {"state": 0})
    assert later.left_of("monthly") == 999
    assert balance(later.state.read({"customer": "cust-ann", "unit": "usd", "postings": 0}).wallet) == 10**6 - 10_010
    await dies(later)


async def test_a_first_start_that_cannot_save_does_not_serve(tmp_path, monkeypatch):
    node = Node(tmp_path)
    node.journal.start()
    monkeypatch.setattr(state_file.StateFile, "keep", lambda _self: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(SinkError, match="counters would be forgotten"):
        await Embedded(node.state, node.journal, node.clock, 10).start(node.context.policies.policy)
    await node.journal.aclose()


# ops: a node is back at once while streams of its killed supervisor end.
# Fails if what the other worker settles or opens is not counted, is counted twice after a kill, or if its open
# exchanges are given back while it lives.
async def test_a_successor_counts_what_a_worker_that_still_finishes_writes(tmp_path):
    orphan = await lives(tmp_path)
    await orphan.grant("g1", 10**6)
    for _ in range(2):
        await orphan.begin()
    await orphan.rest()
    later = await lives(tmp_path)
    assert later.journal.path.name == "0.1"
    assert later.left_of("monthly") == 998
    orphan.open[0][1].connect().respond(200, b"x" * 70)
    await orphan.rest()
    await orphan.begin()  # on a connection that it still has
    await orphan.rest()
    later.embedded.tick()
    assert later.left_of("monthly") == 997
    assert counted(later.state) == counted(orphan.state)
    await orphan.embedded.aclose(is_orphan=True)
    stop(orphan)
    again = await successor(later)
    assert again.journal.path.name == "0"
    again.embedded.tick()
    assert again.left_of("monthly") == 999
    book = again.state.read({"customer": "cust-ann", "unit": "usd", "postings": 99})
    assert (balance(book.wallet), book.held) == (10**6 - 10_010, {})
    await dies(again)
    assert newest(tmp_path).name == "0"
    final = await lives(tmp_path)
    assert final.left_of("monthly") == 999
    await dies(final)


# Fails if how far another's journal was counted is not noted, or not saved: with its mark gone an exchange would count
# again. And if that journal is let go of while the previous state still needs it, or is kept for ever.
async def test_what_was_counted_of_another_worker_is_not_counted_again_when_its_mark_has_gone(tmp_path):
    orphan = await lives(tmp_path)
    later = await lives(tmp_path)
    await orphan.begin()
    orphan.open.pop()[1].connect().respond(200, b"x" * 70)
    await orphan.rest()
    for _ in range(2):
        later.embedded.tick()
        assert later.left_of("monthly") == 999
        await saved(later)
        later.clock.turn(400_000_000)
        later.state.counters._drop(later.clock.now_us())
    assert await later.embedded._saver.save(rest=0)
    again = await successor(later)
    assert (again.journal.path.name, again.left_of("monthly")) == ("0.1", 999)
    await finish(orphan)
    again.embedded.tick()
    await saved(again)
    again.embedded.tick()
    assert needed_from(tmp_path / "0") is not None
    assert await again.embedded._saver.save(rest=0)
    again.embedded.tick()
    assert needed_from(tmp_path / "0") is None
    await dies(again)


# Fails if only the last of two folders is followed, or if what the first still has open is given back when the second
# has ended.
async def test_a_successor_counts_what_two_workers_that_still_finish_write(tmp_path):
    first = await lives(tmp_path)
    await first.grant("g1", 10**6)
    await first.begin()
    await first.rest()
    second = await lives(tmp_path)
    await second.begin()
    await second.rest()
    later = await lives(tmp_path)
    assert (later.journal.path.name, later.left_of("monthly")) == ("0.2", 998)
    await finish(second)
    later.embedded.tick()
    await saved(later)
    again = await successor(later)
    assert (again.journal.path.name, again.left_of("monthly")) == ("0.1", 998)
    await finish(first)
    again.embedded.tick()
    assert again.left_of("monthly") == 998
    book = again.state.read({"customer": "cust-ann", "unit": "usd", "postings": 99})
    assert (balance(book.wallet), book.held) == (10**6 - 2 * 10_010, {})
    await dies(again)


# Fails if a start goes on whose first state is not saved: the next start would read the older one in the other folder.
async def test_a_start_in_a_spare_folder_that_cannot_save_does_not_serve(tmp_path, monkeypatch):
    orphan = await lives(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(state_file.StateFile, "keep", lambda _self: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(SinkError, match="counters would be forgotten"):
            await lives(tmp_path)
    await dies(orphan)


# Fails if the state of an earlier life stays beside the first one of this life: it would be read where that is damaged.
async def test_a_state_that_is_older_than_the_one_a_start_began_from_is_not_fallen_back_on(tmp_path):
    first = await lives(tmp_path)
    second = await lives(tmp_path)  # 0.1
    await finish(first)
    third = await successor(second)  # 0 again, from 0.1
    assert third.journal.path.name == "0"
    (tmp_path / "0" / "state").write_bytes(b"junk")
    with pytest.raises(StateError, match=r"0/state: damaged"):
        newest(tmp_path)
    await third.embedded.aclose(is_orphan=True)
    stop(third)


# Fails if a row that is not as it was written ends a start by a KeyError.
async def test_a_row_that_cannot_be_read_is_named(tmp_path):
    node = await lives(tmp_path)
    await dies(node)
    where = Position(1, 1, 0)
    for row in (["time", "k", 0], ["hold", "k", 0, 1], ["retry", "zz", 0, "id"]):
        for _ in range(2):
            file = state_file.StateFile(tmp_path / WORKER, 1).open()
            file.add(state_file.Slice(where, where, 0, [row]))
            file.keep()
        with pytest.raises(StateError, match=f"a row that cannot be read: .*{row[0]}"):
            await lives(tmp_path)
