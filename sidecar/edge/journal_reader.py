"""Reads a worker's journal while it is being written: each record once, in order, through rotation, epochs and damage.

It never writes but to delete, and it deletes a segment only when all in it and before it is committed, the records of
all exchanges opened there included. What it skips it counts; it never stops for damage.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from sidecar.core.errors import SinkError
from sidecar.core.record.frame import (
    CLOSE,
    HEADER_BYTES,
    LAYOUT,
    MAGIC_NOW,
    OPEN,
    PAYLOAD_MAX,
    SEED,
    STREAMS,
    NewerVersionError,
    Position,
    frame_at,
    next_frame,
    segment_name,
    segment_of,
)

_FRAME_BYTES = HEADER_BYTES + PAYLOAD_MAX  # so that a whole frame always fits
_BLOCK_BYTES = 256 << 10  # read at once: it stays in the processor's cache while it is taken apart
_log = logging.getLogger(__name__)
Segment = tuple[int, int]


class Entry(NamedTuple):
    """A record as it stands in the journal, CLOSE or RECORD. `end`: the offset behind it in its segment."""

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
        """Where to read on once it is shipped."""
        return Position(*self.segment, self.end)


class Figures:
    """What was skipped, as plain integers: bytes that are no frame, frames seen before, numbers that never came."""

    __slots__ = ("corrupt", "corrupt_bytes", "duplicates", "missing", "torn_bytes")

    def __init__(self) -> None:
        self.corrupt = self.corrupt_bytes = self.duplicates = self.missing = self.torn_bytes = 0


class JournalReader:
    """One worker's journal from `position` on (None: from its oldest entry). Any number may read, one may free."""

    def __init__(self, directory: Path, worker: str, position: Position | None = None) -> None:
        self.figures = Figures()
        self._folder = directory / worker
        self._from = position
        self._fd = -1
        self._segment: Segment = (0, 0)
        self._offset = 0
        self._final = False  # a later segment was seen before this one was last read: it grows no more
        self._next = [0, 0, 0]  # this epoch's next sequence by number of the stream; 0: not known
        self._open: dict[bytes, Segment] = {}  # exchanges without a record yet → where they were last told of
        self._closed_at = Position(0, 0, 0)  # where the last of those that were closed was

    def read(self, max_bytes: int) -> list[Entry]:
        """The next entries, bodies of up to about `max_bytes`, at least one where there is one; [] at the end.

        SinkError: `position` lies beyond its segment, or a newer version wrote here. OSError: it cannot be read.
        """
        if self._fd < 0 and not self._begin():
            return []
        entries: list[Entry] = []
        while max_bytes > 0:
            taken = self._move(entries, max_bytes)
            if taken is not None:
                max_bytes -= taken
            elif entries or not self._advance():
                break
        return entries

    def free(self, committed: Position) -> int:
        """Delete the oldest segments, up to the first that anybody needs once all before `committed` is shipped.

        How many went. Nothing goes while records that were read already are not committed yet.
        """
        if committed < self._closed_at:
            return 0
        # In order and never past an open exchange: an OPEN whose CLOSE is gone would be billed again by a recovery.
        needed = min(self._open.values(), default=committed[:2])
        gone = [segment for segment in _segments(self._folder) if segment < min(needed, committed[:2])]
        for segment in gone:
            (self._folder / segment_name(*segment)).unlink(missing_ok=True)
        return len(gone)

    def close(self) -> None:
        """Let go of the segment's descriptor; the reader may go on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._from, self._segment = Position(*self._segment, self._offset), (0, 0)
            self._open.clear()

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def _begin(self) -> bool:
        segments = _segments(self._folder)
        if not segments or not self._enter(segments[0]):
            return False
        if self._from is not None:
            self._recall(self._from)
        return True

    def _recall(self, position: Position) -> None:
        """Read again what is committed, to know which exchanges are open and how far the numbers are."""
        figures, self.figures = self.figures, Figures()
        while (here := Position(*self._segment, self._offset)) < position:
            last = here[:2] == position[:2]
            if self._move([], _FRAME_BYTES, position.offset - self._offset if last else _FRAME_BYTES) is None:
                if last:
                    raise SinkError(f"{self._path}: position {position} lies beyond its end: is this another journal?")
                if not self._advance():
                    break
        self.figures = figures

    def _enter(self, segment: Segment) -> bool:
        try:
            fd = os.open(self._folder / segment_name(*segment), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # freed, or given up by its writer, since it was listed
            return False
        if self._fd >= 0:
            os.close(self._fd)
        if segment[0] != self._segment[0]:
            # Numbers begin at 1 with an epoch; who comes in later does not know what was before.
            self._next = [0, 1, 1] if segment[1] == 1 else [0, 0, 0]
        self._fd, self._segment, self._offset, self._final = fd, segment, 0, False
        return True

    def _advance(self) -> bool:
        """Go on to the next segment, but read this one once more: it may have grown before the next was made."""
        later = next((segment for segment in _segments(self._folder) if segment > self._segment), None)
        if later is None:
            return False
        if not self._final:
            self._final = True
            return True
        return self._enter(later)

    @property
    def _path(self) -> Path:
        return self._folder / segment_name(*self._segment)

    def _move(self, entries: list[Entry], wanted: int, most: int = _FRAME_BYTES) -> int | None:
        """Go on by a block of at most `most` bytes; how much of the `wanted` it gave. None: there is nothing more.

        What is no frame is judged when all before it is on its way.
        """
        before = self._offset
        taken = self._take(entries, wanted, min(_BLOCK_BYTES, most))
        if self._offset == before and not entries:
            taken = self._take(entries, wanted, most)  # a frame may be longer than a block
            if self._offset == before:
                self._skip_bad()
        return None if self._offset == before else taken

    def _take(self, entries: list[Entry], wanted: int, block_bytes: int) -> int:
        """Put the next block's entries behind `entries`, bodies of up to about `wanted` bytes; how many it were.

        One loop without a call of ours in it: what is done here is done for each frame that was ever written.
        """
        data = os.pread(self._fd, block_bytes, self._offset)
        view, segment, base, opened, following = memoryview(data), self._segment, self._offset, self._open, self._next
        last, size, offset, taken, closed = len(data) - HEADER_BYTES, len(data), 0, 0, 0
        keep, unpack, new = entries.append, LAYOUT.unpack_from, tuple.__new__  # a third of what `Entry(…)` costs
        while offset <= last and taken < wanted:
            magic, crc, kind, stream, key_bytes, length, sequence, id_ = unpack(data, offset)
            end = offset + 24 + length
            if magic != MAGIC_NOW or length > PAYLOAD_MAX or end > size or crc32(view[offset + 8 : end], SEED) != crc:
                break
            if kind >= CLOSE:
                if opened.pop(id_, None) is not None:
                    closed = end
                if sequence == following[stream]:
                    following[stream] = sequence + 1
                elif not self._is_next(stream, sequence):
                    offset = end
                    continue
                body = offset + HEADER_BYTES + key_bytes
                key = data[offset + HEADER_BYTES : body]
                keep(new(Entry, (kind, STREAMS[stream], sequence, id_, key, data[body:end], segment, base + end)))
                taken += end - body
            elif kind >= OPEN:  # or PROGRESS, which says all that OPEN said
                opened[id_] = segment
            offset = end
        self._offset = base + offset
        if closed:
            self._closed_at = Position(*segment, base + closed)
        return taken

    def _is_next(self, stream: int, sequence: int) -> bool:
        """False for a number that was seen before: after a failed write or sync the same bytes are written again."""
        following = self._next[stream]
        if sequence < following:
            self.figures.duplicates += 1
            return False
        if following:
            self.figures.missing += sequence - following
            _log.error("%s: %s %d to %d are missing", self._path, STREAMS[stream], following, sequence - 1)
        self._next[stream] = sequence + 1
        return True

    def _skip_bad(self) -> None:
        """Go past what is no frame; at the end of a segment that may still grow, wait."""
        rest = os.pread(self._fd, os.fstat(self._fd).st_size - self._offset, self._offset)
        if not rest:
            return
        try:
            whole = frame_at(rest, 0) is not None
        except NewerVersionError as error:
            raise SinkError(f"{self._path}: {error}") from None
        after = next_frame(rest, 1)
        if after > 0 and not whole:
            self.figures.corrupt += 1
            self.figures.corrupt_bytes += after
            _log.error("%s: %d bytes at %d are corrupt and were skipped", self._path, after, self._offset)
            self._offset += after
        elif after < 0 and self._final:
            self.figures.torn_bytes += len(rest)
            _log.warning("%s: the last %d bytes are torn and were skipped", self._path, len(rest))
            self._offset += len(rest)


class JournalFolder:
    """All workers' journals of a node: what the shipper asks for. `figures` sums up over all readers it made."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.figures = Figures()

    def workers(self) -> list[str]:
        """The names of all folders that hold segments."""
        return workers(self._directory)

    def reader(self, worker: str, position: str | None) -> JournalReader:
        """A reader from `position` on; None: from the oldest entry. SinkError: no position is written like this."""
        reader = JournalReader(self._directory, worker, None if position is None else Position.parse(position))
        reader.figures = self.figures
        return reader

    def backlog_bytes(self, positions: Mapping[str, str]) -> int:
        """How much lies behind `positions` (by worker), over all workers; frames and all."""
        return sum(
            _bytes_after(self._directory / worker, Position.parse(positions.get(worker, "0.0.0")))
            for worker in self.workers()
        )


def workers(directory: Path) -> list[str]:
    """The workers that have a journal under `directory`, sorted. [] where there is no such folder."""
    if not directory.is_dir():
        return []
    return sorted(folder.name for folder in directory.iterdir() if folder.is_dir() and _segments(folder))


def _bytes_after(folder: Path, position: Position) -> int:
    total = 0
    for segment in _segments(folder):
        if segment >= position[:2]:
            try:
                size = (folder / segment_name(*segment)).stat().st_size
            except FileNotFoundError:  # freed since it was listed
                continue
            total += size - position.offset if segment == position[:2] else size
    return total


def _segments(folder: Path) -> list[Segment]:
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(found for found in map(segment_of, names) if found is not None)
