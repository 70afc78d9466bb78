"""An entry of a journal as a reader gives it, and what the reader had to skip."""

from __future__ import annotations

from typing import NamedTuple

from sidecar.core.record.frame import Position

Segment = tuple[int, int]


class Entry(NamedTuple):
    """A record in the journal, CLOSE or RECORD. `end`: the offset after it in its segment."""

    type: int
    stream: str
    sequence: int
    id: bytes
    key: bytes
    body: bytes
    segment: Segment
    end: int

    @property
    def position_after(self) -> Position:
        """The position from which to read after this entry."""
        return Position(*self.segment, self.end)


class Figures:
    """The skipped parts, as plain integers: unreadable bytes, repeated frames, missing numbers."""

    __slots__ = ("corrupt", "corrupt_bytes", "duplicates", "missing", "torn_bytes")

    def __init__(self) -> None:
        self.corrupt = self.corrupt_bytes = self.duplicates = self.missing = self.torn_bytes = 0
