"""One write a tick, one sync a group, and `then` for each entry, in order, when it is as safe as was asked for.

After a failed write or sync what is unacknowledged is written again, the same bytes, into a new file; where that fails
too the writer is broken, owes what has a number already, and tries again when `repair` is called.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from sidecar.core.record.frame import OPEN
from sidecar.edge.journal.segments import Figures, Segments
from sidecar.ports import Clock

_log = logging.getLogger(__name__)

Then = Callable[[bool], None]
_TYPE_AT, _ID_AT, _ID_END = 8, 24, 50  # of a frame


class Manner(NamedTuple):
    """`synced`: entries are acknowledged after a sync, else when written. `serve`: what cannot be written passes."""

    durable: bool
    synced: bool
    serve: bool


class Writer:
    """Entries in, bytes on disk out. `changed` is called where `broken` may have changed, or much was written.

    `dropped` is called with the id of an OPEN that was refused: its exchange never reaches the upstream.
    """

    def __init__(
        self,
        segments: Segments,
        clock: Clock,
        manner: Manner,
        changed: Callable[[], None],
        dropped: Callable[[bytes], None],
    ) -> None:
        self.broken = False
        self.watch_bytes = 0  # `changed` is called after writes while as much is retained
        self._segments = segments
        self._figures: Figures = segments.figures
        self._clock = clock
        self._durable, self._group_commit, self._serve = manner
        self._changed = changed
        self._dropped = dropped
        self._pool = ThreadPoolExecutor(1, "journal sync")
        self._frames: list[bytes] = []  # of this tick
        self._thens: list[Then] = []
        self._unsynced: list[bytes] = []  # written since the last sync began
        self._waiting: list[Then] = []
        self._group: tuple[list[bytes], list[Then]] = ([], [])  # being synced
        self._sync: asyncio.Future[None] | None = None
        self._sync_began_us = 0
        self._distrusted = False  # the last sync failed
        self._owed: list[bytes] = []

    def start(self) -> None:
        """Belong to the running loop."""
        self._loop = asyncio.get_running_loop()

    def put(self, frame: bytes, then: Then) -> None:
        """Write `frame` with the tick's others."""
        if self.broken:
            self._owed.append(frame)
            then(self._serve)
            return
        if not self._frames:
            self._loop.call_soon(self._flush)
        self._frames.append(frame)
        self._thens.append(then)

    def put_synced(self, frames: list[bytes]) -> bool:
        """Write and sync now, blocking: for the start. False: they are owed, and the writer is broken."""
        done = self._segments.append(frames)
        try:
            if done == len(frames) and self._segments.ready:
                self._segments.begin_sync()()
                self._segments.end_sync()
                return True
        except OSError as error:
            self._note_failed_sync(error)
        self._break(frames, [], acknowledged=True)
        return False

    def sync(self) -> None:
        """Begin to sync what was written, unless it is being done: for `durability: interval`."""
        if self._sync is None and self._unsynced:
            self._begin_sync()

    def repair(self) -> None:
        """Where broken: try a new file, what is owed first."""
        if not self.broken or self._sync is not None:
            return
        done = self._segments.append(self._owed)
        if self._durable:
            self._unsynced += self._owed[:done]
        self._owed = self._owed[done:]
        if self._owed or not self._segments.ready:
            return
        self.broken = False
        self._figures.broken = 0
        _log.warning("%s: writing again", self._segments.path)
        self._changed()
        self.sync()

    async def drain(self) -> int:
        """Write and sync all that was put; how many numbered entries the disk did not take."""
        self._flush()
        self.repair()
        while self._sync is not None or (self._unsynced and not self.broken):
            self.sync()
            if self._sync is not None:
                await asyncio.wait((self._sync,))
            await asyncio.sleep(0)  # `_synced` runs first
        return len(self._owed)

    async def aclose(self) -> bool:
        """Sync once more, whatever the durability, and close. True: all that was put is on disk."""
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

    def _flush(self) -> None:
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
            self._tell(thens, written=True)
            return
        self._waiting += thens
        self.sync()

    def _begin_sync(self) -> None:
        self._group = self._unsynced, self._waiting
        self._unsynced, self._waiting = [], []
        self._sync_began_us = self._clock.mono_us()
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
        self._distrusted = False
        self._figures.synced(self._clock.mono_us() - self._sync_began_us)
        self._tell(thens, written=True)
        if self._group_commit:
            self.sync()

    def _note_failed_sync(self, error: BaseException) -> None:
        self._figures.sync_errors += 1
        _log.error("%s: cannot be synced, so it is not written to any more: %s", self._segments.path, error)
        self._segments.distrust()

    def _write_again(self, frames: list[bytes], thens: list[Then]) -> None:
        """Never sync a failed file again and believe it: its pages count as clean. Once in a new file; then broken."""
        self._unsynced, self._waiting = [], []
        if self._distrusted or self._segments.append(frames) < len(frames):
            self._break(frames, thens, acknowledged=not self._group_commit)
            return
        self._distrusted = True
        self._unsynced, self._waiting = frames, thens
        self.sync()

    def _break(self, frames: list[bytes], thens: list[Then], *, acknowledged: bool) -> None:
        if not self.broken:
            _log.error("%s: nothing can be written", self._segments.path)
        self.broken = True
        self._figures.broken = 1
        for frame in frames:
            if frame[_TYPE_AT] == OPEN and not acknowledged and not self._serve:
                self._dropped(frame[_ID_AT:_ID_END])
            else:
                self._owed.append(frame)
        self._changed()
        self._tell(thens, written=self._serve)

    def _tell(self, thens: Iterable[Then], *, written: bool) -> None:
        for then in thens:
            try:
                then(written)
            except Exception as error:  # noqa: BLE001 - one exchange's fault must not leave the others unanswered
                self._loop.call_exception_handler({"message": "a journal callback failed", "exception": error})
