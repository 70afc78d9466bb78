import os
import random
import threading
import time
import zlib

import pytest

from sidecar.core.errors import LostStretchError, SinkError
from sidecar.core.record.frame import (
    CLOSE,
    HEAD,
    HEADER_BYTES,
    NO_ID,
    OPEN,
    PAYLOAD_MAX,
    PROGRESS,
    RECORD,
    Frame,
    Position,
    encode_frame,
    scan,
    segment_name,
)
from sidecar.edge.journal import reader as journal_reader
from sidecar.edge.journal.folder import Folder
from sidecar.edge.journal.reader import JournalReader
from tests.edge.journal.logs import read_all

START = encode_frame(HEAD, "", 0, NO_ID, b"", b"{}")


def id_of(number):
    return b"%026d" % number


def opened(number):
    return encode_frame(OPEN, "", 0, id_of(number), b"", b"{}")


def closed(sequence, number=None, body=b"body"):
    return encode_frame(CLOSE, "records", sequence, id_of(sequence if number is None else number), b"c", body)


def denied(sequence):
    return encode_frame(RECORD, "denials", sequence, id_of(900 + sequence), b"c", b"no")


class Log:
    """A worker's folder, written by hand."""

    def __init__(self, directory, worker="0"):
        self.directory, self.worker, self.folder = directory, worker, directory / worker
        self.folder.mkdir(parents=True)

    def write(self, epoch, segment, *frames):
        with (self.folder / segment_name(epoch, segment)).open("ab") as file:
            if file.tell() == 0:
                file.write(START)
            file.write(b"".join(frames))

    def reader(self, position=None):
        return JournalReader(self.directory, self.worker, position)

    def segments(self):
        return sorted(path.name for path in self.folder.glob("*.seg"))


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path)


def numbers(batch):
    return [(entry.stream, entry.sequence) for entry in batch]


def records(*sequences):
    return [("records", sequence) for sequence in sequences]


def test_records_come_in_order_through_rotation_and_epochs(log):
    log.write(1, 1, opened(1), closed(1), denied(1))
    log.write(1, 2, closed(2))
    log.write(2, 1, closed(1), closed(2))
    found = read_all(log.reader())
    assert numbers(found) == [("records", 1), ("denials", 1), ("records", 2), ("records", 1), ("records", 2)]
    assert [entry.position_after[:2] for entry in found] == [(1, 1), (1, 1), (1, 2), (2, 1), (2, 1)]
    assert found[0].key == b"c"
    assert found[0].body == b"body"


def test_reading_goes_on_exactly_behind_any_position(log):
    # Fails if a position is where an entry begins, or reading from one repeats or skips.
    log.write(1, 1, *(closed(n) for n in range(1, 6)))
    log.write(1, 2, *(closed(n) for n in range(6, 9)))
    log.write(2, 1, *(closed(n) for n in range(1, 4)))
    found = read_all(log.reader())
    for n, entry in enumerate(found):
        reader = log.reader(Position.parse(str(entry.position_after)))
        assert read_all(reader) == found[n + 1 :]
        assert reader.figures.missing == reader.figures.duplicates == 0


def test_a_batch_is_bounded_by_its_bodies_and_never_empty(log):
    log.write(1, 1, *(closed(n, body=b"x" * 100) for n in range(1, 11)))
    reader = log.reader()
    assert [len(reader.read(250)) for _ in range(4)] == [3, 3, 3, 1]
    assert log.reader().read(1)[0].sequence == 1


def test_a_segment_that_grows_is_followed_and_half_a_frame_is_waited_for(log):
    # Fails if half a frame at the end of what is still being written is taken for damage.
    whole = closed(2)
    log.write(1, 1, closed(1))
    reader = log.reader()
    assert numbers(read_all(reader)) == records(1)
    for cut in range(len(whole)):
        assert reader.read(1 << 20) == []
        log.write(1, 1, whole[cut : cut + 1])
    assert numbers(read_all(reader)) == records(2)
    assert reader.figures.torn_bytes == reader.figures.corrupt == 0


def test_what_was_written_between_the_last_read_and_a_rotation_is_read(log, monkeypatch):
    # Fails if a segment is left as soon as a later one is seen: its last frames may not have been read.
    log.write(1, 1, closed(1))
    reader = log.reader()
    read_all(reader)
    listed, rest = Folder.segments, [(1, 1, closed(2)), (1, 2, closed(3))]

    def written_before_they_are_listed(folder):
        while rest:
            log.write(*rest.pop(0))
        return listed(folder)

    monkeypatch.setattr(Folder, "segments", written_before_they_are_listed)
    assert numbers(read_all(reader)) == records(2, 3)


def test_a_torn_end_of_an_older_segment_is_skipped_and_counted(log):
    log.write(1, 1, closed(1), closed(2)[:-3])
    log.write(1, 2, closed(2))
    reader = log.reader()
    assert numbers(read_all(reader)) == records(1, 2)
    assert reader.figures.torn_bytes == len(closed(2)) - 3


def test_a_corrupt_stretch_is_skipped_and_its_missing_numbers_are_said(log, caplog):
    # Fails if the reader stops for damage (Vector), or is silent about it (I10).
    bad = bytearray(closed(2))
    bad[-1] ^= 1
    log.write(1, 1, closed(1), bytes(bad), closed(3))
    reader = log.reader()
    assert numbers(read_all(reader)) == records(1, 3)
    assert (reader.figures.corrupt, reader.figures.corrupt_bytes, reader.figures.missing) == (1, len(bad), 1)
    assert "records 2 to 2 are missing" in caplog.text


def test_a_stray_byte_between_two_frames_is_skipped(log):
    # Fails if the search for the next frame begins two bytes on.
    log.write(1, 1, closed(1), b"x", closed(2))
    reader = log.reader()
    assert numbers(read_all(reader)) == records(1, 2)
    assert (reader.figures.corrupt, reader.figures.corrupt_bytes, reader.figures.missing) == (1, 1, 0)


def test_a_corrupt_stretch_longer_than_what_is_read_at_once_is_skipped(log):
    log.write(1, 1, closed(1), bytes(3 << 20), closed(2))
    reader = log.reader()
    assert numbers(read_all(reader)) == records(1, 2)
    assert reader.figures.corrupt_bytes == 3 << 20


def test_what_is_whole_is_read_once_and_no_damage_is_told_of_it(log, monkeypatch, caplog):
    # Mutations: a block's last frame, which is cut off by the block's end, judged as damage may be, by reading all that
    # follows (a segment's worth for each block); or the end of a whole segment told as torn.
    log.write(1, 1, *(frame for n in range(1, 3001) for frame in (opened(n), closed(n, body=b"x" * 700))))
    log.write(1, 2, closed(3001))
    written, asked, pread = sum(path.stat().st_size for path in log.folder.glob("*.seg")), [], os.pread

    def counted(fd, size, offset):
        data = pread(fd, size, offset)
        asked.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", counted)
    assert numbers(read_all(log.reader())) == records(*range(1, 3002))
    assert sum(asked) < 2 * written
    assert caplog.text == ""


@pytest.mark.parametrize("seed", range(60))
def test_damage_of_any_kind_is_judged_as_the_layout_judges_it(log, monkeypatch, seed):
    # The loop over a block takes headers apart by itself; `scan` is its oracle. Fails if either looks at less.
    chance = random.Random(seed)
    monkeypatch.setattr(journal_reader, "_BLOCK_BYTES", chance.choice((60, 300, 1 << 18)))
    whole = b"".join(frame for n in range(1, 30) for frame in (opened(n), closed(n, body=b"x" * chance.randrange(300))))
    data = bytearray(whole)
    for _ in range(chance.randrange(1, 6)):
        at, length = chance.randrange(len(data)), chance.randrange(1, 120)
        data[at : at + length] = chance.choice(
            (
                b"",
                bytes(length),
                whole[at : at + length] * 2,
                b"\xf5SJ\x01",
                bytes([data[at] ^ 1 << chance.randrange(8)]),
            )
        )
    log.write(1, 1, bytes(data))
    log.write(1, 2, closed(30))  # so that what is torn will not grow
    wanted = {30: b"body"}
    for _, frame in scan(START + bytes(data)):
        if isinstance(frame, Frame) and frame.type == CLOSE:
            wanted.setdefault(frame.sequence, frame.body)
    found = read_all(log.reader())
    assert [(entry.sequence, entry.body) for entry in found] == sorted(wanted.items())


def test_a_frame_with_any_byte_of_its_header_damaged_is_none(tmp_path):
    # Fails if the reader or `frame_at` leaves the magic out.
    for place in range(HEADER_BYTES):
        log, bad = Log(tmp_path / str(place)), bytearray(closed(2))
        bad[place] ^= 1
        log.write(1, 1, closed(1), bytes(bad), closed(3))
        reader = log.reader()
        assert numbers(read_all(reader)) == records(1, 3)
        assert (reader.figures.corrupt, reader.figures.corrupt_bytes, reader.figures.missing) == (1, len(bad), 1)


def lengthened(frame, length):
    """The frame with another length and a checksum that fits what is there."""
    made = bytearray(frame)
    made[12:16] = length.to_bytes(4, "little")
    made[4:8] = zlib.crc32(made[8:], zlib.crc32(made[:4])).to_bytes(4, "little")
    return bytes(made)


def test_half_a_frame_whose_checksum_fits_by_chance_is_none(log):
    # Fails if a frame may end behind what was read.
    log.write(1, 1, lengthened(closed(1), 200))
    assert log.reader().read(1 << 20) == []


def test_a_frame_longer_than_any_may_be_is_none(log):
    # Fails if the checksum alone is believed.
    huge = closed(1, body=b"") + b"x" * (PAYLOAD_MAX - 26)
    log.write(1, 1, lengthened(huge, PAYLOAD_MAX + 1), closed(2))
    assert numbers(read_all(log.reader())) == records(2)


def test_a_position_within_a_frame_is_reported_and_that_frame_is_read(log):
    # It is another journal's. Fails if what stands before such a position is taken for damage, and skipped.
    log.write(1, 1, closed(1), closed(2), closed(3))
    second = read_all(log.reader())[1]
    reader = log.reader(second.position_after._replace(offset=second.end - 5))
    with pytest.raises(LostStretchError, match="lacks 0 bytes"):
        reader.read(1 << 20)
    assert numbers(read_all(reader)) == records(2, 3)


def test_a_position_behind_damage_is_where_reading_goes_on(log, caplog):
    # Fails if the shipper stops for damage to what it had shipped (it could not be passed, and was no torn end).
    log.write(1, 1, closed(1), closed(2))
    position = read_all(log.reader())[-1].position_after
    path = log.folder / segment_name(1, 1)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    reader = log.reader(position)
    assert reader.read(1 << 20) == []
    log.write(1, 1, closed(3))
    assert numbers(read_all(reader)) == records(3)
    assert (reader.figures.corrupt, reader.figures.corrupt_bytes) == (1, len(closed(2)))
    assert "are corrupt, but were shipped" in caplog.text


def test_a_record_of_the_greatest_length_is_read_among_small_ones(log):
    # Fails if no more than a block is ever read: a frame that is longer would look like damage.
    greatest = closed(2, body=b"x" * (PAYLOAD_MAX - 27))
    log.write(1, 1, closed(1), greatest, closed(3))
    reader = log.reader()
    found = read_all(reader)
    assert numbers(found) == records(1, 2, 3)
    assert len(found[1].body) == PAYLOAD_MAX - 27
    assert reader.figures.corrupt == reader.figures.torn_bytes == 0
    assert numbers(read_all(log.reader(found[1].position_after))) == records(3)


def test_what_lies_before_a_frame_of_a_newer_version_is_read_first(log):
    # Fails if a block is given up as a whole for a frame in it that is not for us.
    newer = bytearray(closed(2))
    newer[3] = 3
    newer[4:8] = zlib.crc32(newer[8:], zlib.crc32(newer[:4])).to_bytes(4, "little")
    log.write(1, 1, closed(1), bytes(newer))
    reader = log.reader()
    assert numbers(reader.read(1 << 20)) == records(1)
    with pytest.raises(SinkError, match="journal version 3"):
        reader.read(1 << 20)


def test_what_was_written_again_after_a_failed_sync_is_read_once(log):
    # Fails if numbers are not compared; openmeter #4485, lago #4725: a year of duplicates.
    log.write(1, 1, closed(1), closed(2), denied(1), closed(3))
    log.write(1, 2, closed(2), denied(1), closed(3), closed(4))
    reader = log.reader()
    assert numbers(read_all(reader)) == [("records", 1), ("records", 2), ("denials", 1), ("records", 3), ("records", 4)]
    assert reader.figures.duplicates == 3


def test_what_was_written_again_is_known_after_a_restart_of_the_reader_too(log):
    # Fails if a reader that begins at a position does not look back.
    log.write(1, 1, closed(1), closed(2), closed(3))
    log.write(1, 2, closed(2), closed(3), closed(4))
    entry = read_all(log.reader())[2]
    assert numbers(read_all(log.reader(entry.position_after))) == records(4)


def test_the_first_numbers_of_an_epoch_are_missed_where_its_first_segment_is_there(log, caplog):
    # Fails if numbers count from the first one that is read.
    log.write(1, 1, closed(3))
    log.write(2, 1, closed(1), closed(2))
    log.write(3, 1, closed(2))
    reader = log.reader()
    assert numbers(read_all(reader)) == records(3, 1, 2, 2)
    assert reader.figures.missing == 3
    assert "records 1 to 2 are missing" in caplog.text
    assert "records 1 to 1 are missing" in caplog.text


def test_what_was_freed_of_an_epoch_is_not_missed(log):
    # Fails if numbers count from 1 in every segment that is read first.
    log.write(1, 2, closed(3), denied(2))
    reader = log.reader()
    assert len(read_all(reader)) == 2
    assert reader.figures.missing == 0


def test_a_segment_is_freed_when_all_in_it_is_committed(log):
    for segment in (1, 2, 3):
        log.write(1, segment, opened(segment), closed(segment))
    reader = log.reader()
    found = read_all(reader)
    assert reader.free(found[0].position_after) == 0
    assert reader.free(found[2].position_after) == 2
    assert log.segments() == [segment_name(1, 3)]


def test_nothing_is_freed_from_the_segment_of_an_open_exchange_on(log):
    # Fails if an OPEN can go: after a kill -9 nothing would tell of that exchange. Fails, too, if the CLOSE of an
    # exchange can go before its OPEN: a recovery would bill it again.
    log.write(1, 1, closed(1))
    log.write(1, 2, opened(77), opened(2))
    log.write(1, 3, closed(2))
    log.write(1, 4, closed(3))
    reader = log.reader()
    last = read_all(reader)[-1].position_after
    assert reader.free(last) == 1
    assert log.segments()[0] == segment_name(1, 2)
    again = log.reader(last)
    assert again.read(1 << 20) == []
    assert again.free(last) == 0
    log.write(1, 4, closed(4, 77))
    assert again.free(read_all(again)[-1].position_after) == 2


def test_progress_lets_the_segment_of_the_open_go(log):
    log.write(1, 1, opened(77), closed(1))
    log.write(1, 2, encode_frame(PROGRESS, "", 0, id_of(77), b"", b"{}"), closed(2))
    reader = log.reader()
    assert reader.free(read_all(reader)[-1].position_after) == 1


def test_a_record_that_is_read_and_not_committed_keeps_its_open_entry(log):
    # Fails if an exchange counts as closed when its record is read, not when it is committed.
    log.write(1, 1, opened(1), closed(9))
    log.write(1, 2, closed(10), closed(11, 1))
    reader = log.reader()
    found = read_all(reader)
    assert reader.free(found[1].position_after) == 0
    assert reader.free(found[2].position_after) == 1


def lost_at(reader):
    with pytest.raises(LostStretchError) as caught:
        reader.read(1 << 20)
    return caught.value


def test_a_segment_that_lost_its_end_is_passed_and_its_loss_told_once(log):
    # review 1.2, RAN: `durability: os`, a power cut, and nothing was shipped any more. Fails if the read is refused.
    log.write(1, 1, closed(1), closed(2), closed(3))
    position = read_all(log.reader())[-1].position_after
    os.truncate(log.folder / segment_name(1, 1), position.offset - len(closed(3)) - 7)
    log.write(2, 1, closed(1), closed(2))
    reader = log.reader(position)
    kept = position.offset - len(closed(3)) - len(closed(2))
    assert lost_at(reader).lost_bytes == position.offset - kept
    found = read_all(reader)
    assert numbers(found) == records(1, 2)
    assert reader.free(found[-1].position_after) == 1
    again = log.reader(found[-1].position_after)  # what is committed after it
    assert read_all(again) == []


def test_nothing_is_read_again_of_an_old_copy_of_a_journal_that_is_shipped_elsewhere(log):
    # A restored backup, or `sidecar ship` of a copy. Fails if reading goes on from the copy's end: the position would
    # be moved back, and the real journal's records would be shipped a second time.
    log.write(1, 1, closed(1), closed(2))
    shipped = read_all(log.reader())[-1].position_after
    reader = log.reader(shipped._replace(offset=shipped.offset + 5 * len(closed(3))))
    lost_at(reader)
    log.write(1, 1, closed(3))
    assert read_all(reader) == []


@pytest.mark.parametrize("position", [Position(1, 2, 500), Position(1, 9, 500)])
def test_a_segment_that_is_gone_with_the_position_in_it_is_told_and_the_next_is_read(log, position):
    # A new file's name may be lost by a power cut. The shipper itself never frees the segment of its position.
    log.write(1, 1, closed(1))
    if position.segment == 2:
        log.write(1, 3, closed(7))
    reader = log.reader(position)
    assert lost_at(reader).lost_bytes == 500
    log.write(2, 1, closed(1))
    assert numbers(read_all(reader)) == (records(7, 1) if position.segment == 2 else records(1))


def test_a_reader_that_failed_while_it_looked_back_begins_again(log, monkeypatch):
    # Fails if it goes on from where it failed: committed records would be read again.
    log.write(1, 1, closed(1), closed(2), closed(3))
    reader = log.reader(read_all(log.reader())[1].position_after)
    with monkeypatch.context() as broken:
        broken.setattr(os, "pread", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(OSError, match="Input"):
            reader.read(1 << 20)
    assert numbers(read_all(reader)) == records(3)


def test_an_exchange_whose_close_was_damaged_holds_no_segment_once_the_worker_has_marked_it_closed(log):
    # Fails if the reader believes its own pairs alone: no later start would look at that exchange again.
    bad = bytearray(closed(2))
    bad[-1] ^= 1
    log.write(1, 1, opened(2), bytes(bad))
    log.write(1, 2, closed(3))
    log.write(2, 1, closed(1))
    reader = log.reader()
    last = read_all(reader)[-1].position_after
    assert reader.free(last) == 0
    (log.folder / "closed").write_text("1.2.0")
    assert reader.free(last) == 2


def test_a_journal_from_the_future_is_refused_by_file_and_version(log):
    head = bytearray(START)
    head[3] = 3
    head[4:8] = zlib.crc32(head[8:], zlib.crc32(head[:4])).to_bytes(4, "little")
    log.write(1, 1, closed(1))
    (log.folder / segment_name(1, 2)).write_bytes(bytes(head))
    reader = log.reader()
    assert numbers(reader.read(1 << 20)) == records(1)
    with pytest.raises(SinkError, match=r"00000001-00000002\.seg: journal version 3"):
        reader.read(1 << 20)


def test_a_closed_reader_goes_on_where_it_was(log):
    log.write(1, 1, closed(1), closed(2))
    reader = log.reader()
    assert numbers(reader.read(1)) == records(1)
    reader.close()
    assert numbers(read_all(reader)) == records(2)


def test_an_empty_folder_has_nothing_to_read_yet(log):
    reader = log.reader()
    assert reader.read(1) == []
    log.write(1, 1, closed(1))
    assert numbers(reader.read(1)) == records(1)


def test_a_reader_beside_a_writer_sees_every_record_once(log):
    def keep_writing():
        for n in range(1, 4001):
            log.write(1, 1 + n // 500, opened(n), closed(n))

    writer = threading.Thread(target=keep_writing)
    reader, found, deadline = log.reader(), [], time.monotonic() + 60
    writer.start()
    while len(found) < 4000 and time.monotonic() < deadline:
        batch = reader.read(5_000)
        found += batch
        if batch:
            reader.free(batch[-1].position_after)
    writer.join()
    assert numbers(found) == records(*range(1, 4001))
    assert log.segments() == [segment_name(1, 9)]


def test_reading_is_fast(log):
    frames = 40_000
    log.write(1, 1, *(frame for n in range(1, frames // 2 + 1) for frame in (opened(n), closed(n, body=b"x" * 600))))
    began = time.process_time()  # however busy the machine is
    assert len(read_all(log.reader())) == frames // 2
    rate = frames / (time.process_time() - began)
    print(f"reader: {rate:,.0f} frames/s of CPU time")
    assert rate > 20_000  # a tenth of what it does, for slow machines
