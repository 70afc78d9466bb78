"""Reads a worker's journal while it is written: each record once, in order, across rotations, epochs and damage.

It never writes, but it deletes segments: a segment is deleted when all records in it and before it are committed, and
the records of all exchanges that were opened there too. Damaged or missing parts are skipped and counted.

    segments 3.1 (OPEN a, CLOSE a #1, OPEN b), 3.2 (CLOSE b #2, OPEN c); committed: 3.2, after #2
    3.1 is deleted: its records are shipped, and so is #2, which closes b. 3.2 stays, since c is open.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from sidecar.core.checksum import crc32
from sidecar.core.errors import LostStretchError, SinkError
from sidecar.core.record.frame import (
    CLOSE,
    HEADER_BYTES,
    LAYOUT,
    MAGIC_NOW,
    OPEN,
    PAYLOAD_MAX,
    PROGRESS,
    RECORD,
    SEED,
    STREAMS,
    NewerVersionError,
    Position,
    frame_at,
    next_frame,
    segment_name,
)
from sidecar.edge.journal.entry import Entry, Figures, Segment
from sidecar.edge.journal.folder import Folder

_FRAME_BYTES = HEADER_BYTES + PAYLOAD_MAX  # so that any frame fits
_BLOCK_BYTES = 256 << 10  # per read: it fits into the processor's cache while it is parsed
_log = logging.getLogger(__name__)
NeededFrom = Callable[[Path], Position | None]


class JournalReader:
    """One worker's journal from `position` on (None: from its oldest entry). Many readers may read, only one may free.

    `needed_from(folder)`: a position after which another component needs the segments, although they are shipped.
    """

    def __init__(
        self, directory: Path, worker: str, position: Position | None = None, needed_from: NeededFrom | None = None
    ) -> None:
        self.figures = Figures()
        self._needed_from = needed_from
        self._folder = Folder(directory / worker)
        self._from = position
        self._fd = -1
        self._segment: Segment = (0, 0)
        self._offset = 0
        self._final = False  # a later segment existed before this one was last read, so this one cannot grow
        self._next = [0, 0, 0]  # this epoch's next sequence by number of the stream; 0: unknown
        self._open: dict[bytes, Segment] = {}  # exchanges without a record → the segment of their last OPEN or PROGRESS
        self._closed_at = Position(0, 0, 0)  # the end of the last CLOSE that was read

    def read(self, max_bytes: int) -> list[Entry]:
        """The next entries, with bodies of about `max_bytes` in all, at least one entry; [] at the end of the journal.

        LostStretchError, once and before the first entry: bytes before `position` are missing; call it again to
        continue after them. SinkError: a newer version wrote here. OSError: it cannot be read.
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
        """Delete the oldest segments that nothing needs, if all records before `committed` are shipped.

        Returns the number of deleted segments. Nothing is deleted before all closed exchanges that were read are
        committed.
        """
        if committed < self._closed_at:
            return 0
        # In order, and never past an open exchange: a recovery would bill an OPEN again if its CLOSE were deleted.
        needed = min(self._open.values(), default=committed[:2])
        if needed < committed[:2] and self._forget_closed():
            needed = min(self._open.values(), default=committed[:2])
        gone = [segment for segment in self._folder.segments() if segment < min(needed, committed[:2])]
        if gone and self._needed_from is not None and (position := self._needed_from(self._folder.path)) is not None:
            gone = [segment for segment in gone if segment < position[:2]]
        for segment in gone:
            (self._folder.path / segment_name(*segment)).unlink(missing_ok=True)
        return len(gone)

    def close(self) -> None:
        """Close the segment's descriptor; the reader can be used again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._from, self._segment = Position(*self._segment, self._offset), (0, 0)
            self._open.clear()

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def _forget_closed(self) -> bool:
        """Forget exchanges that the worker has closed, although their CLOSE is damaged; True if there were any."""
        closed = self._folder.closed_until() or Position(0, 0, 0)
        known = [id_ for id_, segment in self._open.items() if segment < closed[:2]]
        for id_ in known:
            del self._open[id_]
        return bool(known)

    def _begin(self) -> bool:
        present = self._folder.segments()
        if not present or not self._enter(present[0]):
            return False
        if self._from is not None:
            try:
                self._read_committed(self._from)
            except (SinkError, OSError):
                self._leave()
                raise
            self._check_position(self._from)
        return True

    def _leave(self) -> None:
        os.close(self._fd)
        self._fd, self._segment = -1, (0, 0)
        self._open.clear()

    def _read_committed(self, position: Position) -> None:
        """Read the committed part again, to know the open exchanges and the next numbers."""
        figures, self.figures = self.figures, Figures()
        try:
            while (here := self._here) < position:
                is_last = here[:2] == position[:2]
                most = min(_FRAME_BYTES, position.offset - self._offset) if is_last else _FRAME_BYTES
                if self._move([], _FRAME_BYTES, most) is None and (is_last or not self._advance()):
                    break
        finally:
            self.figures = figures

    def _check_position(self, position: Position) -> None:
        """Check that all bytes before `position` exist. LostStretchError: some are missing; reading continues after it.

        The position never moves back: this may be an old copy of a journal that is shipped from another place.
        """
        here, size = self._here, os.fstat(self._fd).st_size
        if here[:2] != position[:2]:  # its segment is missing, although we never delete it
            lost = position.offset
        elif here >= position:
            return
        elif size < position.offset:
            lost = position.offset - here.offset
            self._offset = position.offset
        elif frame_at(os.pread(self._fd, _FRAME_BYTES, here.offset), 0) is None:
            self.figures.corrupt += 1
            self.figures.corrupt_bytes += position.offset - here.offset
            _log.error(
                "journal %s: the bytes before %d are corrupt, but were shipped: nothing is lost",
                self._path,
                position.offset,
            )
            self._offset = position.offset
            return
        else:  # within an entry, so the position is of another journal: rather repeat a record than lose it
            lost = 0
        raise LostStretchError(
            f"{self._folder.path}: the journal lacks {lost} bytes before position {position}, which were shipped: the"
            f" disk lost them (a power failure with durability: os) or files were replaced. Records after them that"
            f" were not shipped yet are lost. Shipping continues with the next record",
            lost,
        )

    def _enter(self, segment: Segment) -> bool:
        try:
            fd = os.open(self._folder.path / segment_name(*segment), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # deleted, or abandoned by its writer, since it was listed
            return False
        if self._fd >= 0:
            os.close(self._fd)
        if segment[0] != self._segment[0]:
            # Numbers begin at 1 with an epoch; from a later segment on, the next number is unknown.
            self._next = [0, 1, 1] if segment[1] == 1 else [0, 0, 0]
        self._fd, self._segment, self._offset, self._final = fd, segment, 0, False
        return True

    def _advance(self) -> bool:
        """Go to the next segment, but read this one once more first: it may have grown before the next one existed."""
        later = next((segment for segment in self._folder.segments() if segment > self._segment), None)
        if later is None:
            return False
        if not self._final:
            self._final = True
            return True
        return self._enter(later)

    @property
    def _here(self) -> Position:
        return Position(*self._segment, self._offset)

    @property
    def _path(self) -> Path:
        return self._folder.path / segment_name(*self._segment)

    def _move(self, entries: list[Entry], wanted: int, most: int = _FRAME_BYTES) -> int | None:
        """Read a block of at most `most` bytes. Returns the bytes of bodies that it added; None: there is nothing more.

        Unreadable bytes are skipped only when all entries before them are returned.
        """
        before = self._offset
        taken = self._take(entries, wanted, min(_BLOCK_BYTES, most))
        if self._offset == before and not entries:
            taken = self._take(entries, wanted, most)  # a frame may be longer than a block
            if self._offset == before:
                self._skip_bad()
        return None if self._offset == before else taken

    def _take(self, entries: list[Entry], wanted: int, block_bytes: int) -> int:
        """Append the next block's entries to `entries`, with bodies of about `wanted` bytes. Returns the bytes added.

        It is one loop without calls of our own functions, since it runs for each frame that was ever written.
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
            if CLOSE <= kind <= RECORD:
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
            elif OPEN <= kind <= PROGRESS:  # a PROGRESS entry replaces the OPEN
                opened[id_] = segment
            offset = end
        self._offset = base + offset
        if closed:
            self._closed_at = Position(*segment, base + closed)
        return taken

    def _is_next(self, stream: int, sequence: int) -> bool:
        """False for a repeated number: after a failed write or sync the same bytes are written again."""
        following = self._next[stream]
        if sequence < following:
            self.figures.duplicates += 1
            return False
        if following:
            self.figures.missing += sequence - following
            _log.error("journal %s: %s %d to %d are missing", self._path, STREAMS[stream], following, sequence - 1)
        self._next[stream] = sequence + 1
        return True

    def _skip_bad(self) -> None:
        """Skip bytes that are not a frame; at the end of a segment that may still grow, wait."""
        rest = os.pread(self._fd, max(0, os.fstat(self._fd).st_size - self._offset), self._offset)
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
            _log.error("journal %s: %d bytes at %d are corrupt and were skipped", self._path, after, self._offset)
            self._offset += after
        elif after < 0 and self._final:
            self.figures.torn_bytes += len(rest)
            _log.warning("journal %s: the last %d bytes are torn and were skipped", self._path, len(rest))
            self._offset += len(rest)
