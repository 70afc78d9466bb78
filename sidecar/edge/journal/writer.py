"""Writes entries: one write per tick, one sync per group, and a call of `then` for each durable entry, in order.

After a failed write or sync, the same bytes are written again into a new file, if they are not acknowledged. If that
fails too, the writer is broken: numbered records wait in memory until `repair` succeeds. A record whose answer was cut
for that reason is changed to say `withheld`, unless it may be in a file already, where a reader may have seen it.

    tick 1: OPEN a, CLOSE b   one write; `always`: a sync begins in a thread
    tick 2: OPEN c            one write, next group
    the sync returns          then(True) for a and b, in that order; the sync of the next group begins
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from sidecar.core.record import withheld_record
from sidecar.core.record.frame import CLOSE, OPEN, Position, encode_frame, frame_at
from sidecar.edge.journal.segments import Figures, Segments

_log = logging.getLogger(__name__)

Then = Callable[[bool], None]
_TYPE_AT, _ID_AT, _ID_END = 8, 24, 50  # of a frame


class DurabilityOptions(NamedTuple):
    """`synced`: entries are acknowledged after a sync, not after the write. `serve`: a failed write is acknowledged."""

    durable: bool
    synced: bool
    serve: bool


class Writer:
    """Writes and syncs entries. `changed` is called when `broken` may have changed, or `watch_bytes` are exceeded.

    `dropped` is called with the id of a refused OPEN, whose exchange is never sent to the upstream.
    """

    def __init__(
        self,
        segments: Segments,
        durability: DurabilityOptions,
        changed: Callable[[], None],
        dropped: Callable[[bytes], None],
    ) -> None:
        self.on_acknowledged: Callable[[], None] = _nothing  # called after each batch of `then`s
        self.withheld = True  # after `then(False)`: whether the record will say `withheld`, or stays as it was written
        self.broken = False
        self.watch_bytes = 0  # `changed` is called after each write while at least so many bytes are retained
        self._segments = segments
        self._figures: Figures = segments.figures
        self._durable, self._group_commit, self._serve = durability
        self._changed = changed
        self._dropped = dropped
        self._pool = ThreadPoolExecutor(1, "journal sync")
        self._frames: list[bytes] = []  # of this tick
        self._thens: list[Then] = []
        self._unsynced: list[bytes] = []  # written since the last sync began
        self._waiting: list[Then] = []
        self._group: tuple[list[bytes], list[Then]] = ([], [])  # being synced
        self._sync: asyncio.Future[None] | None = None
        self._syncing_to = self._acknowledged = Position(0, 0, 0)
        self._distrusted = False  # the last sync failed
        self._unwritten: list[bytes] = []  # numbered entries, while broken

    def start(self) -> None:
        """Use the running loop."""
        self._loop = asyncio.get_running_loop()

    @property
    def acknowledged(self) -> Position:
        """The position after the last entry whose `then` was called."""
        return self._acknowledged if self._group_commit else self._segments.position

    def put(self, frame: bytes, then: Then) -> None:
        """Write `frame` together with the other frames of this tick."""
        if self.broken:
            self._defer([frame], withheld=not self._serve)
            self._acknowledge([then], written=self._serve)
            return
        if not self._frames:
            self._loop.call_soon(self.flush)
        self._frames.append(frame)
        self._thens.append(then)

    def put_synced(self, frames: list[bytes]) -> bool:
        """Write and sync now, blocking: for the start. False: the frames wait in memory, and the writer is broken."""
        done = self._segments.append(frames)
        try:
            if done == len(frames) and self._segments.ready:
                self._segments.begin_sync()()
                self._segments.end_sync()
                self._acknowledged = self._segments.position
                return True
        except OSError as error:
            self._note_failed_sync(error)
        self._break(frames, [], acknowledged=True)
        return False

    def sync(self) -> None:
        """Begin a sync unless one is running: for `durability: interval`."""
        if self._sync is None and self._unsynced:
            self._begin_sync()

    def repair(self) -> None:
        """If broken, try to write the waiting entries into a new file."""
        if not self.broken or self._sync is not None:
            return
        done = self._segments.append(self._unwritten)
        if self._durable:
            self._unsynced += self._unwritten[:done]
        self._unwritten = self._unwritten[done:]
        if self._unwritten or not self._segments.ready:
            return
        self.broken = False
        self._figures.broken = 0
        _log.warning("journal %s: can be written again; the records that waited are written", self._segments.path)
        self._changed()
        self.sync()

    async def drain(self) -> int:
        """Write and sync all entries; returns the number of numbered entries that could not be written."""
        self.flush()
        self.repair()
        while self._sync is not None or (self._unsynced and not self.broken):
            self.sync()
            if self._sync is not None:
                await asyncio.wait((self._sync,))
            await asyncio.sleep(0)  # `_synced` runs first
        return len(self._unwritten)

    async def aclose(self) -> bool:
        """Sync once more, with any durability, and close. True: all entries are on disk."""
        whole = not self.broken
        if whole:
            try:
                await self._loop.run_in_executor(self._pool, self._segments.begin_sync())
            except OSError as error:
                self._note_failed_sync(error)
                whole = False
        self._pool.shutdown()
        self._segments.close()
        return whole

    def flush(self) -> None:
        """Write the entries of this tick now, not at its end."""
        frames, thens = self._frames, self._thens
        if not frames:
            return
        self._frames, self._thens = [], []
        done = 0 if self.broken else self._segments.append(frames)
        if done < len(frames):
            self._written(frames[:done], thens[:done])
            self._break(frames[done:], thens[done:], acknowledged=False)
        else:
            self._written(frames, thens)
        if self._figures.retained_bytes >= self.watch_bytes:
            self._changed()

    def _written(self, frames: list[bytes], thens: list[Then]) -> None:
        if self._durable:
            self._unsynced += frames
        if not self._group_commit:
            self._acknowledge(thens, written=True)
            return
        self._waiting += thens
        self.sync()

    def _begin_sync(self) -> None:
        self._group = self._unsynced, self._waiting
        self._unsynced, self._waiting = [], []
        self._syncing_to = self._segments.position
        self._sync = self._loop.run_in_executor(self._pool, self._segments.begin_sync())
        self._sync.add_done_callback(self._synced)

    def _synced(self, sync: asyncio.Future[None]) -> None:
        self._sync = None
        frames, thens = self._group
        self._group = [], []
        error = sync.exception()
        if error is not None:
            self._note_failed_sync(error)
            self._write_again(frames + self._unsynced, thens + self._waiting)
            return
        self._segments.end_sync()
        self._acknowledged = self._syncing_to
        self._distrusted = False
        self._figures.syncs += 1
        self._acknowledge(thens, written=True)
        if self._group_commit:
            self.sync()

    def _note_failed_sync(self, error: BaseException) -> None:
        self._figures.sync_errors += 1
        _log.error(
            "journal %s: a sync failed (%s): continuing in a new file; check the disk", self._segments.path, error
        )
        self._segments.distrust()

    def _write_again(self, frames: list[bytes], thens: list[Then]) -> None:
        """Write into a new file after a failed sync; after a second one in a row, break.

        The failed file cannot be synced again: the kernel may have marked its pages as clean without writing them.
        """
        self._unsynced, self._waiting = [], []
        if self._distrusted or self._segments.append(frames) < len(frames):
            self.withheld = False
            self._break(frames, thens, acknowledged=not self._group_commit)
            self.withheld = True
            return
        self._distrusted = True
        self._unsynced, self._waiting = frames, thens
        self.sync()

    def _break(self, frames: list[bytes], thens: list[Then], *, acknowledged: bool) -> None:
        if not self.broken:
            _log.error(
                "journal %s: cannot be written: records wait in memory until it can be: check the disk of journal.dir",
                self._segments.path,
            )
        self.broken = True
        self._figures.broken = 1
        if not acknowledged and not self._serve:
            for frame in frames:
                if frame[_TYPE_AT] == OPEN:
                    self._dropped(frame[_ID_AT:_ID_END])
            frames = [frame for frame in frames if frame[_TYPE_AT] != OPEN]
            self._defer(frames, withheld=self.withheld)
        else:
            self._defer(frames, withheld=False)
        self._changed()
        self._acknowledge(thens, written=self._serve)

    def _defer(self, frames: list[bytes], *, withheld: bool) -> None:
        self._unwritten += [_withheld(frame) if withheld and frame[_TYPE_AT] == CLOSE else frame for frame in frames]

    def _acknowledge(self, thens: list[Then], *, written: bool) -> None:
        for then in thens:
            try:
                then(written)
            except Exception as error:  # noqa: BLE001 - the error of one exchange must not affect the others
                self._loop.call_exception_handler({"message": "a journal callback failed", "exception": error})
        if thens:
            self.on_acknowledged()


def _withheld(frame: bytes) -> bytes:
    """The same frame, with a record that says that the answer was withheld."""
    parsed = frame_at(frame, 0)
    assert parsed is not None  # noqa: S101 - `encode_frame` made it
    kind, stream, sequence, id_, key, body = parsed[1]
    return encode_frame(kind, stream, sequence, id_, key, withheld_record(body))


def _nothing() -> None:
    """The default of `on_acknowledged`."""
