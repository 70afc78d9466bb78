"""The segment files of one epoch: they are appended to, rotated and synced. After a failed call a new file is begun.

A complete frame is never removed, because a reader may have seen it. A part of a frame is cut off, or stays at the end
of a file that is not written any more.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import accumulate
from pathlib import Path

import orjson

from sidecar.core.record.frame import HEAD, NO_ID, Position, encode_frame, segment_name
from sidecar.edge.journal.folder import Disk, Folder, is_named

_log = logging.getLogger(__name__)


class Figures:
    """Plain integers for the collector, of this process.

    `records` are numbered; `entries` are all written frames: the records, and the OPEN before most of them.
    `retained_bytes`, `alarm`, `full` and `broken` (0 or 1) are present values; `crashed`, `torn_bytes` and `corrupt`
    are of the start; `lost` are numbered records that could not be written before the end.
    """

    __slots__ = (
        "alarm", "broken", "bytes", "corrupt", "corrupt_bytes", "crashed", "entries", "full", "lost", "records",
        "retained_bytes", "rotations", "sync_errors", "syncs", "torn_bytes", "unrecorded", "write_errors", "writes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.records = self.entries = self.bytes = self.writes = self.write_errors = 0
        self.rotations = self.retained_bytes = self.syncs = self.sync_errors = 0
        self.unrecorded = self.lost = self.alarm = self.full = self.broken = 0
        self.crashed = self.torn_bytes = self.corrupt = self.corrupt_bytes = 0


def head_frame(source: str, epoch: int, number: int) -> bytes:
    """The frame that begins the segment `number` of an epoch: who writes it."""
    head = {"source": source, "epoch": str(epoch), "segment": number}  # JSON numbers end at 2^64
    return encode_frame(HEAD, "", 0, NO_ID, b"", orjson.dumps(head))


class Segments:
    """The segments that this process writes. `durable`: files are closed only after a sync."""

    def __init__(self, folder: Folder, disk: Disk, figures: Figures, *, segment_bytes: int, durable: bool) -> None:
        self.figures = self._figures = figures
        self._folder = folder
        self._disk = disk
        self._segment_bytes = segment_bytes
        self._durable = durable
        self._epoch = self._number = 0
        self._source = ""
        self._fd = -1
        self._offset = 0
        self._rotate_at = segment_bytes
        self._retired: list[int] = []  # full files, not synced yet
        self._syncing: list[int] = []
        self._unnamed = False  # the folder was not synced since a file was created

    def begin(self, epoch: int, source: str) -> None:
        """Write into segments of `epoch`, as `source`."""
        self._epoch, self._source = epoch, source

    @property
    def path(self) -> Path:
        """The path of the folder."""
        return self._folder.path

    @property
    def position(self) -> Position:
        """The position after the last frame."""
        return Position(self._epoch, self._number, self._offset)

    @property
    def ready(self) -> bool:
        """Whether a file is open."""
        return self._fd >= 0

    @property
    def is_lost(self) -> bool:
        """Whether the current file was removed or replaced: a successor of a killed worker could not read it."""
        return self.ready and not is_named(self._fd, self._folder.path / segment_name(self._epoch, self._number))

    def append(self, frames: list[bytes]) -> int:
        """Write `frames`; returns how many are completely in a file. Fewer than all: the disk cannot be written."""
        if self._offset >= self._rotate_at or self._fd < 0:
            self._rotate()
        done = self._write(frames)
        if done < len(frames) and self._rotate():
            done += self._write(frames[done:])
        return done

    def begin_sync(self) -> Callable[[], None]:
        """A function that makes all appended bytes durable, to be called in a thread."""
        self._syncing, self._retired = self._retired, []
        unnamed, self._unnamed = self._unnamed, False
        return partial(self._sync_all, [*self._syncing, self._fd], unnamed=unnamed)

    def end_sync(self) -> None:
        """The function of `begin_sync` has succeeded."""
        for fd in self._syncing:
            os.close(fd)
        self._syncing = []

    def distrust(self) -> None:
        """Close all files after a failed sync: the kernel may have marked their pages as clean without writing them."""
        for fd in (*self._syncing, *self._retired, self._fd):
            if fd >= 0:
                os.close(fd)
        self._fd, self._retired, self._syncing = -1, [], []

    close = distrust

    def _write(self, frames: list[bytes]) -> int:
        if self._fd < 0:
            return 0
        if not frames:
            return 0
        data = b"".join(frames)
        done = 0
        try:
            done = self._disk.write(self._fd, data)
            while done < len(data):
                done += self._put(self._fd, memoryview(data)[done:])
        except OSError as error:
            return self._give_up(frames, done, error)
        self._offset += done
        self._figures.writes += 1
        self._figures.bytes += done
        self._figures.retained_bytes += done
        self._figures.entries += len(frames)
        return len(frames)

    def _put(self, fd: int, data: bytes | memoryview) -> int:
        """Write once. A write of 0 bytes without an error counts as a full disk, since repeating it would not end."""
        done = self._disk.write(fd, data)
        if done == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return done

    def _give_up(self, frames: list[bytes], done: int, error: OSError) -> int:
        ends = list(accumulate(map(len, frames)))
        whole = sum(end <= done for end in ends)
        whole_bytes = ends[whole - 1] if whole else 0
        with suppress(OSError):
            self._disk.cut(self._fd, self._offset + whole_bytes)
        self._offset += whole_bytes
        self._figures.bytes += whole_bytes
        self._figures.entries += whole
        self._note("written", error)
        self.retire()
        return whole

    def _rotate(self) -> bool:
        """Continue in a new file. If none can be created, continue in the current one beyond its size."""
        self._number += 1
        path = self._folder.path / segment_name(self._epoch, self._number)
        frame = head_frame(self._source, self._epoch, self._number)
        fd = -1
        try:
            fd = self._disk.create(path)
            rest = memoryview(frame)
            while rest:
                rest = rest[self._put(fd, rest) :]
        except OSError as error:
            self._note("created", error)
            if fd >= 0:
                os.close(fd)
                path.unlink(missing_ok=True)
            self._rotate_at = self._offset + self._segment_bytes // 8
            return False
        self.retire()
        self._rotate_at = self._segment_bytes
        self._fd, self._offset, self._unnamed = fd, len(frame), True
        self._figures.rotations += 1
        return True

    def retire(self) -> None:
        """Continue in a new file."""
        if self._fd >= 0:
            if self._durable:
                self._retired.append(self._fd)
            else:
                os.close(self._fd)
            self._fd = -1

    def _sync_all(self, fds: list[int], *, unnamed: bool) -> None:
        for fd in fds:
            if fd >= 0:
                self._disk.sync(fd)
        if unnamed:
            self._folder.sync()

    def _note(self, what: str, error: OSError) -> None:
        self._figures.write_errors += 1
        if not self._figures.broken:  # when broken, it is repeated each second, and was logged
            _log.error("journal %s: segment %d cannot be %s: %s", self._folder.path, self._number, what, error.strerror)
