"""Mirrors sidecar/edge/files.py."""

import errno
import os
from pathlib import Path

import pytest

from sidecar.edge.files import OwnedError, is_locked, lock_file, open_regular, write_all, write_atomic


@pytest.fixture
def calls(monkeypatch):
    """The durable steps in order: what was synced or renamed, by name."""
    noted = []
    sync, replace = os.fsync, Path.replace

    def noted_sync(fd):
        noted.append(f"sync {Path(f'/proc/self/fd/{fd}').readlink().name}")
        sync(fd)

    def noted_replace(path, target):
        noted.append(f"rename {path.name} {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    return noted


# Fails if either sync is left out, or comes after the step that relies on it.
def test_contents_are_synced_before_the_rename_and_the_folder_after_it(tmp_path, calls):
    write_atomic(tmp_path / "epoch", b"7", mode=0o600)
    assert calls == ["sync epoch.new", "rename epoch.new epoch", f"sync {tmp_path.name}"]
    assert (tmp_path / "epoch").read_bytes() == b"7"
    assert (tmp_path / "epoch").stat().st_mode & 0o777 == 0o600


# Fails if the file is written in place, or if the draft is left behind.
@pytest.mark.parametrize(("owner", "call"), [(os, "write"), (os, "fsync"), (Path, "replace")])
def test_a_failed_replacement_leaves_the_old_contents_and_no_draft(tmp_path, monkeypatch, owner, call):
    path = tmp_path / "marks.json"
    path.write_bytes(b"old")

    def fail(*_args):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(owner, call, fail)
    with pytest.raises(OSError, match="Input/output error"):
        write_atomic(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# Fails if a short write is taken for a whole one.
def test_a_short_write_is_continued_and_one_of_nothing_is_a_full_disk(monkeypatch):
    sizes, taken = iter([3, 2, 0]), []

    def short(_fd, data):
        size = next(sizes)
        taken.append(bytes(data[:size]))
        return size

    monkeypatch.setattr(os, "write", short)
    write_all(-1, b"12345")
    assert taken == [b"123", b"45"]
    with pytest.raises(OSError, match="No space left"):
        write_all(-1, b"6")


# Fails without the lock, or if it is released before the descriptor is closed.
def test_a_lock_has_one_owner_whose_pid_the_error_is(tmp_path):
    path = tmp_path / "lock"
    assert not is_locked(path)
    path.write_text("99999999999\n")  # of an owner that was killed
    assert not is_locked(path)
    fd = lock_file(path)
    assert is_locked(path)
    with pytest.raises(OwnedError, match=f"^{os.getpid()}$"):
        lock_file(path)
    os.close(fd)
    assert not is_locked(path)
    os.close(lock_file(path))


def test_only_a_regular_file_is_opened_and_nothing_blocks(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"abc"
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(path)
