"""A worker's journal folder: one owner, an epoch that never comes twice, and how far all is closed.

What is renamed into place is synced before, and the folder after, so that a kill or a power cut leaves the old or the
new, and no number is ever given out again.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from sidecar.core.errors import SinkError
from sidecar.core.record.frame import Position, segment_of

_EPOCH, _LOCK, _MARK = "epoch", "lock", "closed"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC


class Disk:
    """The few calls on which a journal's promises rest; a test puts a failing one in its place. All raise OSError."""

    def create(self, path: Path) -> int:
        """A new file to append to; its descriptor."""
        return os.open(path, _NEW, 0o640)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """How many bytes were taken."""
        return os.write(fd, data)

    def sync(self, fd: int) -> None:
        """Until it returns, nothing is safe; when it fails, nothing of what was not synced before is."""
        os.fdatasync(fd)

    def cut(self, fd: int, size: int) -> None:
        """Shorten the file."""
        os.ftruncate(fd, size)


class Folder:
    """The folder of one worker, owned from `own` to `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1

    def own(self) -> None:
        """Become the only owner. SinkError: another process is, or the folder cannot be made."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise SinkError(f"{self.path}: the journal cannot be kept here: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise SinkError(
                f"{self.path}: the process with pid {owner} writes this journal: stop it, or give this one its own dir"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        self._lock = fd

    def release(self) -> None:
        """Let another process own the folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def raise_epoch(self) -> int:
        """An epoch above all that were ever used here, on disk before it is told. SinkError: it cannot be known."""
        path = self.path / _EPOCH
        last = max((epoch for epoch, _ in self.segments()), default=0)
        try:
            text = path.read_text(encoding="ascii", errors="replace").strip() if path.exists() else "0"
            if not text.isdecimal():
                raise SinkError(f"{path}: holds {text[:40]!r}; write the last epoch used here into it, {last} or above")
            epoch = max(last, int(text)) + 1
            self._put(path, str(epoch))
        except OSError as error:
            raise SinkError(f"{path}: the epoch cannot be raised: {error.strerror}") from None
        return epoch

    def closed_until(self) -> Position | None:
        """Up to where every exchange that was opened is known to be closed; None: nobody knows."""
        try:
            return Position.parse((self.path / _MARK).read_text(encoding="ascii", errors="replace").strip())
        except (OSError, SinkError):
            return None

    def mark_closed(self, until: Position) -> None:
        """Let the next start look no further back than `until`. Without it that start only takes longer."""
        with suppress(OSError):
            self._put(self.path / _MARK, str(until))

    def segments(self) -> list[tuple[int, int]]:
        """Epoch and number of all segments, in order."""
        return sorted(found for path in self.path.iterdir() if (found := segment_of(path.name)) is not None)

    def retained_bytes(self) -> int:
        """What all segments hold, the shipped ones that are not freed yet included."""
        total = 0
        with os.scandir(self.path) as entries:
            for entry in entries:
                if entry.name.endswith(".seg"):
                    with suppress(FileNotFoundError):  # freed by the shipper since
                        total += entry.stat().st_size
        return total

    def sync(self) -> None:
        """Make the names in the folder durable."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _put(self, path: Path, text: str) -> None:
        draft = path.with_suffix(".new")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        try:
            os.write(fd, text.encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        draft.replace(path)
        self.sync()
