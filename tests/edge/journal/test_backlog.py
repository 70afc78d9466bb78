import os
import zlib

import orjson
import pytest

from sidecar.core.record.frame import CLOSE, HEAD, NO_ID, NOTE, OPEN, RECORD, Position, encode_frame, segment_name
from sidecar.edge.journal.backlog import COMMITTED, Backlog, measure, note_committed

START = encode_frame(HEAD, "", 0, NO_ID, b"", b"{}")
ONE_US = 1_795_223_006_123_456  # 2026-11-21T01:03:26.123456Z
NOW_US = ONE_US + 60_000_000


def opened(number):
    return encode_frame(OPEN, "", 0, b"%026d" % number, b"", b"{}")


def closed(number, seconds=26, kind=CLOSE):
    body = orjson.dumps({"time": f"2026-11-21T01:03:{seconds}.123456Z", "data": {}})
    return encode_frame(kind, "records", number, b"%026d" % number, b"c", body)


@pytest.fixture
def folder(tmp_path):
    def write(worker, segment, *frames):
        (tmp_path / worker).mkdir(exist_ok=True)
        (tmp_path / worker / segment_name(7, segment)).write_bytes(START + b"".join(frames))

    return tmp_path, write


def test_the_backlog_is_what_lies_behind_the_noted_positions_and_as_old_as_its_first_record(folder):
    # Fails if the age is that of the last record, or of one that is committed.
    path, write = folder
    write("0", 1, opened(1), closed(1, 20), opened(2), closed(2, 26), closed(4, 35))
    write("0", 2, opened(3), closed(3, 40))
    write("1", 1, closed(1, 50, RECORD))
    size, head, began = len(closed(1)), len(START), len(opened(1))
    first = Position(7, 1, head + began + size)
    note_committed(path, {"0": str(first), "1": str(Position(7, 1, head))})
    assert measure(path, NOW_US) == Backlog(4 * size + 2 * began + head, 60_000_000)
    note_committed(path, {"0": str(Position(7, 2, head + began + size)), "1": str(Position(7, 1, head))})
    assert measure(path, NOW_US) == Backlog(size, 36_000_000)


def test_without_a_note_all_of_the_journal_waits(folder):
    path, write = folder
    write("0", 1, closed(1))
    for text in (None, b"", b"[]", b"torn{", b'{"0":"no position"}'):
        if text is not None:
            (path / COMMITTED).write_bytes(text)
        assert measure(path, NOW_US) == Backlog(len(START) + len(closed(1)), 60_000_000)


def test_exchanges_under_way_are_no_record_that_waits(folder):
    path, write = folder
    write("0", 1, closed(1), opened(2), opened(3))
    note_committed(path, {"0": str(Position(7, 1, len(START) + len(closed(1))))})
    assert measure(path, NOW_US) == Backlog(2 * len(opened(2)), 0)


# Fails if a note is taken for a record (`type >= CLOSE`: it has no time, so its age was that since 1970), or counted.
def test_notes_do_not_wait_to_be_shipped(folder):
    path, write = folder
    note = encode_frame(NOTE, "", 0, NO_ID, b"", b'{"wallet":{"do":"grant"}}')
    write("0", 1, closed(1), note, note)
    note_committed(path, {"0": str(Position(7, 1, len(START) + len(closed(1))))})
    assert measure(path, NOW_US) == Backlog(0, 0)
    write("0", 1, closed(1), note, opened(2), note, closed(2, 30), note)
    assert measure(path, NOW_US) == Backlog(len(opened(2)) + len(closed(2)) + len(note), 56_000_000)


def test_a_position_beyond_its_segment_and_damage_are_counted_as_far_as_they_go(folder):
    # operator A4: -5461. Fails if the position is subtracted, or if damage ends the search for a record.
    path, write = folder
    write("0", 1, closed(1))
    note_committed(path, {"0": "7.1.6577"})
    assert measure(path, NOW_US) == Backlog(0, 0)
    write("0", 2, b"damaged" * 9, closed(2, 30), closed(3, 31)[:-3])
    assert measure(path, NOW_US).oldest_us == 56_000_000


def test_a_journal_of_a_newer_version_waits_for_as_long_as_its_segment_was_not_written_to(folder):
    # Fails if the version is raised: /readyz and /metrics were answered 500 after a downgrade. Fails, too, if such a
    # journal is left out: a stop would say that all is shipped.
    path, write = folder
    newer = bytearray(closed(2, 50))
    newer[3] = 9
    newer[4:8] = zlib.crc32(newer[8:], zlib.crc32(newer[:4])).to_bytes(4, "little")
    write("0", 1, opened(1), bytes(newer))
    write("1", 1, closed(1, 56))
    written_us = NOW_US - 45_000_000
    os.utime(path / "0" / segment_name(7, 1), ns=(0, written_us * 1000))
    size = 2 * len(START) + len(opened(1)) + 2 * len(newer)
    assert measure(path, NOW_US) == Backlog(size, 45_000_000)


def test_a_journal_that_cannot_be_read_is_left_out(folder):
    # Fails if the error is raised.
    path, write = folder
    (path / "0" / segment_name(7, 1)).mkdir(parents=True)
    write("1", 1, closed(1))
    assert measure(path, NOW_US) == Backlog(len(START) + len(closed(1)), 60_000_000)


def test_a_clock_that_went_back_still_says_that_a_record_waits(folder):
    path, write = folder
    write("0", 1, closed(1))
    assert measure(path, ONE_US - 5).oldest_us == 1


def test_no_folder_is_no_backlog(tmp_path):
    assert measure(tmp_path / "nowhere", NOW_US) == Backlog(0, 0)
