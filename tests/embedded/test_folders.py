"""Mirrors sidecar/embedded/folders.py."""

import logging

import pytest

from sidecar.core.errors import StateError
from sidecar.core.record.frame import Position, segment_name
from sidecar.edge.memory.state_file import needed_from, read_slices
from sidecar.embedded.folders import check_states, leave_states, newest, was_embedded
from tests.edge.memory.test_state_file import FIRST, LATER, save


# Fails if a spare folder is not looked at, or if one whole file is not enough.
@pytest.mark.parametrize("name", ["0", "0.1"])
def test_a_start_is_refused_where_no_file_of_a_folder_is_whole(tmp_path, name):
    folder = tmp_path / name
    check_states(tmp_path)
    folder.mkdir()
    save(folder, FIRST)
    save(folder, LATER)
    overwrite(folder / "state")
    check_states(tmp_path)
    overwrite(folder / "state.previous")
    with pytest.raises(
        StateError, match=r"state: damaged: the checksum at byte \d+ .*state\.previous: damaged.*Restore"
    ):
        check_states(tmp_path)


# Fails if a damaged state ends a start although a newer one is whole, or if one that may be the newest is passed over:
# what was counted after the older one would be forgotten.
@pytest.mark.parametrize("trace", ["epoch", "segment"])
def test_a_damaged_state_is_passed_over_where_a_newer_one_is_whole(tmp_path, caplog, trace):
    own, spare = tmp_path / "0", tmp_path / "0.1"
    own.mkdir()
    spare.mkdir()
    save(own, FIRST)
    (spare / "state").write_bytes(b"junk")
    began(spare, trace, 6)
    with caplog.at_level(logging.ERROR):
        check_states(tmp_path)
    assert str(spare / "state") in caplog.text
    assert newest(tmp_path) == own
    began(spare, trace, 7)
    for look in (check_states, newest):
        with pytest.raises(StateError, match=r"0\.1/state: .*Restore"):
            look(tmp_path)
    save(own, FIRST._replace(written=Position(8, 1, 0)))
    assert newest(tmp_path) == own
    (spare / "epoch").write_bytes(b"\0\0")  # it may be the last of all
    with pytest.raises(StateError, match=r"0\.1/state: "):
        newest(tmp_path)


def began(folder, trace, epoch):
    """An epoch began in `folder`, as far as one of its files says so."""
    if trace == "epoch":
        (folder / "epoch").write_text(str(epoch))
    else:
        (folder / segment_name(epoch, 1)).touch()


# Fails if `state.previous` is left, or if a spare folder is.
def test_what_is_set_aside_is_read_no_more(tmp_path):
    for name in ("0", "0.1"):
        (tmp_path / name).mkdir()
        save(tmp_path / name, FIRST)
        save(tmp_path / name, LATER)
    assert was_embedded(tmp_path)
    leave_states(tmp_path)
    assert not was_embedded(tmp_path)
    assert [read_slices(tmp_path / name) for name in ("0", "0.1")] == [([], []), ([], [])]
    assert needed_from(tmp_path / "0") is None
    names = ["state.before-redis", "state.keep.before-redis", "state.previous.before-redis"]
    assert sorted(path.name for path in (tmp_path / "0.1").iterdir()) == names


def overwrite(path):
    """Damage the second frame."""
    data = bytearray(path.read_bytes())
    data[120:124] = b"\0\0\0\0"
    path.write_bytes(data)
