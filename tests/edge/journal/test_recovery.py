import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import orjson
import pytest
from jsonschema import Draft202012Validator

from sidecar.core.errors import SinkError
from sidecar.core.record import record_schema
from sidecar.core.record.frame import CLOSE, HEAD, NO_ID, OPEN, encode_frame, segment_name
from sidecar.edge.journal.folder import Folder
from sidecar.edge.journal.reader import JournalReader
from sidecar.edge.journal.recovery import look_back
from tests.edge.journal.logs import OPENED, bodies, entries, exchange, journal, mint, sequences

ROOT = Path(__file__).parents[3]
KILLS = int(os.environ.get("JOURNAL_KILLS", "100"))

validator = Draft202012Validator(record_schema())
IDS = [b"%026d" % n for n in range(8)]
FRAMES = [encode_frame(HEAD, "", 0, NO_ID, b"", b"{}")]
for number in range(1, 4):
    FRAMES.append(encode_frame(OPEN, "", 0, IDS[number], b"", OPENED))
    FRAMES.append(encode_frame(CLOSE, "records", number, IDS[number], b"c", b'{"n":%d}' % number))
LOG = b"".join(FRAMES)
ENDS = [sum(map(len, FRAMES[: n + 1])) for n in range(len(FRAMES))]


def folder_with(tmp_path, *segments):
    folder = Folder(tmp_path / "0")
    folder.path.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(segments, 1):
        (folder.path / segment_name(1, number)).write_bytes(data)
    return folder


def size_of(folder, number=1):
    return (folder.path / segment_name(1, number)).stat().st_size


def test_a_cut_at_every_byte_of_the_last_records_is_cut_to_the_last_whole_one(tmp_path):
    # Fails if the torn tail stays, is not counted, or takes a whole frame with it.
    for cut in range(ENDS[2], len(LOG)):
        folder = folder_with(tmp_path, LOG[:cut])
        found = look_back(folder)
        whole = max(end for end in ENDS if end <= cut)
        assert (size_of(folder), found.torn_bytes, found.corrupt) == (whole, cut - whole, 0)
        opened = {IDS[number] for number in (2, 3) if ENDS[2 * number - 1] <= cut < ENDS[2 * number]}
        assert set(found.open) == opened


@pytest.mark.parametrize("bit", [0, 3, 7])
def test_a_flipped_bit_is_set_aside_where_records_follow_and_cut_where_none_do(tmp_path, bit):
    for at in range(ENDS[2], len(LOG)):
        data = bytearray(LOG)
        data[at] ^= 1 << bit
        for left in tmp_path.glob("0/*.bad"):
            left.unlink()
        folder = folder_with(tmp_path, bytes(data))
        found = look_back(folder)
        hit = next(n for n, end in enumerate(ENDS) if at < end)
        length, start = len(FRAMES[hit]), ENDS[hit - 1]
        if hit == len(FRAMES) - 1:
            assert (found.torn_bytes, found.corrupt, size_of(folder)) == (length, 0, start)
        else:
            assert (found.corrupt, found.corrupt_bytes, size_of(folder)) == (1, length, len(LOG))
            aside = folder.path / f"{segment_name(1, 1)}.{start}.bad"
            assert aside.read_bytes() == bytes(data[start : start + length])


def test_zeroed_pages_at_the_end_are_cut(tmp_path):
    folder = folder_with(tmp_path, LOG + bytes(4096))
    assert look_back(folder).torn_bytes == 4096
    assert size_of(folder) == len(LOG)
    assert look_back(folder).torn_bytes == 0


def test_an_exchange_may_close_in_a_later_segment_or_epoch(tmp_path):
    folder = folder_with(tmp_path, b"".join(FRAMES[:2]), b"".join(FRAMES[:1] + FRAMES[2:]))
    assert look_back(folder).open == {}


def test_empty_and_foreign_files_stop_nothing(tmp_path):
    folder = folder_with(tmp_path, b"", LOG)
    (folder.path / "notes.txt").write_text("kept")
    assert look_back(folder).segments == 2


def from_the_future():
    data = bytearray(FRAMES[0])
    data[3] = 2
    data[4:8] = zlib.crc32(data[8:], zlib.crc32(data[:4])).to_bytes(4, "little")
    return bytes(data)


async def test_a_journal_from_the_future_is_refused_by_file_and_version(tmp_path):
    # Fails if its frames are taken for damage, cut off, or counted as none.
    folder = folder_with(tmp_path, LOG, from_the_future())
    with pytest.raises(SinkError, match=r"00000001-00000002\.seg: journal version 2; this sidecar reads version 1"):
        journal(tmp_path).start()
    assert size_of(folder, 2) == len(FRAMES[0])
    assert not (folder.path / "epoch").exists()
    folder.own()  # the refused start let go of it
    folder.release()


async def test_what_was_open_is_closed_once_however_often_a_recovery_is_killed(tmp_path):
    # Fails if recovery does not look at the epochs that earlier recoveries wrote.
    folder_with(tmp_path, b"".join(FRAMES[:2]) + encode_frame(OPEN, "", 0, IDS[5], b"", OPENED))
    log = journal(tmp_path)
    report = log.start()
    assert report.crashed == 2
    await log.aclose()
    first = tmp_path / "0" / segment_name(report.epoch, 1)
    written = first.read_bytes()
    for cut in range(0, len(written), 97):  # the recovery was killed when so much was on disk
        for path in (tmp_path / "0").glob("*.seg"):
            if path.name > first.name:
                path.unlink()
        (tmp_path / "0" / "epoch").write_text(str(report.epoch))
        (tmp_path / "0" / "closed").unlink(missing_ok=True)
        first.write_bytes(written[:cut])
        for _ in range(2):
            log = journal(tmp_path)
            log.start()
            await log.aclose()
        assert sorted(entry.id for entry in entries(tmp_path)) == [IDS[1], IDS[5]]
    assert {body["data"]["outcome"] for body in bodies(tmp_path)} == {"crashed"}


@pytest.mark.parametrize("body", [b"\xff", b"[]", b"{}", b'{"plan":7}', OPENED.replace(b"time_us", b"later")])
async def test_an_open_entry_that_cannot_be_read_is_closed_by_a_record_and_holds_no_segment(tmp_path, caplog, body):
    # Fails if it has no CLOSE: the reader would keep all later segments for ever, and nothing would be recorded.
    folder = folder_with(tmp_path, FRAMES[0] + encode_frame(OPEN, "", 0, IDS[5], b"", body) + FRAMES[1])
    log = journal(tmp_path)
    assert log.start().crashed == 2
    assert "cannot be read" in caplog.text
    await exchange(log)
    await log.aclose()
    found = entries(tmp_path)
    assert [(entry.sequence, entry.id) for entry in found[:2]] == [(1, IDS[5]), (2, IDS[1])]
    assert all(validator.is_valid(orjson.loads(entry.body)) for entry in found[:2])
    reader = JournalReader(tmp_path, "0")
    reader.read(1 << 20)
    assert reader.free(found[-1].position_after) == 1
    assert folder.segments()[0][0] > 1


async def test_the_units_of_what_was_closed_are_reported(tmp_path):
    # conservation V10: the totals of checkpoints left them out.
    opens = [encode_frame(OPEN, "", 0, IDS[n], b"", OPENED) for n in range(3)]
    folder_with(tmp_path, FRAMES[0] + b"".join(opens))
    log = journal(tmp_path)
    report = log.start()
    await log.aclose()
    assert (report.crashed, report.usage, log.figures.records) == (3, {"requests": 3}, 3)


async def test_a_normal_start_reads_only_what_the_last_process_wrote(tmp_path):
    for _ in range(3):
        log = journal(tmp_path, segment_bytes=500)
        log.start()
        await exchange(log)
        await log.aclose()
    log = journal(tmp_path)
    assert log.start().segments == 1
    log.open(mint(), OPENED, lambda ok: None)
    await log.aclose()
    assert sequences(tmp_path) == [1, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_journal_whose_writers_are_killed_at_random_times_loses_and_doubles_nothing(tmp_path, seed):
    # Fails without OPEN (opened exchanges vanish), with `then` before the write (acknowledged records vanish), with
    # the freeing of any segment but the oldest (exchanges are billed twice), and without the reader's look back.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    victim = [sys.executable, Path(__file__).with_name("victim.py"), tmp_path, str(KILLS // 2), str(seed)]
    done = subprocess.run(victim, env=environment, capture_output=True, check=True, text=True)
    said = json.loads(done.stdout)
    found = [id_ for id_, _ in said["shipped"]]
    acknowledged = {id_ for what, id_ in said["told"] if what in "OC"}
    assert len(acknowledged) > KILLS  # and not only starts
    assert acknowledged <= set(found)
    assert len(found) == len(set(found))
    assert said["missing"] == 0
    assert said["segments_left"] < 10  # of hundreds; lives that ended before their first record leave an empty one
