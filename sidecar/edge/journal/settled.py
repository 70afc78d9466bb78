"""The position before which the store has acknowledged all settles, so that a start repeats only the later ones.

The mark is a file in the folder, written about once a second and never synced. It survives a kill. After a power
failure it may be older; then some settles are sent twice, and count once. While settles of an earlier epoch are not
acknowledged, the mark `closed` does not move, so that the next start reads them again.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final, NamedTuple

from sidecar.core.record.frame import Position
from sidecar.edge.journal.folder import Folder, position_in

ENDED_MAX: Final = 50_000  # settles that a start repeats, the newest: those of a busy worker's last seconds
_NAME: Final = "settled"
_BYTES: Final = 80


class Ended(NamedTuple):
    """An exchange whose settle the store has not acknowledged: the body of its OPEN entry, and its record."""

    id: bytes
    opened: bytes
    closed: bytes


class SettledMark:
    """The mark of one folder. `begin` once the folder is owned, `note` about once a second, `finish` at the end."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._fd = -1
        self._marked: Position | None = None
        self._fence: Position | None = None
        self._closed: Position | None = None

    def until(self) -> Position | None:
        """The position before which all is settled; None: unknown, and nothing is repeated."""
        return position_in(self._folder.path / _NAME)

    def begin(self, closed: Position | None, *, settled: bool) -> None:
        """Begin after a start. `closed`: the position before which all is closed, None if that could not be written.

        `settled`: no settle of an earlier epoch is to be repeated.
        """
        self._closed = closed
        if settled and closed is not None:
            self._mark(closed)

    def note(self, acknowledged: Position) -> None:
        """The store has answered all settles that were sent before the previous call: move the mark to its position.

        `acknowledged`: the settles of all records before this position are sent, though maybe not answered.
        """
        if self._fence is not None and self._fence != self._marked:
            self._mark(self._fence)
        self._fence = acknowledged

    def close(self, until: Position) -> None:
        """Every exchange that was opened before `until` is closed, or repeated after it.

        The mark `closed` moves only if all before `until` is settled, since a start repeats only settles that it reads.
        """
        if self._closed is None and self._marked is not None and until <= self._marked:
            self._folder.mark_closed(until)

    def finish(self, end: Position, *, settled: bool) -> None:
        """The journal ends at `end`, and all exchanges are closed. `settled`: the store has answered all settles."""
        if settled:
            self._mark(end)
            self._folder.mark_closed(end)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _mark(self, position: Position) -> None:
        with suppress(OSError):  # without the mark, a start repeats more settles
            if self._fd < 0:
                self._fd = os.open(self._folder.path / _NAME, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
            os.pwrite(self._fd, str(position).ljust(_BYTES).encode(), 0)
            self._marked = position
        if self._closed is not None:
            self._folder.mark_closed(self._closed)
            self._closed = None
