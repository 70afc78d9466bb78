import asyncio
import os
import shutil

import orjson
import pytest

from sidecar.core.errors import SinkError
from sidecar.core.record.frame import segment_name
from sidecar.edge.journal import DenialOptions
from sidecar.edge.journal.reader import JournalReader
from tests.edge.journal.disks import FailingDisk
from tests.edge.journal.logs import (
    DENIED,
    OPENED,
    SOURCE,
    bodies,
    entries,
    exchange,
    journal,
    mint,
    read_all,
    sequences,
    told,
    until,
    write,
)


async def test_what_was_acknowledged_is_read_back_in_order(tmp_path):
    log = journal(tmp_path)
    epoch = log.start().epoch
    ids = [await exchange(log) for _ in range(5)]
    found = entries(tmp_path)  # while it is being written
    assert [entry.id for entry in found] == ids
    assert [entry.sequence for entry in found] == [1, 2, 3, 4, 5]
    assert found[0].key == b"c"
    assert orjson.loads(found[4].body) == {"source": f"{SOURCE}/{epoch}", "sequence": 5}
    await log.aclose()


async def test_each_stream_has_its_own_numbers(tmp_path):
    log = journal(tmp_path)
    epoch = log.start().epoch
    for stream in ("records", "denials", "denials", "records"):
        assert await told(log.close, stream, mint(), "c", write)
    assert [(entry.stream, entry.sequence) for entry in entries(tmp_path)] == [
        ("records", 1), ("denials", 1), ("denials", 2), ("records", 2),
    ]  # fmt: skip
    assert bodies(tmp_path)[1]["source"] == f"{SOURCE}/{epoch}/denials"
    await log.aclose()


async def test_all_entries_of_a_tick_are_one_write_and_are_told_in_order(tmp_path):
    # Fails if each entry is written on its own.
    log = journal(tmp_path)
    log.start()
    order, before = [], log.figures.writes
    for n in range(32):
        log.close("records", mint(), "c", write, lambda ok, n=n: order.append((n, ok)))
    assert order == []
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == [(n, True) for n in range(32)]
    assert log.figures.writes == before + 1
    await log.aclose()


async def test_a_callback_that_fails_leaves_no_other_unanswered(tmp_path):
    # Fails if `_tell` lets an exception through.
    log, failures = journal(tmp_path), []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
    log.start()
    log.close("records", mint(), "c", write, lambda ok: 1 // 0)
    assert await told(log.close, "records", mint(), "c", write)
    assert len(failures) == 1
    await log.aclose()


async def test_a_number_is_not_used_up_by_a_record_that_could_not_be_made(tmp_path):
    log = journal(tmp_path)
    log.start()
    with pytest.raises(ZeroDivisionError):
        log.close("records", mint(), "c", lambda source, sequence: 1 // 0, lambda ok: None)
    await exchange(log)
    assert sequences(tmp_path) == [1]
    await log.aclose()


async def test_a_second_owner_is_refused_by_folder_and_pid(tmp_path):
    # Fails without the lock.
    log = journal(tmp_path)
    log.start()
    with pytest.raises(SinkError, match=rf"{tmp_path}/0: the process with pid {os.getpid()} "):
        journal(tmp_path).start()
    await log.aclose()
    second = journal(tmp_path)
    second.start()
    await second.aclose()


async def test_every_start_has_an_epoch_and_numbers_of_its_own(tmp_path):
    epochs = []
    for _ in range(3):
        log = journal(tmp_path)
        epochs.append(log.start().epoch)
        await exchange(log)
        await log.aclose()
    assert epochs == sorted(set(epochs))
    assert [body["source"] for body in bodies(tmp_path)] == [f"{SOURCE}/{epoch}" for epoch in epochs]
    assert [body["sequence"] for body in bodies(tmp_path)] == [1, 1, 1]


async def test_an_empty_volume_and_a_second_node_of_the_name_have_sources_of_their_own(tmp_path):
    # conservation V4, operator A1. Fails if an epoch is unique in its folder only.
    logs = [journal(tmp_path / volume) for volume in ("lost", "new", "second node")]
    for log in logs:
        log.start()
        await exchange(log)
    for log in logs:
        await log.aclose()
    sources = {body["source"] for volume in tmp_path.iterdir() for body in bodies(volume)}
    assert len(sources) == 3


async def test_segments_rotate_and_nothing_is_lost_between_them(tmp_path):
    log = journal(tmp_path, segment_bytes=2_000)
    log.start()
    for _ in range(60):
        await exchange(log)
    assert len(list((tmp_path / "0").glob("*.seg"))) > 5
    assert sequences(tmp_path) == list(range(1, 61))
    await log.aclose()


async def test_a_checkpoint_is_a_record_that_says_how_far(tmp_path):
    # fountain #503: an outage looked like no usage
    log = journal(tmp_path)
    log.start()
    await exchange(log)
    log.checkpoint(3, "ab12", 0, {"requests": 1})
    await log.aclose()
    event = bodies(tmp_path)[-1]
    assert event["type"] == "sidecar.checkpoint.v1"
    assert event["data"]["highest"] == {"records": 1, "denials": 0}
    assert event["data"]["open_exchanges"] == 3
    assert event["sequence"] == f"{2:018d}"


async def test_a_journal_that_is_full_rejects_but_finishes_what_it_opened(tmp_path):
    # Fails if `accepting` does not look at the cap, or a full journal lets go of an open exchange's record.
    log = journal(tmp_path, cap_bytes=4_000)
    log.start()
    under_way = mint()
    assert await told(log.open, under_way, OPENED)
    while log.accepting():
        await exchange(log)
    assert log.figures.retained_bytes < 4_000
    assert log.figures.full == 1
    assert not await told(log.open, mint(), OPENED)
    log.deny(mint(), DENIED, write)
    assert (log.denials.waiting, log.figures.unrecorded) == (1, 0)
    assert await told(log.close, "records", under_way, "c", write)
    assert entries(tmp_path)[-1].id == under_way
    await log.aclose()


async def test_a_journal_that_is_full_and_serves_counts_what_it_does_not_write(tmp_path):
    # Fails if `unrecorded` is not counted, or an unrecorded exchange takes a number (Kong queue: dropped in silence).
    log = journal(tmp_path, cap_bytes=4_000, on_full="serve")
    log.start()
    while not log.figures.full:
        await exchange(log)
    written = entries(tmp_path)
    assert log.accepting()
    await exchange(log)
    await exchange(log)
    assert log.figures.unrecorded == 2
    log.checkpoint(0, "ab12", 0)
    await log.aclose()
    after = entries(tmp_path)
    assert after[:-1] == written
    assert orjson.loads(after[-1].body)["data"]["unrecorded"] == 2
    assert after[-1].sequence == written[-1].sequence + 1


async def test_denials_never_fill_a_journal_that_is_not_shipped_and_each_is_in_one_record(tmp_path):
    """A client over its limit at 11,000 requests a second filled the cap in seconds; all others were answered 503."""
    # Fails if `deny` does not ask the budget, if its share is not of the cap, or if a summary is lost at the end.
    log = journal(tmp_path, cap_bytes=400_000, denials=DenialOptions(40_000, per_second=200, per_limit=150))
    log.start()
    for _ in range(20):
        for _ in range(100):
            log.deny(mint(), DENIED, write)
            log.deny(mint(), DENIED._replace(customer="other"), write)
        log._tick_denials()
        await asyncio.sleep(0)
    assert log.accepting()
    assert not log.figures.alarm
    retained = log.figures.retained_bytes
    assert 20_000 < retained < 45_000
    await exchange(log)
    log.checkpoint(0, "ab12", 0)
    await log.aclose()
    found = [(entry.stream, orjson.loads(entry.body)) for entry in entries(tmp_path)]
    summaries = [body["data"] for stream, body in found if stream == "denials" and "data" in body]
    alone = sum(stream == "denials" and "data" not in body for stream, body in found)
    assert alone + sum(data["count"] for data in summaries) == log.denials.total == 4_000
    assert {data["customer"] for data in summaries} == {"c", "other"}
    said = [body["data"]["denials"] for stream, body in found if stream == "records" and "data" in body]
    assert said == [4_000], "a checkpoint says how many there were"
    assert log.figures.unrecorded == 0


async def test_denials_of_a_full_journal_are_written_down_when_there_is_room_again(tmp_path):
    # Fails if a full journal drops the counts, or writes summaries into the room that open exchanges need.
    log = journal(tmp_path, cap_bytes=6_000, segment_bytes=1_500, denials=DenialOptions(600, summary_seconds=1))
    log.start()
    while log.accepting():
        await exchange(log)
    for _ in range(50):
        log.deny(mint(), DENIED, write)
    log._tick_denials()
    assert log.denials.waiting == 50
    reader = JournalReader(tmp_path, "0")
    read_all(reader)
    assert reader.free(log._segments.position)
    await until(lambda: not log.denials.waiting)
    await log.aclose()
    [summary] = [entry for entry in read_all(reader) if entry.stream == "denials"]
    assert orjson.loads(summary.body)["data"] | {"first": "", "last": ""} == {
        **DENIED._asdict(), "count": 50, "first": "", "last": "",
    }  # fmt: skip
    reader.close()


async def test_a_full_journal_opens_again_when_it_was_shipped(tmp_path):
    log = journal(tmp_path, cap_bytes=6_000, segment_bytes=1_500)
    log.start()
    while log.accepting():
        await exchange(log)
    reader = JournalReader(tmp_path, "0")
    last = read_all(reader)[-1]
    assert reader.free(last.position_after) > 0
    await until(log.accepting)
    await exchange(log)
    await log.aclose()


async def test_after_the_end_nothing_is_acknowledged(tmp_path):
    log = journal(tmp_path, on_full="serve")
    log.start()
    await log.aclose()
    assert not log.accepting()
    assert not await told(log.open, mint(), OPENED)
    assert not await told(log.close, "records", mint(), "c", write)


async def test_a_clean_end_leaves_the_next_start_nothing_to_read(tmp_path):
    # Fails if the mark is not written, or written while an exchange is open.
    log = journal(tmp_path, segment_bytes=2_000)
    log.start()
    for _ in range(60):
        await exchange(log)
    await log.aclose()
    second = journal(tmp_path)
    assert second.start().segments == 1  # the last one, from its end on
    await second.aclose()


async def test_an_exchange_that_is_open_at_the_end_is_closed_by_the_next_start(tmp_path):
    log = journal(tmp_path)
    log.start()
    id_ = mint()
    assert await told(log.open, id_, OPENED)
    await log.aclose()
    second = journal(tmp_path)
    assert second.start().crashed == 1
    await second.aclose()
    assert [entry.id for entry in entries(tmp_path)] == [id_]


@pytest.mark.parametrize("durability", ["interval", "always"])
async def test_durable_journals_sync_off_the_loop_and_lose_nothing_at_the_end(tmp_path, durability):
    log = journal(tmp_path, durability=durability, interval_us=1_000, segment_bytes=3_000)
    log.start()
    for _ in range(50):
        await exchange(log)
    await log.aclose()
    assert log.figures.syncs > 0
    assert sequences(tmp_path) == list(range(1, 51))


async def test_what_is_open_for_long_is_said_again_so_that_old_segments_can_go(tmp_path):
    # Fails without `_rewrite_long_open`: a tunnel of a day holds each segment of that day until the cap is reached.
    log = journal(tmp_path, segment_bytes=2_000, cap_bytes=1 << 20)
    log._rewrite_every = log._rewrite_at = 1  # as with a cap of a few segments
    epoch = log.start().epoch
    tunnel = mint()
    assert await told(log.open, tunnel, OPENED)
    reader = JournalReader(tmp_path, "0")
    for _ in range(3):
        for _ in range(20):
            await exchange(log)
        log._rewrite_long_open()
    await exchange(log)
    assert reader.free(read_all(reader)[-1].position_after) > 0
    assert not (tmp_path / "0" / segment_name(epoch, 1)).exists()
    await log.aclose()
    second = journal(tmp_path)
    assert second.start().crashed == 1
    await second.aclose()
    assert entries(tmp_path)[-1].id == tunnel


async def test_a_start_after_a_kill_reads_what_was_written_since_the_last_marks_and_finds_what_is_open(tmp_path):
    # Fails if a living worker marks nothing (a start reads all that is not shipped), or marks where it is: the tunnel
    # would have no record.
    log = journal(tmp_path, segment_bytes=2_000, cap_bytes=1 << 20)
    log._rewrite_every = log._rewrite_at = 1
    log.start()
    tunnel, lately = mint(), mint()
    assert await told(log.open, tunnel, OPENED)
    for life in range(8):
        for _ in range(20):
            await exchange(log)
        if life == 7:
            assert await told(log.open, lately, OPENED)
        log.note_settled()
        log._rewrite_long_open()
    await exchange(log)
    log._timers["second"].cancel()
    log._folder.release()  # as a kill would
    second = journal(tmp_path)
    report = second.start()
    await second.aclose()
    assert report.segments < log.figures.rotations / 2
    assert report.crashed == 2
    assert {entry.id for entry in entries(tmp_path)[-2:]} == {tunnel, lately}


@pytest.mark.parametrize("how", ["removed", "replaced", "emptied", "all of it"])
async def test_a_folder_that_was_removed_or_replaced_is_made_anew_and_holds_what_is_open(tmp_path, how):
    # Fails if the file that was open is written on: what it holds has no name, so a kill would lose it.
    directory = tmp_path / "journal"
    log = journal(directory)
    log.start()
    reader = JournalReader(directory, "0")
    early, late = mint(), mint()
    assert await told(log.open, early, OPENED)
    before = [await exchange(log) for _ in range(3)]
    assert [entry.id for entry in read_all(reader)] == before
    unread = await exchange(log)
    if how == "replaced":
        (directory / "0").rename(tmp_path / "old")
        (directory / "0").mkdir()
    elif how == "emptied":
        for path in (directory / "0").iterdir():
            path.unlink()
    else:
        shutil.rmtree(directory / "0" if how == "removed" else directory)
    await until(lambda: list((directory / "0").glob("*.seg")) if (directory / "0").exists() else [])
    assert await told(log.open, late, OPENED)
    after = [await exchange(log) for _ in range(3)]
    assert [entry.id for entry in read_all(reader)] == [unread, *after]  # nothing is lost while the shipper reads on
    assert [entry.id for entry in entries(directory)] == after
    with pytest.raises(SinkError, match="writes this journal"):
        journal(directory).start()
    log._folder.release()  # as a kill does
    again = journal(directory)
    assert again.start().crashed == 2
    await again.aclose()


async def test_a_folder_that_cannot_be_made_anew_breaks_the_journal_until_it_can(tmp_path):
    log = journal(tmp_path / "journal")
    log.start()
    shutil.rmtree(tmp_path / "journal")
    (tmp_path / "journal").write_text("in the way")
    async with asyncio.timeout(10):
        while await told(log.open, mint(), OPENED):  # within the second that it takes to notice
            await asyncio.sleep(0.05)
    assert not log.accepting()
    (tmp_path / "journal").unlink()
    await until(log.accepting)
    assert await exchange(log) in [entry.id for entry in entries(tmp_path / "journal")]
    await log.aclose()


async def test_an_open_entry_that_was_refused_after_a_failed_sync_holds_no_segment_for_ever(tmp_path):
    # It is on the disk and will never be closed. Fails without marks: the worker's journal would fill to its cap.
    disk = FailingDisk()
    log = journal(tmp_path, disk, durability="always", segment_bytes=2_000, cap_bytes=1 << 20)
    log._rewrite_every = log._rewrite_at = 1
    log.start()
    await exchange(log)
    disk.syncs_fail = 10
    assert not await told(log.open, mint(), OPENED)
    disk.syncs_fail = 0
    await until(log.accepting)
    reader = JournalReader(tmp_path, "0")
    for _ in range(5):
        for _ in range(20):
            await exchange(log)
        log.note_settled()
        log._rewrite_long_open()
    await exchange(log)
    assert reader.free(read_all(reader)[-1].position_after) > 5
    await log.aclose()
