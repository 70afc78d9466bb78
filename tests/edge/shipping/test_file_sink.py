"""The file sink exactly once, the stdout sink at least once. The kills at random are in test_shipper.py."""

import errno
import os
from pathlib import Path

import orjson
import pytest

from sidecar.core.errors import SinkError
from sidecar.edge.shipping import file_sink
from sidecar.edge.shipping.file_sink import FileSink, StdoutSink, own_file
from tests.edge.kafka.topics import record


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / "records.jsonl"


def records(first, last, **kind):
    return [record(number, **kind) for number in range(first, last + 1)]


def numbers(path):
    return [int(orjson.loads(line)["sequence"]) for line in path.read_bytes().splitlines()]


async def reopened(path):
    sink = FileSink(path)
    return sink, await sink.open()


async def test_records_and_denials_go_to_files_of_their_own_and_the_position_is_kept(path):
    sink, positions = await reopened(path)
    assert positions == {}
    await sink.commit([*records(1, 3), record(1, stream="denials")], {"0": "p3"})
    await sink.commit(records(4, 5), {"1": "q"})
    await sink.close()
    sink, positions = await reopened(path)
    await sink.close()
    assert positions == {"0": "p3", "1": "q"}
    assert numbers(path) == [1, 2, 3, 4, 5]
    assert numbers(path.with_name("records.denials.jsonl")) == [1]


async def test_what_was_written_and_not_committed_is_cut_off(path):
    # Fails if `_open_at` does not truncate: the same records would be written again behind it.
    sink, _ = await reopened(path)
    await sink.commit(records(1, 3), {"0": "3"})
    with path.open("ab") as file:
        file.write(record(4).body + b"\n" + record(5).body[:20])
    await sink.close()
    sink, positions = await reopened(path)
    assert positions == {"0": "3"}
    await sink.commit(records(4, 6), {"0": "6"})
    await sink.close()
    assert numbers(path) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("at", ["write_all", "fdatasync", "replace"])
async def test_a_disk_that_fails_at_any_step_neither_loses_nor_doubles(path, monkeypatch, at):
    # Fails if positions or lengths are remembered before the positions file is replaced.
    sink, _ = await reopened(path)
    await sink.commit(records(1, 3), {"0": "3"})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        target = {"write_all": (file_sink, "write_all"), "fdatasync": (os, "fdatasync"), "replace": (Path, "replace")}[
            at
        ]
        broken.setattr(*target, full)
        with pytest.raises(SinkError, match="No space left"):
            await sink.commit(records(4, 6), {"0": "6"})
    assert await sink.open() == {"0": "3"}
    await sink.commit(records(4, 6), {"0": "6"})
    await sink.close()
    assert numbers(path) == [1, 2, 3, 4, 5, 6]


async def test_a_file_that_was_cut_by_another_hand_is_an_error_that_says_what_to_do(path):
    sink, _ = await reopened(path)
    await sink.commit(records(1, 3), {"0": "3"})
    await sink.close()
    os.truncate(path, 10)
    with pytest.raises(SinkError, match=r"10 bytes, and .* put back what was cut, or move the file away"):
        await sink.open()
    await sink.close()


async def test_a_file_that_was_moved_away_is_begun_anew_from_where_it_ended(path):
    sink, _ = await reopened(path)
    await sink.commit(records(1, 3), {"0": "3"})
    await sink.close()
    path.rename(path.with_name("old.jsonl"))
    sink, positions = await reopened(path)
    assert positions == {"0": "3"}
    await sink.commit(records(4, 4), {"0": "4"})
    await sink.commit(records(5, 5), {"0": "5"})
    await sink.close()
    sink, _ = await reopened(path)
    await sink.close()
    assert numbers(path) == [4, 5]


# Fails if the sink goes on in the file that was moved away.
async def test_a_file_is_rotated_while_the_sink_is_open(path):
    sink, _ = await reopened(path)
    await sink.commit(records(1, 3), {"0": "3"})
    old = path.rename(path.with_suffix(".1"))
    await sink.commit(records(4, 5), {"0": "5"})
    await sink.commit(records(6, 6), {"0": "6"})
    await sink.close()
    assert (numbers(old), numbers(path)) == ([1, 2, 3], [4, 5, 6])
    sink, positions = await reopened(path)
    await sink.close()
    assert positions == {"0": "6"}


# Fails if the length of the old file is noted until the commit ends: the new file would look as if it had been cut.
async def test_a_crash_in_the_commit_after_a_rotation_neither_loses_nor_doubles(path, monkeypatch):
    for is_open in (True, False):
        sink, _ = await reopened(path)
        await sink.commit(records(1, 30), {"0": "30"})
        if not is_open:
            await sink.close()
        path.rename(path.with_suffix(".1"))
        if not is_open:
            sink, _ = await reopened(path)

        def killed(*_):
            raise OSError(errno.EIO, "killed")

        with monkeypatch.context() as broken:
            broken.setattr(file_sink.os, "fdatasync", killed)
            with pytest.raises(SinkError):
                await sink.commit(records(31, 31), {"0": "31"})
        await sink.close()
        sink, positions = await reopened(path)
        assert positions == {"0": "30"}
        await sink.commit(records(31, 32), {"0": "32"})
        await sink.close()
        assert numbers(path) == [31, 32]
        for file in path.parent.iterdir():
            file.unlink()


async def test_another_file_in_its_place_is_not_written_over(path):
    sink, _ = await reopened(path)
    await sink.commit(records(1, 3), {"0": "3"})
    path.rename(path.with_suffix(".1"))
    path.write_text("mine\n")
    with pytest.raises(SinkError, match="another file with content is in its place: move that one away"):
        await sink.commit(records(4, 4), {"0": "4"})
    await sink.close()
    assert path.read_text() == "mine\n"


async def test_its_files_are_readable_by_their_owner_only(path):
    sink, _ = await reopened(path)
    await sink.commit([*records(1, 3), record(1, stream="denials")], {"0": "p3"})
    await sink.close()
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(["records.jsonl", "records.denials.jsonl", "records.jsonl.positions"], 0o600)


async def test_a_positions_file_that_is_none_is_an_error_and_not_a_new_start(path):
    # Fails if a broken positions file is read as no positions: all records would be written again.
    path.parent.mkdir()
    Path(f"{path}.positions").write_text("{}", encoding="ascii")
    sink = FileSink(path)
    with pytest.raises(SinkError, match=r"records\.jsonl\.positions: not a positions file"):
        await sink.open()
    await sink.close()


async def test_positions_are_of_one_journal_and_another_begins_at_its_own_beginning(path, caplog):
    # operator A4: a new journal went by the old one's positions, and was stuck. Fails if the key lacks the journal.
    sink = FileSink(path, "first")
    await sink.open()
    await sink.commit(records(1, 3), {"0": "1.1.300"})
    await sink.close()
    sink = FileSink(path, "second")
    assert await sink.open() == {}
    assert "the positions are of another journal" in caplog.text
    await sink.commit(records(4, 5), {"0": "1.1.200", "1": "1.1.7"})
    await sink.close()
    sink = FileSink(path, "first")  # as after `sidecar ship` of a dead node's volume
    assert await sink.open() == {"0": "1.1.300"}
    await sink.commit(records(6, 6), {"0": "1.1.400"})
    await sink.close()
    assert await FileSink(path, "second").open() == {"0": "1.1.200", "1": "1.1.7"}
    assert numbers(path) == [1, 2, 3, 4, 5, 6]


async def test_positions_of_older_versions_are_gone_by(path):
    # Fails if they are taken for another journal's: an upgrade would write all retained records a second time.
    old, _ = await reopened(path)
    await old.commit(records(1, 3), {"0": "1.1.300"})
    await old.close()
    sink = FileSink(path, "mine")
    assert await sink.open() == {"0": "1.1.300"}
    await sink.commit(records(4, 4), {"0": "1.1.400"})
    await sink.close()
    assert orjson.loads(Path(f"{path}.positions").read_bytes())["positions"] == {"0/mine": "1.1.400"}


def test_one_process_owns_a_file_and_its_pid_is_named(path):
    # operator A6: two nodes on one file cut off each other's records. Fails without the lock.
    lock = own_file(path)
    with pytest.raises(SinkError, match=rf"records\.jsonl: the process with pid {os.getpid()} writes to it: stop it"):
        own_file(path)
    os.close(lock)
    os.close(own_file(path))


def test_a_file_that_cannot_be_owned_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SinkError, match=r"file/records\.jsonl\.lock: "):
        own_file(tmp_path / "file" / "records.jsonl")


async def test_a_folder_that_cannot_be_made_is_a_sink_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    sink = FileSink(tmp_path / "file" / "records.jsonl")
    with pytest.raises(SinkError, match="Not a directory"):
        await sink.open()
    await sink.close()


async def test_stdout_gets_a_line_a_record_and_goes_on_from_its_position(tmp_path):
    reads, writes = os.pipe()
    sink = StdoutSink(tmp_path, writes)
    assert await sink.open() == {}
    await sink.commit(records(1, 3), {"0": "3"})
    assert await StdoutSink(tmp_path, writes).open() == {"0": "3"}
    assert await StdoutSink(tmp_path, writes, "mine").open() == {"0": "3"}
    await sink.close()
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        assert [int(orjson.loads(line)["sequence"]) for line in pipe] == [1, 2, 3]


async def test_stdout_goes_by_no_positions_of_another_journal(tmp_path):
    reads, writes = os.pipe()
    sink = StdoutSink(tmp_path, writes, "first")
    await sink.open()
    await sink.commit(records(1, 1), {"0": "1"})
    assert await StdoutSink(tmp_path, writes, "second").open() == {}
    for each in (reads, writes):
        os.close(each)


async def test_stdout_whose_reader_is_gone_keeps_the_position(tmp_path):
    # At least once: fails if the position is kept before the lines are written.
    reads, writes = os.pipe()
    os.close(reads)
    sink = StdoutSink(tmp_path, writes)
    await sink.open()
    with pytest.raises(SinkError, match="Broken pipe"):
        await sink.commit(records(1, 3), {"0": "3"})
    assert await sink.open() == {}
    os.close(writes)
