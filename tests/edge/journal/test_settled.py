"""Mirrors sidecar/edge/journal/settled.py: which exchanges a start has to settle again."""

import pytest

from sidecar.core.record.frame import Position
from sidecar.edge.journal.folder import Folder
from sidecar.edge.journal.settled import SettledMark
from tests.edge.journal.disks import FailingDisk
from tests.edge.journal.logs import OPENED, billed, journal, mint, told, until


async def ended(log):
    id_ = mint()
    assert await told(log.open, id_, OPENED)
    assert await told(log.close, "records", id_, "c", billed)
    return id_


def killed(log):
    """As a kill leaves it: nothing is said any more, and the lock is free."""
    for timer in log._timers.values():
        timer.cancel()
    log._folder.release()


def started(folder, **options):
    log = journal(folder, **options)
    log.start()
    return log, [each.id for each in log.take_ended()]


async def test_what_the_store_has_answered_is_not_settled_again_and_all_else_is(tmp_path):
    # Fails if the mark is where the journal is now: what was settled last may not have been answered.
    log, found = started(tmp_path)
    assert found == []
    await ended(log)
    log.note_settled()  # sent
    late = await ended(log)
    log.note_settled()  # what was sent before is answered
    later = await ended(log)
    killed(log)
    log, found = started(tmp_path)
    assert found == [late, later]
    assert log.take_ended() == []
    await log.aclose()
    log, found = started(tmp_path)
    assert found == []
    await log.aclose()


async def test_an_exchange_is_settled_again_with_what_it_opened_with_and_what_it_came_to(tmp_path):
    log, _ = started(tmp_path)
    id_ = await ended(log)
    killed(log)
    log = journal(tmp_path)
    log.start()
    [found] = log.take_ended()
    assert (found.id, found.opened) == (id_, OPENED)
    assert b'"outcome":"ok"' in found.closed
    await log.aclose()


async def test_what_was_open_is_settled_as_crashed(tmp_path):
    log, _ = started(tmp_path)
    assert await told(log.open, (id_ := mint()), OPENED)
    killed(log)
    log = journal(tmp_path)
    assert log.start().crashed == 1
    [found] = log.take_ended()
    assert (found.id, b'"outcome":"crashed"' in found.closed) == (id_, True)
    await log.aclose()


# Fails if a start marks the folder as closed at once: what an earlier epoch left would be hidden from the next start.
async def test_an_epoch_that_is_killed_before_the_store_has_answered_hides_none_before_it(tmp_path):
    log, _ = started(tmp_path)
    first = await ended(log)
    killed(log)
    log, found = started(tmp_path)
    assert found == [first]
    second = await ended(log)
    log.note_settled()
    killed(log)
    log, found = started(tmp_path)
    assert found == [first, second]
    log.note_settled()
    log.note_settled()
    killed(log)
    assert Folder(tmp_path / "0").closed_until() is not None
    log, found = started(tmp_path)
    assert found == []
    await log.aclose()


async def test_a_stop_says_whether_all_was_answered(tmp_path):
    log, _ = started(tmp_path)
    id_ = await ended(log)
    await log.aclose(settled=False)
    log, found = started(tmp_path)
    assert found == [id_]
    await log.aclose(settled=True)
    log, found = started(tmp_path)
    assert found == []
    await log.aclose()


@pytest.mark.parametrize("mark", [None, "", "rubbish"])
async def test_where_no_mark_can_be_read_nothing_is_settled_again(tmp_path, mark):
    log, _ = started(tmp_path)
    await ended(log)
    killed(log)
    path = tmp_path / "0" / "settled"
    path.unlink() if mark is None else path.write_text(mark)
    log, found = started(tmp_path)
    assert found == []
    await log.aclose()


async def test_records_whose_sync_is_awaited_are_not_yet_acknowledged(tmp_path):
    # Fails if with `always` the mark goes as far as was written: those exchanges settle after their sync.
    disk = FailingDisk()
    log = journal(tmp_path, disk, durability="always")
    log.start()
    await ended(log)
    log.note_settled()
    disk.may_sync.clear()
    id_ = mint()
    log.open(id_, OPENED, lambda _: None)
    log.close("records", id_, "c", billed, lambda _: None)
    before = log.figures.entries
    await until(lambda: log.figures.entries == before + 2)
    log.note_settled()
    log.note_settled()
    disk.may_sync.set()
    await until(lambda: not log._writer._waiting and log._writer._sync is None)
    killed(log)
    log, found = started(tmp_path)
    assert id_ in found
    await log.aclose()


async def test_only_the_newest_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("sidecar.edge.journal.recovery.ENDED_MAX", 2)
    log, _ = started(tmp_path)
    ids = [await ended(log) for _ in range(3)]
    killed(log)
    log, found = started(tmp_path)
    assert found == ids[1:]
    await log.aclose()


def test_a_mark_that_cannot_be_written_stops_nothing(tmp_path):
    folder = Folder(tmp_path / "0")
    folder.own()
    mark = SettledMark(folder)
    (tmp_path / "0" / "settled").mkdir()
    mark.begin(Position(1, 1, 0), settled=True)
    mark.note(Position(1, 1, 9))
    mark.note(Position(1, 1, 9))
    assert mark.until() is None
    mark.finish(Position(1, 1, 9), settled=True)
    folder.release()


def test_a_longer_position_is_overwritten_by_a_shorter_one(tmp_path):
    folder = Folder(tmp_path / "0")
    folder.own()
    mark = SettledMark(folder)
    mark.begin(Position(1_795_223_006_123_456_789, 12, 123_456_789), settled=True)
    mark.finish(Position(1_795_223_006_123_456_790, 1, 9), settled=True)
    assert mark.until() == Position(1_795_223_006_123_456_790, 1, 9)
    folder.release()


async def test_no_mark_of_a_living_worker_passes_what_the_store_has_not_answered(tmp_path):
    # Redis is away for long. Fails if the folder is marked closed wherever exchanges are: their settles would be lost.
    log, _ = started(tmp_path, segment_bytes=2_000, cap_bytes=1 << 20)
    log._rewrite_every = log._rewrite_at = 1
    ids = []
    for _ in range(6):
        ids += [await ended(log) for _ in range(10)]
        log._rewrite_long_open()
    killed(log)
    log, found = started(tmp_path)
    assert found == ids
    await log.aclose()
