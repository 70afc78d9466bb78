import asyncio
import threading

import pytest

from tests.edge.journal.disks import FailingDisk
from tests.edge.journal.logs import (
    DENIED,
    OPENED,
    billed,
    bodies,
    entries,
    exchange,
    journal,
    mint,
    sequences,
    told,
    until,
    write,
)

DURABLE = ["interval", "always"]


@pytest.fixture
def disk():
    return FailingDisk()


async def test_always_means_that_nothing_is_acknowledged_before_its_sync(tmp_path, disk):
    # Fails if `then` is called after the write.
    log = journal(tmp_path, disk, durability="always")
    log.start()
    disk.may_sync.clear()
    answers = []
    log.close("records", mint(), "c", write, answers.append)
    await until(lambda: log.figures.entries == 1)
    await asyncio.sleep(0.05)
    assert answers == []
    disk.may_sync.set()
    await until(lambda: answers == [True])
    await log.aclose()


async def test_what_arrives_during_a_slow_sync_is_the_next_group_and_the_loop_goes_on(tmp_path, disk):
    # Fails if the sync runs on the loop, or each entry is synced on its own.
    log = journal(tmp_path, disk, durability="always")
    log.start()
    disk.may_sync.clear()
    answers, before = [], log.figures.syncs
    for n in range(100):
        log.close("records", mint(), "c", write, lambda ok, n=n: answers.append(n))
        await asyncio.sleep(0)
    assert answers == []
    disk.may_sync.set()
    await until(lambda: answers == list(range(100)))
    assert log.figures.syncs - before == 2
    assert threading.main_thread() not in disk.synced[1:]  # the first is the start's
    await log.aclose()


# Fails if `told` follows each entry: the settles of a tick would be as many writes.
@pytest.mark.parametrize("durability", ["os", "always"])
async def test_who_waits_for_a_batch_is_told_once_after_all_of_it(tmp_path, disk, durability):
    log = journal(tmp_path, disk, durability=durability)
    story = []
    log.on_acknowledged(lambda: story.append("batch"))
    log.start()
    for n in range(3):
        log.close("records", mint(), "c", write, lambda _, n=n: story.append(n))
    await until(lambda: len(story) == 4)
    assert story == [0, 1, 2, "batch"]
    await log.aclose()


async def test_who_waits_for_a_batch_is_told_also_where_the_journal_takes_nothing(tmp_path, disk):
    log = journal(tmp_path, disk)
    log.start()
    disk.room, disk.creates_fail = 0, True
    story = []
    log.on_acknowledged(lambda: story.append("batch"))
    log.close("records", mint(), "c", write, story.append)
    await until(lambda: len(story) == 2)
    log.close("records", mint(), "c", write, story.append)  # broken by now
    assert story == [False, "batch", False, "batch"]
    disk.room, disk.creates_fail = None, False
    await log.aclose()


@pytest.mark.parametrize("durability", ["os", *DURABLE])
async def test_a_failed_write_goes_on_in_a_new_file(tmp_path, disk, durability):
    # Fails if the rest of a short write is forgotten, or half a frame is followed by others in the same file.
    log = journal(tmp_path, disk, durability=durability)
    log.start()
    await exchange(log)
    disk.new_file_has_room = True
    for room in range(0, 400, 7):  # cuts at every place of a batch
        disk.room = room
        answers = (told(log.close, "records", id_, "c", write) for id_ in (mint(), mint()))
        assert await asyncio.gather(*answers) == [True, True]
        disk.room = None
    await log.aclose()
    assert sequences(tmp_path) == list(range(1, 1 + 1 + 2 * 58))


async def test_short_writes_are_completed(tmp_path, disk):
    log = journal(tmp_path, disk)
    log.start()
    disk.short = 10
    for _ in range(5):
        await exchange(log)
    assert log.figures.write_errors == 0
    assert sequences(tmp_path) == [1, 2, 3, 4, 5]
    await log.aclose()


@pytest.mark.parametrize("durability", DURABLE)
async def test_after_a_failed_sync_the_same_bytes_are_written_into_a_new_file(tmp_path, disk, durability):
    # Fails if the sync is tried again on the same file and believed, or the reader takes both copies.
    log = journal(tmp_path, disk, durability=durability, interval_us=1_000)
    log.start()
    await exchange(log)
    disk.syncs_fail = 1
    ids = [await exchange(log) for _ in range(3)]
    await until(lambda: log.figures.sync_errors == 1 and log.figures.rotations >= 2)
    ids.append(await exchange(log))
    await log.aclose()
    assert not log.figures.broken
    assert [entry.id for entry in entries(tmp_path)][1:] == ids
    assert sequences(tmp_path) == [1, 2, 3, 4, 5]


async def test_a_disk_that_stays_broken_is_told_to_all_who_wait_and_mended_by_itself(tmp_path, disk):
    # Fails if `then(True)` is called for what no disk has, or a number is given out twice.
    log = journal(tmp_path, disk, durability="always")
    log.start()
    under_way, new = mint(), mint()
    assert await told(log.open, under_way, OPENED)
    disk.syncs_fail = 10
    assert not await told(log.close, "records", under_way, "c", write)
    assert log.figures.broken == 1
    assert not log.accepting()
    assert not await told(log.open, new, OPENED)
    disk.syncs_fail = 0
    await until(log.accepting)
    assert log.figures.broken == 0
    later = await exchange(log)
    await log.aclose()
    assert [entry.id for entry in entries(tmp_path)] == [under_way, later]
    assert sequences(tmp_path) == [1, 2]


async def test_a_full_disk_refuses_the_new_and_owes_what_is_under_way(tmp_path, disk):
    # Fails if what has a number is forgotten while the disk is full: its number would be missing for ever.
    log = journal(tmp_path, disk)
    log.start()
    under_way, refused = mint(), mint()
    assert await told(log.open, under_way, OPENED)
    disk.room = 0
    assert not await told(log.open, refused, OPENED)
    assert not log.accepting()
    assert not await told(log.close, "records", under_way, "c", billed)
    log.deny(mint(), DENIED, write)
    disk.room = None
    await until(log.accepting)
    await exchange(log)
    await log.aclose()
    assert entries(tmp_path)[0].id == under_way
    # Fails if it is written as it was given: the answer was cut, and the client would pay for it.
    assert bodies(tmp_path)[0]["data"] == {"billable": False, "billable_reason": "withheld", "outcome": "withheld"}
    assert sequences(tmp_path) == [1, 2, 1], "and the summary of the denial"
    second = journal(tmp_path)
    assert second.start().crashed == 0  # what was refused never reached the upstream, so it is no crash
    await second.aclose()


async def test_a_full_disk_that_serves_lets_pass_and_counts(tmp_path, disk):
    log = journal(tmp_path, disk, on_full="serve")
    log.start()
    disk.room = 0
    failed_in_writing = mint()
    assert await told(log.open, failed_in_writing, OPENED)
    assert log.accepting()
    await exchange(log)
    assert log.figures.unrecorded == 1
    assert await told(log.close, "records", failed_in_writing, "c", billed)
    disk.room = None
    await until(lambda: not log.figures.broken)
    await exchange(log)
    await log.aclose()
    assert entries(tmp_path)[0].id == failed_in_writing
    assert bodies(tmp_path)[0]["data"]["outcome"] == "ok"  # it was served
    assert sequences(tmp_path) == [1, 2]


async def test_what_the_disk_never_took_is_said_at_the_end(tmp_path, disk, caplog):
    # Fails if the end is silent (I10).
    log = journal(tmp_path, disk)
    log.start()
    under_way = mint()
    assert await told(log.open, under_way, OPENED)
    disk.room = 0
    assert not await told(log.close, "records", under_way, "c", billed)
    await log.aclose()
    assert log.figures.lost == 1
    assert "not written before the end, and lost: 1 frame" in caplog.text
    second = journal(tmp_path)
    assert second.start().crashed == 1
    await second.aclose()


# Fails if a record is withheld only where its own write failed, and not where the journal was broken before.
async def test_what_ends_while_the_journal_is_broken_is_withheld_too(tmp_path, disk):
    log = journal(tmp_path, disk)
    log.start()
    ids = [mint(), mint()]
    for id_ in ids:
        assert await told(log.open, id_, OPENED)
    disk.room, disk.creates_fail = 0, True
    said = []
    log.on_acknowledged(lambda: said.append(log.withheld()))
    for id_ in ids:
        assert not await told(log.close, "records", id_, "c", billed)
    assert said == [True, True]
    disk.room, disk.creates_fail = None, False
    await until(log.accepting)
    await log.aclose()
    assert [body["data"]["outcome"] for body in bodies(tmp_path)] == ["withheld", "withheld"]


# Fails if a record is changed that readers may have had: the same number would say two things.
async def test_what_a_failed_sync_left_in_a_file_stays_as_it_was_written(tmp_path, disk):
    log = journal(tmp_path, disk, durability="always")
    log.start()
    id_ = mint()
    assert await told(log.open, id_, OPENED)
    disk.syncs_fail = 2
    said = []
    log.close("records", id_, "c", billed, lambda written: said.append((written, log.withheld())))
    await until(lambda: said)
    assert said == [(False, False)]
    await until(log.accepting)
    assert log.withheld()
    await log.aclose()
    assert {body["data"]["outcome"] for body in bodies(tmp_path)} == {"ok"}


async def test_a_start_on_a_full_disk_is_a_broken_journal_and_mends_itself(tmp_path, disk):
    disk.room = 0
    log = journal(tmp_path, disk)
    log.start()
    assert not log.accepting()
    disk.room = None
    await until(log.accepting)
    await exchange(log)
    await log.aclose()
    assert sequences(tmp_path) == [1]


async def test_a_sync_that_fails_at_the_end_leaves_no_mark_that_all_is_closed(tmp_path, disk):
    log = journal(tmp_path, disk)
    log.start()
    marked = (tmp_path / "0" / "closed").read_text()
    await exchange(log)
    disk.syncs_fail = 1
    await log.aclose()
    assert (tmp_path / "0" / "closed").read_text() == marked
