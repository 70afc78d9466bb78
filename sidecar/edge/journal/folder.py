"""A worker's journal folder: a single owner, globally unique epochs, and the position before which all is closed.

An epoch is a number: the time at which it began, in µs since 1970, then eight random digits. So it is greater than all
earlier epochs of its folder, and occurs nowhere else: not in a new folder after a lost volume, not in the folder of
another node with the same name, not in a copy. Epochs of older versions (1, 2, …) are smaller than all of these.

An epoch is on disk before it is used, so that the number of a record is never used again.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path

from sidecar.core.errors import SinkError
from sidecar.core.record.frame import Position, segment_name, segment_of
from sidecar.edge.files import OwnedError, is_locked, lock_file, sync_folder, write_atomic

_EPOCH, _LOCK, _MARK = "epoch", "lock", "closed"
_RANDOM = 10**8  # the random part of an epoch is below this
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC


class Disk:
    """The system calls on which durability depends; tests replace them by failing ones. All raise OSError."""

    def create(self, path: Path) -> int:
        """Create a file to append to; returns its descriptor."""
        return os.open(path, _NEW, 0o640)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Returns how many bytes were written."""
        return os.write(fd, data)

    def sync(self, fd: int) -> None:
        """Make all writes durable. If it fails, none of the writes since the last sync is durable."""
        os.fdatasync(fd)

    def cut(self, fd: int, size: int) -> None:
        """Shorten the file."""
        os.ftruncate(fd, size)


def is_owned(path: Path) -> bool:
    """Whether a process owns the folder at `path`."""
    return is_locked(path / _LOCK)


def is_named(fd: int, path: Path) -> bool:
    """Whether `path` is the open file; True if that cannot be determined."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def position_in(path: Path) -> Position | None:
    """The position that a file holds as text; None: it is missing, or holds something else."""
    try:
        return Position.parse(path.read_text(encoding="ascii", errors="replace").strip())
    except (OSError, SinkError):
        return None


@contextmanager
def mapped(path: Path) -> Iterator[bytes | mmap]:
    """The file's bytes, mapped and not read, since a segment may have gigabytes."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            yield b""
            return
        with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            yield data


class Folder:
    """The folder of one worker, owned from `own` to `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1

    def own(self, spares: int = 0) -> None:
        """Become the only owner. OwnedError: another process owns it. SinkError: the folder cannot be created.

        If another process owns it, `spares` more folders are tried: `path` is then "0.1" in place of "0", and so on.
        """
        name = self.path.name
        for spare in range(1, spares + 1):
            with suppress(OwnedError):
                self._own()
                return
            self.path = self.path.with_name(f"{name}.{spare}")
        self._own()

    def _own(self) -> None:
        try:
            self._lock = lock_file(self.path / _LOCK)
        except OSError as error:
            raise SinkError(f"{self.path}: the journal cannot be written here: {error.strerror}") from None
        except OwnedError as owner:
            raise OwnedError(
                f"{self.path}: the process with pid {owner} writes this journal: stop it, or set another journal.dir"
            ) from None

    @property
    def is_lost(self) -> bool:
        """Whether the folder was removed or replaced: the locked file is not the file at its path any more."""
        return self._lock < 0 or not is_named(self._lock, self.path / _LOCK)

    def own_again(self) -> None:
        """Own the folder at the path again, and create it if it is missing. Raises as `own`."""
        self.release()
        self._own()

    def release(self) -> None:
        """Let another process own the folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def raise_epoch(self, now_us: int) -> int:
        """A unique epoch, greater than all earlier ones here, on disk before it is returned.

        `now_us` is since 1970. If the clock went back, the epoch's time is 1 µs after that of the last one. SinkError:
        the last epoch is unknown, or the new one cannot be written.
        """
        path = self.path / _EPOCH
        last = max((epoch for epoch, _ in self.segments()), default=0)
        try:
            text = path.read_text(encoding="ascii", errors="replace").strip() if path.exists() else "0"
            if not text.isdecimal():
                raise SinkError(f"{path}: is {text[:40]!r}; write the last epoch used here into it, {last} or above")
            after_us = max(last, int(text)) // _RANDOM
            epoch = max(now_us, after_us + 1) * _RANDOM + secrets.randbelow(_RANDOM)
            write_atomic(path, b"%d" % epoch)
        except OSError as error:
            raise SinkError(f"{path}: the new epoch cannot be written: {error.strerror}") from None
        return epoch

    def closed_until(self) -> Position | None:
        """The position before which every opened exchange is closed, or repeated after it; None: unknown."""
        return position_in(self.path / _MARK)

    def mark_closed(self, until: Position) -> None:
        """Let the next start read from `until` on. Without it that start only takes longer."""
        with suppress(OSError):
            write_atomic(self.path / _MARK, str(until).encode())

    def segments(self) -> list[tuple[int, int]]:
        """Epoch and number of all segments, in order."""
        with suppress(FileNotFoundError):
            return sorted(name for path in self.path.iterdir() if (name := segment_of(path.name)) is not None)
        return []

    def segments_from(self, position: Position) -> list[tuple[Position, Path]]:
        """The segments from `position` on, in order: where to begin in each, and its file."""
        return [
            (max(position, Position(*segment, 0)), self.path / segment_name(*segment))
            for segment in self.segments()
            if segment >= position[:2]
        ]

    def end(self) -> Position | None:
        """The position after the last byte that was written; None without a segment."""
        if not (segments := self.segments()):
            return None
        return Position(*segments[-1], (self.path / segment_name(*segments[-1])).stat().st_size)

    def retained_bytes(self) -> int:
        """The size of all segments, including shipped ones that are not deleted yet."""
        total = 0
        with suppress(FileNotFoundError), os.scandir(self.path) as entries:
            for entry in entries:
                if entry.name.endswith(".seg"):
                    with suppress(FileNotFoundError):  # deleted by the shipper since
                        total += entry.stat().st_size
        return total

    def sync(self) -> None:
        """Make the names in the folder durable."""
        sync_folder(self.path)
