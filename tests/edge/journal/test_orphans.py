"""Journals whose worker no longer exists: closed once, by an epoch of their own, and never beside a living worker."""

import errno

import orjson
import pytest
from jsonschema import Draft202012Validator

from sidecar.core.errors import SinkError
from sidecar.core.record import record_schema
from sidecar.core.record.frame import OPEN, Position, encode_frame, segment_name
from sidecar.edge.clock import SystemClock
from sidecar.edge.journal import Disk, Orphan, recover, take_unsettled
from sidecar.edge.journal.folder import Folder
from sidecar.edge.journal.reader import JournalReader
from tests.edge.journal.logs import OPENED, SOURCE, bodies, entries, exchange, journal, mint, read_all, told

validator = Draft202012Validator(record_schema())


def orphan(directory):
    return Orphan(directory, "0", "//sidecar/other/name/0")


async def dead_worker(directory, opens, exchanges=1, **options):
    """A life that ends without a word, with `opens` exchanges under way; their ids."""
    log = journal(directory, **options)
    log.start()
    ids = [mint() for _ in range(opens)]
    for id_ in ids:
        assert await told(log.open, id_, OPENED)
    for _ in range(exchanges):
        await exchange(log)
    for timer in log._timers.values():
        timer.cancel()
    log._folder.release()
    return ids


async def test_what_a_worker_left_open_is_closed_in_an_epoch_of_its_own_that_ends_with_a_checkpoint(tmp_path):
    # review 1.6, RAN: nobody looked at worker 1 after a restart with one worker. Fails if the checkpoint is left out:
    # a missing end of this source could not be told.
    ids = await dead_worker(tmp_path, 3)
    assert recover(orphan(tmp_path), SystemClock()) == 3
    closed = bodies(tmp_path)[1:]
    assert [body["id"].encode() for body in closed[:3]] == ids
    assert [int(body["sequence"]) for body in closed] == [1, 2, 3, 4]
    assert all(validator.is_valid(body) for body in closed)
    assert [body["data"]["outcome"] for body in closed[:3]] == ["crashed"] * 3
    assert closed[3]["data"]["highest"] == {"records": 3, "denials": 0}
    assert closed[3]["data"]["totals"] == {"requests": 3}
    assert len({body["source"] for body in bodies(tmp_path)}) == 2
    assert all(body["source"].startswith(f"{SOURCE}/") for body in closed)  # the worker's own name, not ours


async def test_it_is_closed_once_however_often_it_is_looked_at(tmp_path):
    await dead_worker(tmp_path, 2)
    assert [recover(orphan(tmp_path), SystemClock()) for _ in range(3)] == [2, 0, 0]
    log = journal(tmp_path)  # the worker is back: there are more workers again
    assert log.start().crashed == 0
    await log.aclose()
    assert len(entries(tmp_path)) == 1 + 2 + 1


async def test_the_segments_of_an_open_exchange_are_freed_after_it_is_closed(tmp_path):
    # Fails if the exchange stays open for the reader: no later segment would ever be freed.
    await dead_worker(tmp_path, 1, exchanges=30, segment_bytes=2_000)
    reader = JournalReader(tmp_path, "0")
    before = read_all(reader)
    assert reader.free(before[-1].position_after) == 0
    recover(orphan(tmp_path), SystemClock())
    after = read_all(reader)
    assert reader.free(after[-1].position_after) > 3
    assert len(list((tmp_path / "0").glob("*.seg"))) == 1


async def test_a_journal_that_a_worker_owns_is_left_alone(tmp_path):
    # Fails if ownership is not asked for: exchanges under way would be closed as crashed.
    log = journal(tmp_path)
    log.start()
    id_ = mint()
    assert await told(log.open, id_, OPENED)
    assert recover(orphan(tmp_path), SystemClock()) is None
    await log.aclose()
    assert entries(tmp_path) == []


async def test_where_nothing_was_open_nothing_is_written_and_the_next_look_is_short(tmp_path):
    await dead_worker(tmp_path, 0, exchanges=5)
    files = {path.name for path in (tmp_path / "0").iterdir()}
    assert recover(orphan(tmp_path), SystemClock()) == 0
    assert {path.name for path in (tmp_path / "0").iterdir()} == files
    folder = Folder(tmp_path / "0")
    last = folder.segments()[-1]
    assert len(take_unsettled(tmp_path, ())) == 5  # before that, who settles them has to find them
    assert folder.closed_until() == Position(*last, (folder.path / segment_name(*last)).stat().st_size)


async def test_a_journal_that_does_not_say_its_name_gets_the_one_that_is_given(tmp_path):
    folder = tmp_path / "0"
    folder.mkdir()
    (folder / segment_name(1, 1)).write_bytes(encode_frame(OPEN, "", 0, mint(), b"", OPENED))
    (folder / segment_name(1, 2)).write_bytes(b"")
    assert recover(orphan(tmp_path), SystemClock()) == 1
    assert bodies(tmp_path)[0]["source"].startswith("//sidecar/other/name/0/")


async def test_a_full_disk_leaves_them_open_for_the_next_try(tmp_path):
    class Full(Disk):
        def write(self, fd, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    await dead_worker(tmp_path, 2)
    with pytest.raises(SinkError, match="2 exchanges cannot be closed"):
        recover(orphan(tmp_path), SystemClock(), Full())
    assert recover(orphan(tmp_path), SystemClock()) == 2
    assert sum(orjson.loads(entry.body).get("data", {}).get("outcome") == "crashed" for entry in entries(tmp_path)) == 2


async def test_what_is_closed_is_synced_before_it_is_marked_as_closed(tmp_path):
    # Fails if the records are left to the page cache: after a power cut the next start would not look at them again.
    class Noting(Disk):
        did = ()

        def write(self, fd, data):
            self.did += ("write", Folder(tmp_path / "0").closed_until())
            return super().write(fd, data)

        def sync(self, fd):
            self.did += ("sync", Folder(tmp_path / "0").closed_until())
            super().sync(fd)

    await dead_worker(tmp_path, 2)
    (tmp_path / "0" / "settled").unlink()  # as without Redis: else it is marked later, by who settles
    before, disk = Folder(tmp_path / "0").closed_until(), Noting()
    assert recover(orphan(tmp_path), SystemClock(), disk) == 2
    assert disk.did[-2:] == ("sync", before)
    assert Folder(tmp_path / "0").closed_until() != before


# What was closed and not settled, and what was open. Fails if only living workers' journals are settled after a kill.
async def test_what_a_worker_left_unsettled_is_taken_once_and_after_it_is_closed(tmp_path):
    open_ids = await dead_worker(tmp_path, 2, exchanges=1)
    assert take_unsettled(tmp_path, ()) == []  # exchanges are open: another closes them first
    assert recover(orphan(tmp_path), SystemClock()) == 2
    assert take_unsettled(tmp_path, {"0"}) == []
    taken = take_unsettled(tmp_path, {"1"})
    assert [each.id for each in taken][1:] == open_ids
    assert len(taken) == 3
    assert take_unsettled(tmp_path, ()) == []
    log = journal(tmp_path)  # the worker is back
    log.start()
    assert log.take_ended() == []
    await log.aclose()


async def test_a_worker_that_comes_back_settles_what_nobody_took(tmp_path):
    # Fails if closing an orphan's journal hides what it has not settled from the start after it.
    [open_id] = await dead_worker(tmp_path, 1, exchanges=0)
    assert recover(orphan(tmp_path), SystemClock()) == 1
    log = journal(tmp_path)
    assert log.start().crashed == 0
    assert [each.id for each in log.take_ended()] == [open_id]
    assert take_unsettled(tmp_path, ()) == []  # it is owned
    await log.aclose()
