"""Exact sets of the numbers and ids seen, in memory that does not grow with the records.

Numbers of a source are bits in blocks of 65,536; a block that is full is only its key. Blocks can be incomplete at the
same time as far as records arrive out of order. Ids are ULIDs: those of one half minute share their first seven
characters, so they are kept as sets by these. Only the sets used last are in memory, of 1,000,000 ids together (about
100 MB); the others are in a temporary file, 8 bytes for each id, and are read back where a late id asks for them.

Example: ids 01M8N97TG9… and 01M8N97TH0… are in the set `01M8N97`. When ids of later half minutes have pushed it out, a
copy of the first reads 8 bytes for each of its ids from the file, and is found.
"""

from __future__ import annotations

import tempfile
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from typing import IO

EXAMPLES = 20  # gaps that are reported of each source
_BLOCK_BITS = 16
_BLOCK = 1 << _BLOCK_BITS
_LIVE_IDS = 1_000_000
_ULID_CHARS = 26
_BUCKET_CHARS = 7
_OTHERS = 64  # sets of other ids, which are not ULIDs of this millennium: those derived from a report's content


class Numbers:
    """The numbers seen from one source. `first` and `last` are 0 before the first number."""

    __slots__ = ("_blocks", "_full", "_held", "claimed", "count", "first", "last")

    def __init__(self) -> None:
        self.count = self.first = self.last = 0
        self.claimed = 0  # the highest number that a checkpoint of this source says to be written
        self._full: set[int] = set()
        self._blocks: dict[int, bytearray] = {}  # those that are not full, and how many numbers each holds
        self._held: dict[int, int] = {}

    def add(self, number: int) -> bool:
        """False where the number was there already."""
        key = number >> _BLOCK_BITS
        bits = self._blocks.get(key)
        if bits is None:
            if key in self._full:
                return False
            bits = self._blocks[key] = bytearray(_BLOCK >> 3)
            self._held[key] = 0 if key else 1  # there is no number 0
        place, bit = (number & _BLOCK - 1) >> 3, 1 << (number & 7)
        if bits[place] & bit:
            return False
        bits[place] |= bit
        self._held[key] += 1
        if self._held[key] == _BLOCK:
            self._full.add(key)
            del self._blocks[key], self._held[key]
        self.count += 1
        self.last = max(self.last, number)
        if number < self.first or not self.first:
            self.first = number
        return True

    def __contains__(self, number: int) -> bool:
        key = number >> _BLOCK_BITS
        bits = self._blocks.get(key)
        return key in self._full if bits is None else bool(bits[(number & _BLOCK - 1) >> 3] & 1 << (number & 7))

    @property
    def before(self) -> int:
        """How many are missing before the first."""
        return max(self.first - 1, 0)

    @property
    def missing(self) -> int:
        """How many are missing after the first, up to the last or to what a checkpoint says, whichever is higher."""
        return max(self.last, self.claimed) - self.before - self.count

    def gaps(self) -> list[tuple[int, int]]:
        """The first gaps after the first number, as (from, to), both missing."""
        gaps: list[tuple[int, int]] = []
        end = max(self.last, self.claimed)
        keys = sorted((*self._full, *self._blocks))
        number = max(self.first, 1)
        while number <= end and len(gaps) < EXAMPLES and self.missing:
            if number in self:
                number = self._end_of_run(number)
                continue
            start = number
            while number <= end and number not in self:
                number = self._end_of_void(number, keys, end)
            gaps.append((start, min(number - 1, end)))
        return gaps

    def _end_of_run(self, number: int) -> int:
        return (
            (number | _BLOCK - 1) + 1 if self._blocks.get(number >> _BLOCK_BITS, self._blocks) is None else number + 1
        )

    def _end_of_void(self, number: int, keys: list[int], end: int) -> int:
        key = number >> _BLOCK_BITS
        if key in self._blocks:
            return number + 1
        later = bisect_right(keys, key)
        return keys[later] << _BLOCK_BITS if later < len(keys) else end + 1


class Ids:
    """The ids seen, as 64-bit hashes: two ids of one half minute are taken for one with a probability below 10^-7."""

    def __init__(self, live: int = _LIVE_IDS) -> None:
        self._live = live
        self._count = 0  # in memory
        self._buckets: OrderedDict[str, tuple[set[int], list[int]]] = (
            OrderedDict()
        )  # all, and those not in the file yet
        self._places: dict[str, list[tuple[int, int]]] = {}  # in the file: offset and number of ids
        self._file: IO[bytes] | None = None

    def add(self, id_: str) -> bool:
        """False where the id was there already."""
        name = _bucket(id_)
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._load(name)
        else:
            self._buckets.move_to_end(name)
        ids, fresh = bucket
        mark = hash(id_)
        if mark in ids:
            return False
        ids.add(mark)
        fresh.append(mark)
        self._count += 1
        return True

    def close(self) -> None:
        """Remove the temporary file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _load(self, name: str) -> tuple[set[int], list[int]]:
        while self._count > self._live and self._buckets:
            self._store(*self._buckets.popitem(last=False))
        bucket: tuple[set[int], list[int]] = (set(self._stored(name)), [])
        self._count += len(bucket[0])
        self._buckets[name] = bucket
        return bucket

    def _stored(self, name: str) -> Iterator[int]:
        for offset, number in self._places.get(name, ()):
            assert self._file is not None  # noqa: S101 - what has a place is in the file
            self._file.seek(offset)
            yield from array("q", self._file.read(8 * number))

    def _store(self, name: str, held: tuple[set[int], list[int]]) -> None:
        ids, fresh = held
        self._count -= len(ids)
        if not fresh:
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="sidecar-ids-")  # noqa: SIM115 - `close` ends it
        self._places.setdefault(name, []).append((self._file.seek(0, 2), len(fresh)))
        self._file.write(array("q", fresh).tobytes())


def _bucket(id_: str) -> str:
    if len(id_) == _ULID_CHARS and id_[0] == "0":
        return id_[:_BUCKET_CHARS]
    return str(hash(id_) % _OTHERS)
