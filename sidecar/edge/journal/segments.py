"""The files of one epoch: appended to, rotated, synced, and given up for a new one as soon as a call fails.

A frame that was written whole is never cut off again, because a reader may have seen it; half a frame is, or is left
behind in a file that nobody writes to any more.
"""

from __future__ import annotations

import errno
import logging
import os
from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import accumulate

import orjson

from sidecar.core.record.frame import HEAD, NO_ID, Position, encode_frame, segment_name
from sidecar.edge.journal.folder import Disk, Folder

SYNC_BOUNDS_US = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000)
_log = logging.getLogger(__name__)


class Figures:
    """Plain integers for the collector, of this process; `sync_buckets[i]` counts syncs within SYNC_BOUNDS_US[i].

    `records` are numbered; `entries` are written: the records, and the OPEN before most of them. `retained_bytes`,
    `alarm`, `full` and `broken` (0 or 1) are of this moment; `crashed`, `torn_bytes` and `corrupt` are what the start
    found; `lost` are numbered records that a broken disk never took before the end.
    """

    __slots__ = (
        "alarm", "broken", "bytes", "corrupt", "corrupt_bytes", "crashed", "entries", "full", "lost", "records",
        "retained_bytes", "rotations", "sync_buckets", "sync_errors", "sync_sum_us", "syncs", "torn_bytes",
        "unrecorded", "write_errors", "writes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.records = self.entries = self.bytes = self.writes = self.write_errors = 0
        self.rotations = self.retained_bytes = 0
        self.syncs = self.sync_errors = self.sync_sum_us = 0
        self.sync_buckets = [0] * (len(SYNC_BOUNDS_US) + 1)
        self.unrecorded = self.lost = self.alarm = self.full = self.broken = 0
        self.crashed = self.torn_bytes = self.corrupt = self.corrupt_bytes = 0

    def synced(self, took_us: int) -> None:
        """Count a sync."""
        self.syncs += 1
        self.sync_sum_us += took_us
        self.sync_buckets[bisect_left(SYNC_BOUNDS_US, took_us)] += 1


class Segments:
    """The segments that this process writes. `durable`: what is written will be synced, so no file closes before."""

    def __init__(self, folder: Folder, disk: Disk, figures: Figures, *, segment_bytes: int, durable: bool) -> None:
        self.figures = self._figures = figures
        self.path = folder.path
        self._folder = folder
        self._disk = disk
        self._segment_bytes = segment_bytes
        self._durable = durable
        self._epoch = self._number = 0
        self._source = ""
        self._fd = -1
        self._offset = 0
        self._rotate_at = segment_bytes
        self._retired: list[int] = []  # rotated away from, not synced yet
        self._syncing: list[int] = []
        self._unnamed = False  # the folder was not synced since a file was made

    def begin(self, epoch: int, source: str) -> None:
        """Write from now on as `source` into segments of `epoch`."""
        self._epoch, self._source = epoch, source

    @property
    def position(self) -> Position:
        """Behind the last frame."""
        return Position(self._epoch, self._number, self._offset)

    @property
    def ready(self) -> bool:
        """There is a file to append to."""
        return self._fd >= 0

    def append(self, frames: list[bytes]) -> int:
        """Write `frames`; how many of them are in a file, whole. Fewer than all: the disk takes no more."""
        if self._offset >= self._rotate_at or self._fd < 0:
            self._rotate()
        done = self._write(frames)
        if done < len(frames) and self._rotate():
            done += self._write(frames[done:])
        return done

    def begin_sync(self) -> Callable[[], None]:
        """What makes all that was appended until now durable, to be called in a thread."""
        self._syncing, self._retired = self._retired, []
        unnamed, self._unnamed = self._unnamed, False
        return partial(self._sync_all, [*self._syncing, self._fd], unnamed=unnamed)

    def end_sync(self) -> None:
        """It was called and succeeded."""
        for fd in self._syncing:
            os.close(fd)
        self._syncing = []

    def distrust(self) -> None:
        """A sync failed: the pages count as clean now, so nothing of these files is believed again."""
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
        """A disk that takes nothing without saying why is full: it would be asked for ever."""
        done = self._disk.write(fd, data)
        if done == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return done

    def _give_up(self, frames: list[bytes], done: int, error: OSError) -> int:
        ends = list(accumulate(map(len, frames)))
        whole = sum(end <= done for end in ends)
        kept = ends[whole - 1] if whole else 0
        with suppress(OSError):
            self._disk.cut(self._fd, self._offset + kept)
        self._offset += kept
        self._figures.bytes += kept
        self._figures.entries += whole
        self._note("written", error)
        self._retire()
        return whole

    def _rotate(self) -> bool:
        """Go on in a new file. Where there can be none, a file that only had become long is written on."""
        self._number += 1
        path = self._folder.path / segment_name(self._epoch, self._number)
        head = {"source": self._source, "epoch": self._epoch, "segment": self._number}
        frame = encode_frame(HEAD, "", 0, NO_ID, b"", orjson.dumps(head))
        fd = -1
        try:
            fd = self._disk.create(path)
            rest = memoryview(frame)
            while rest:
                rest = rest[self._put(fd, rest) :]
        except OSError as error:
            self._note("made", error)
            if fd >= 0:
                os.close(fd)
                path.unlink(missing_ok=True)
            self._rotate_at = self._offset + self._segment_bytes // 8
            return False
        self._retire()
        self._rotate_at = self._segment_bytes
        self._fd, self._offset, self._unnamed = fd, len(frame), True
        self._figures.rotations += 1
        return True

    def _retire(self) -> None:
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
        if not self._figures.broken:  # then it is tried each second, and was said
            _log.error("%s: segment %d cannot be %s: %s", self._folder.path, self._number, what, error.strerror)
