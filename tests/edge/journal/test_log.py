import asyncio
import os

import orjson
import pytest

from sidecar.core.errors import SinkError
from sidecar.edge.journal_reader import JournalReader
from tests.edge.journal.logs import (
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
    log.start()
    ids = [await exchange(log) for _ in range(5)]
    found = entries(tmp_path)  # while it is being written
    assert [entry.id for entry in found] == ids
    assert [entry.sequence for entry in found] == [1, 2, 3, 4, 5]
    assert found[0].key == b"c"
    assert orjson.loads(found[4].body) == {"source": f"{SOURCE}/1", "sequence": 5}
    await log.aclose()


async def test_each_stream_has_its_own_numbers(tmp_path):
    log = journal(tmp_path)
    log.start()
    for stream in ("records", "denials", "denials", "records"):
        assert await told(log.close, stream, mint(), "c", write)
    assert [(entry.stream, entry.sequence) for entry in entries(tmp_path)] == [
        ("records", 1), ("denials", 1), ("denials", 2), ("records", 2),
    ]  # fmt: skip
    assert bodies(tmp_path)[1]["source"] == f"{SOURCE}/1/denials"
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
    for epoch in (1, 2, 3):
        log = journal(tmp_path)
        assert log.start().epoch == epoch
        await exchange(log)
        await log.aclose()
    assert [body["source"] for body in bodies(tmp_path)] == [f"{SOURCE}/{epoch}" for epoch in (1, 2, 3)]
    assert [body["sequence"] for body in bodies(tmp_path)] == [1, 1, 1]


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
    assert not await told(log.close, "denials", mint(), "c", write)
    assert log.figures.unrecorded == 1
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
    assert sum(log.figures.sync_buckets) == log.figures.syncs
    assert sequences(tmp_path) == list(range(1, 51))


async def test_progress_is_what_a_crash_record_says(tmp_path):
    log = journal(tmp_path)
    log.start()
    stream = mint()
    assert await told(log.open, stream, OPENED)
    log.progress(stream, OPENED.replace(b'{"requests":1}', b'{"requests":1,"tokens":512}'))
    log.progress(mint(), OPENED)  # of no open exchange: not written
    await log.aclose()
    second = journal(tmp_path)
    assert second.start().crashed == 1
    await second.aclose()
    assert bodies(tmp_path)[0]["data"]["usage"] == {"requests": 1, "tokens": 512}


async def test_what_is_open_for_long_is_said_again_so_that_old_segments_can_go(tmp_path):
    # Fails without `_carry`: one tunnel of a day would hold every segment of that day, until the cap is reached.
    log = journal(tmp_path, segment_bytes=2_000, cap_bytes=1 << 20)
    log._carry_every = log._carry_at = 1  # as with a cap of a few segments
    log.start()
    tunnel = mint()
    assert await told(log.open, tunnel, OPENED)
    reader = JournalReader(tmp_path, "0")
    for _ in range(3):
        for _ in range(20):
            await exchange(log)
        log._carry()
    await exchange(log)
    assert reader.free(read_all(reader)[-1].position_after) > 0
    assert not (tmp_path / "0" / "00000001-00000001.seg").exists()
    await log.aclose()
    second = journal(tmp_path)
    assert second.start().crashed == 1
    await second.aclose()
    assert entries(tmp_path)[-1].id == tunnel
