"""The journals that the shipper reads, and what it has read of one and not committed yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from sidecar.ports import Entry


class Reader(Protocol):
    """Reads one worker's journal from a position on. OSError or SinkError where it cannot."""

    def read(self, max_bytes: int) -> Sequence[Entry]:
        """The next records (CLOSE and RECORD), up to about `max_bytes`, at least one where there is one.

        LostStretchError: what lay before the position is gone; call again to go on behind it.
        """

    def free(self, committed: Any) -> int:
        """Delete segments that lie wholly before `committed` (a `position_after`); how many went."""


class Journals(Protocol):
    """The journals of this node, a folder a worker."""

    def workers(self) -> Iterable[str]:
        """The names of all folders there are now."""

    def reader(self, worker: str, position: str | None) -> Reader:
        """A reader from `position` on; None: from the oldest entry."""


class Source:
    """One worker's journal: its reader, and what was read of it and not committed yet."""

    __slots__ = ("entries", "position", "reader", "worker")

    def __init__(self, worker: str, reader: Reader) -> None:
        self.worker = worker
        self.reader = reader
        self.position: Any = None  # after the last entry read
        self.entries: list[Entry] = []

    def fill(self, max_bytes: int) -> bool:
        """Read on. True where there is something to ship."""
        read = self.reader.read(max_bytes)
        if read:
            self.position = read[-1].position_after
            self.entries = list(read)
        return bool(self.entries)
