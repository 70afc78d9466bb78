"""Ids: 26 characters of Crockford's base 32, as in ULID: 10 of milliseconds, 12 of this process, 4 of a number.

Ids of one process ascend and never repeat, also where the clock steps back; two processes share no id as long as their
60 random bits differ.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from sidecar.core.digits import BASE32, BASE32_PAIRS

RANDOM_BITS: Final = 60


def derived_id(key: str, time_us: int) -> bytes:
    """The id of a record that is identified by its content: as if made at `time_us`, and the rest is a digest of `key`.

    The same content has the same id in every process, so consumers drop the copy.
    """
    number = (time_us // 1000 << 80) + int.from_bytes(sha256(key.encode("utf-8", "surrogatepass")).digest()[:10], "big")
    return "".join(BASE32[number >> shift & 31] for shift in range(125, -1, -5)).encode()


class Ids:
    """Mints ids for one process. `random` is its own 60 random bits."""

    __slots__ = ("_count", "_ms", "_own", "_stem", "_upper", "_upper_ms")

    def __init__(self, random: int) -> None:
        self._own = b"".join(BASE32_PAIRS[random >> shift & 1023] for shift in range(RANDOM_BITS - 10, -1, -10))
        self._ms = self._upper_ms = -1
        self._upper = self._stem = b""
        self._count = 0

    def mint(self, now_ms: int) -> bytes:
        """The next id, dated `now_ms` (since the Unix epoch), or the last one's ms where the clock stepped back."""
        if now_ms > self._ms or self._count == 1024:
            self._turn(now_ms)
        count = self._count
        self._count = count + 1
        return self._stem + BASE32_PAIRS[count]

    def _turn(self, now_ms: int) -> None:
        """A new ms, or the next 1,024 of this one; past a million in one ms the next ms is taken in advance."""
        self._count = 0
        if now_ms <= self._ms:
            high = BASE32_PAIRS.index(self._stem[-2:]) + 1
            if high < 1024:
                self._stem = self._stem[:-2] + BASE32_PAIRS[high]
                return
            now_ms = self._ms + 1
        self._ms = now_ms
        if self._upper_ms != now_ms >> 10:
            self._upper_ms = now_ms >> 10
            self._upper = b"".join(BASE32_PAIRS[now_ms >> shift & 1023] for shift in (40, 30, 20, 10))
        self._stem = self._upper + BASE32_PAIRS[now_ms & 1023] + self._own + b"00"
