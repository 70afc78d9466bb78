import os

import pytest

from sidecar.core.errors import SinkError
from sidecar.core.record.frame import Position, segment_name, segment_of
from sidecar.edge.journal.folder import Folder

NOW_US = 1_795_223_006_123_456


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
    with pytest.raises(SinkError, match="file/0: the journal cannot be written here"):
        Folder(tmp_path / "file" / "0").own()


def test_epochs_ascend_in_their_folder_also_where_the_clock_goes_back(folder):
    # Fails if the clock alone makes an epoch: readers and recovery go by their order.
    epochs = [folder.raise_epoch(now_us) for now_us in (NOW_US, NOW_US, NOW_US - 7_200_000_000, 0, NOW_US + 5)]
    assert epochs == sorted(set(epochs))
    assert all(epoch // 10**8 in range(NOW_US, NOW_US + 6) for epoch in epochs)


def test_an_epoch_occurs_in_no_other_folder_even_if_all_begin_in_the_same_microsecond(tmp_path):
    # conservation V4, operator A1: an empty volume began at 1 again. Fails if the random part is left out: a second
    # node of the same name, or a copy of the volume (it has the same epoch file), would repeat sources.
    epochs = []
    for number in range(200):
        copy = Folder(tmp_path / str(number))
        copy.path.mkdir()
        (copy.path / "epoch").write_text(f"{NOW_US}12345678")
        epochs.append(copy.raise_epoch(NOW_US))
    assert len(set(epochs)) == 200


def test_an_epoch_is_above_all_segments_even_where_its_file_is_gone(folder):
    # Fails if the file alone decides: segments would no longer be in order.
    future = (NOW_US + 1_000_000) * 10**8
    (folder.path / segment_name(future, 7)).write_bytes(b"")
    assert folder.raise_epoch(NOW_US) > future
    (folder.path / "epoch").unlink()
    assert folder.raise_epoch(NOW_US) > future


def test_an_epoch_is_above_those_of_older_versions_and_their_names_stay_in_order(folder):
    (folder.path / "epoch").write_text("41")
    (folder.path / segment_name(41, 7)).write_bytes(b"")
    epoch = folder.raise_epoch(NOW_US)
    assert epoch > 41
    assert segment_of(segment_name(epoch, 1)) == (epoch, 1)
    assert segment_name(41, 7) < segment_name(epoch, 1)
    assert Position.parse(str(Position(epoch, 1, 2))) == Position(epoch, 1, 2)


def test_an_epoch_file_that_says_nothing_is_refused_with_what_would_be_right(folder):
    (folder.path / "epoch").write_bytes(b"\0\0")
    with pytest.raises(SinkError, match=r"epoch: is .*write the last epoch used here into it, 0 or above"):
        folder.raise_epoch(NOW_US)


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
