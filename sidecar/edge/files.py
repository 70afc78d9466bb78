"""Durable files: names that are synced, contents replaced as a whole, and locks that end with their process.

A rename is on disk only after its folder is synced, so each function here that renames also syncs the folder. Every
function raises OSError where the file system refuses.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from io import BufferedReader
from pathlib import Path

from sidecar.core.errors import SinkError

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


class OwnedError(SinkError):
    """Another process holds the lock. From `lock_file` the text is that process's pid, or "unknown"."""


def sync_folder(path: Path) -> None:
    """Make the names in the folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading. OSError: also where it is not a regular file, such as a pipe, which would block."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(fd, "rb")


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`, in as many calls as the system needs."""
    view = memoryview(data)
    while view:
        written = os.write(fd, view)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view = view[written:]


def write_synced(path: Path, data: bytes, flags: int = _NEW_FILE, mode: int = 0o640) -> None:
    """Write `data` to a file opened with `flags`, and sync its contents, but not its name."""
    fd = os.open(path, flags, mode)
    try:
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes, mode: int = 0o640) -> None:
    """Replace the file at `path`: after a kill or a power cut it holds the old contents or the new ones, whole.

    The draft is `<name>.new` beside it; it is removed if the replacement fails.
    """
    draft = path.with_name(path.name + ".new")
    try:
        write_synced(draft, data, mode=mode)
        draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def lock_file(path: Path) -> int:
    """Lock the file at `path`, in a folder that may be new, until the returned descriptor is closed. It holds our pid.

    The file must never be unlinked: two processes could then lock two files of one name. OwnedError: another process
    holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise OwnedError(owner) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    return fd


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of the file at `path`; False where there is no such file."""
    with suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
    return False
