import pytest

from sidecar.core.record.frame import Position, segment_name
from sidecar.edge.journal.journals import JournalFolder, workers
from tests.edge.journal.logs import read_all
from tests.edge.journal.test_reader import Log, closed, numbers, records


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path)


def test_what_was_skipped_before_the_position_is_not_counted_again_and_what_comes_is_counted_for_the_folder(log):
    # Fails if `_recall` counts, or leaves figures of its own behind.
    bad = bytearray(closed(2))
    bad[-1] ^= 1
    log.write(1, 1, closed(1), bytes(bad), closed(3), closed(3))
    folder = JournalFolder(log.directory)
    position = read_all(folder.reader("0", None))[-1].position_after
    folder = JournalFolder(log.directory)
    reader = folder.reader("0", str(position))
    assert reader.read(1 << 20) == []
    figures = folder.figures
    assert (figures.corrupt, figures.missing, figures.duplicates) == (0, 0, 1)
    log.write(1, 1, closed(6))
    assert numbers(read_all(reader)) == records(6)
    assert (figures.corrupt, figures.missing, figures.duplicates) == (0, 2, 1)


def test_what_somebody_else_still_reads_is_not_freed(log):
    # Fails if `needed_from` is not asked.
    for segment in (1, 2, 3):
        log.write(1, segment, closed(segment))
    kept = Position(1, 2, 60)
    reader = JournalFolder(log.directory, lambda folder: kept if folder == log.folder else None).reader("0", None)
    last = read_all(reader)[-1].position_after
    assert reader.free(last) == 1
    assert log.segments() == [segment_name(1, 2), segment_name(1, 3)]
    kept = None
    assert reader.free(last) == 1


def test_workers_are_the_folders_that_hold_segments(tmp_path):
    assert workers(tmp_path / "none") == []
    for worker in ("1", "0"):
        Log(tmp_path, worker).write(1, 1)
    (tmp_path / ".house-x").mkdir()
    (tmp_path / "quarantine").mkdir()
    (tmp_path / "journal.id").write_text("x")
    assert workers(tmp_path) == ["0", "1"]
