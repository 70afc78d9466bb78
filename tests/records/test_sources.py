import asyncio
import contextlib
import tracemalloc

import pytest

from sidecar.core.errors import SinkError
from sidecar.core.record.frame import CLOSE, OPEN, RECORD, encode_frame, segment_name
from sidecar.records import sources
from sidecar.records.sources import RecordSource, bodies, latest, schema_check, verified


def segment(folder, worker, *frames):
    (folder / worker).mkdir(parents=True, exist_ok=True)
    with (folder / worker / segment_name(1, 1)).open("ab") as file:
        for number, (kind, stream, body) in enumerate(frames, 1):
            file.write(encode_frame(kind, stream, number if stream else 0, b"%026d" % number, b"c", body))


async def read(source):
    return [body async for body in bodies(source)]


async def last(source, number):
    return (await latest(source, number))[0]


def at(time, name="x"):
    return b'{"id":"%b","time":"2026-11-30T00:00:%02d.000000Z"}' % (name.encode(), time)


async def test_a_journal_gives_the_records_of_all_workers_and_of_one_stream(tmp_path):
    segment(tmp_path, "0", (OPEN, "", b"{}"), (CLOSE, "records", b"a"), (RECORD, "denials", b"no"))
    segment(tmp_path, "1", (RECORD, "records", b"b"))
    assert sorted(await read(RecordSource("records", journal=tmp_path))) == [b"a", b"b"]
    assert await read(RecordSource("denials", journal=tmp_path)) == [b"no"]


async def test_a_journal_may_begin_late_and_a_file_may_not_unless_it_is_told(tmp_path):
    # Fails if a journal is held to begin with 1: what is shipped of it is removed.
    late = b'{"source":"s","id":"i","sequence":"3"}'
    segment(tmp_path / "j", "0", (CLOSE, "records", late))
    (tmp_path / "x.jsonl").write_bytes(late + b"\n")
    journal, file = RecordSource("records", journal=tmp_path / "j"), RecordSource("records", file=tmp_path / "x.jsonl")
    assert (await verified(journal, schema=False)).whole
    assert not (await verified(file, schema=False)).whole
    assert (await verified(file, schema=False, may_begin_late=True)).whole


async def test_half_a_line_is_not_a_record_yet(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b"1\n2\n3")
    assert await read(RecordSource("records", file=tmp_path / "x.jsonl")) == [b"1", b"2"]
    assert await last(RecordSource("records", file=tmp_path / "x.jsonl"), 1) == [b"2"]


async def test_the_last_ones_are_the_last_by_time_over_all_workers(tmp_path):
    segment(tmp_path, "0", *((CLOSE, "records", at(time, "a")) for time in (1, 4, 5)))
    segment(tmp_path, "1", *((CLOSE, "records", at(time, "b")) for time in (2, 3, 6)))
    # Fails if the last are taken as they are read, one worker after the other.
    assert await last(RecordSource("records", journal=tmp_path), 3) == [at(4, "a"), at(5, "a"), at(6, "b")]
    assert await last(RecordSource("records", journal=tmp_path), 0) == []


async def test_of_a_large_file_the_end_is_looked_at_from_a_whole_line_on(tmp_path, monkeypatch):
    lines = [at(time, "x" * time) for time in range(10)]
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    monkeypatch.setattr(sources, "END_BYTES", 100)
    assert await read(RecordSource("records", file=tmp_path / "x.jsonl")) == lines  # not the last, but all
    for end in range(1, sum(map(len, lines)) + 20):
        monkeypatch.setattr(sources, "END_BYTES", end)
        found = await last(RecordSource("records", file=tmp_path / "x.jsonl"), 100)
        # Fails if the line that the end cuts is shown, or the whole one that begins there is lost.
        assert found == lines[len(lines) - len(found) :]
        more = lines[-len(found) - 1 :]
        assert sum(len(line) + 1 for line in found) <= end
        assert len(found) == 10 or end < sum(len(line) + 1 for line in more)


async def test_what_is_read_is_not_held(tmp_path):
    # review 1.16: all of a file was one list. Fails if a reader collects before it yields.
    with (tmp_path / "x.jsonl").open("wb") as file:
        for _ in range(64):
            file.write((b"x" * 1023 + b"\n") * 1024)
    tracemalloc.start()
    try:
        number = 0
        async for _ in bodies(RecordSource("records", file=tmp_path / "x.jsonl")):
            number += 1
        assert (number, tracemalloc.get_traced_memory()[1] < 4 << 20) == (65_536, True)
    finally:
        tracemalloc.stop()


async def test_following_begins_where_the_last_ones_end(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(at(1) + b"\n")
    source = RecordSource("records", file=path)
    found, begin = await latest(source, 5)
    with path.open("ab") as file:
        file.write(at(2) + b"\n")
    async with asyncio.timeout(10), contextlib.aclosing(bodies(source, begin=begin, follow=True)) as following:
        assert (found, await anext(following)) == ([at(1)], at(2))


async def test_following_goes_on_in_the_new_file_after_a_rotation_and_ends_the_old_one(tmp_path):
    # Fails if the offset of the old file is kept: nothing of the new one was read until it was longer.
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"a\nb\nc\n")
    source = RecordSource("records", file=path, rotated=True)
    _, begin = await latest(source, 1)
    with path.open("ab") as file:
        file.write(b"d\n")
    path.rename(tmp_path / "r.jsonl.1")
    path.write_bytes(b"e\n")
    assert list(begin.more()) == [b"d", b"e"]
    path.write_bytes(b"")  # cut in place
    assert list(begin.more()) == []
    path.write_bytes(b"f\n")
    assert list(begin.more()) == [b"f"]
    path.unlink()
    with pytest.raises(SinkError):
        list(begin.more())


async def test_a_file_that_does_not_exist_is_empty_only_where_it_may_be_missing(tmp_path):
    source = RecordSource("records", file=tmp_path / "x.jsonl")
    with pytest.raises(SinkError, match=r"x\.jsonl: cannot be read: No such file"):
        await read(source)
    assert (await latest(source, 5, may_be_missing=True))[0] == []


def test_a_record_is_held_to_the_schema_of_its_own_kind():
    check = schema_check()
    assert check({"type": "sidecar.nonsense.v1"}) == "type 'sidecar.nonsense.v1' is not one of ours"
    assert "is a required property" in check({"type": "sidecar.usage.v1"})
