import os

import pytest

from sidecar.core.errors import SinkError
from sidecar.core.record.frame import Position
from sidecar.edge.journal.folder import Folder


@pytest.fixture
def folder(tmp_path):
    folder = Folder(tmp_path / "j" / "0")
    folder.own()
    yield folder
    folder.release()


def test_one_process_owns_a_folder_and_its_pid_is_named(folder):
    with pytest.raises(SinkError, match=f"pid {os.getpid()} writes this journal: stop it"):
        Folder(folder.path).own()
    folder.release()
    second = Folder(folder.path)
    second.own()
    second.release()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="file/0: the journal cannot be kept here"):
        Folder(tmp_path / "file" / "0").own()


def test_an_epoch_never_comes_twice(folder):
    assert [folder.raise_epoch() for _ in range(3)] == [1, 2, 3]


def test_an_epoch_is_above_all_segments_even_where_its_file_is_gone(folder):
    # Fails if the file alone decides: numbers of records would come twice.
    (folder.path / "00000041-00000007.seg").write_bytes(b"")
    assert folder.raise_epoch() == 42
    (folder.path / "epoch").unlink()
    assert folder.raise_epoch() == 42


def test_an_epoch_file_that_says_nothing_is_refused_with_what_would_be_right(folder):
    (folder.path / "epoch").write_bytes(b"\0\0")
    with pytest.raises(SinkError, match=r"epoch: holds .*write the last epoch used here into it, 0 or above"):
        folder.raise_epoch()


def test_the_mark_is_read_back_and_none_is_believed_that_cannot_be_read(folder):
    assert folder.closed_until() is None
    folder.mark_closed(Position(3, 2, 1))
    assert folder.closed_until() == Position(3, 2, 1)
    (folder.path / "closed").write_text("3.2")
    assert folder.closed_until() is None


def test_only_segments_are_counted(folder):
    (folder.path / "00000001-00000002.seg").write_bytes(b"12345")
    (folder.path / "00000001-00000001.seg").write_bytes(b"123")
    (folder.path / "00000001-00000001.seg.512.bad").write_bytes(b"1")
    assert folder.segments() == [(1, 1), (1, 2)]
    assert folder.retained_bytes() == 8
