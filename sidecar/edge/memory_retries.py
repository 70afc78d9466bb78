"""Which attempt was the first, in memory, for one worker: ids by the digest of who asked with which key.

It answers at once. Only digests and ids are kept, each for its window; past the cap the oldest is forgotten first, and
its retry counts as a first attempt again.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.core.errors import StoreError
    from sidecar.core.identity import Identity
    from sidecar.ports import Clock

CAP = 65_536


class MemoryRetries:
    """`ports.Retries` on a dictionary of up to CAP keys. Windows run on the monotonic clock."""

    def __init__(self, clock: Clock) -> None:
        self._mono_us = clock.mono_us
        self._firsts: dict[bytes, tuple[bytes, int]] = {}  # digest → id, when it ends; oldest first

    def first(
        self, identity: Identity, key: bytes, window_us: int, id: bytes, done: Callable[[bool | StoreError], None]
    ) -> None:
        digest, now_us = _digest(identity, key), self._mono_us()
        held, until_us = self._firsts.get(digest, (b"", 0))
        if now_us >= until_us:
            self._firsts.pop(digest, None)  # to the end of the line
            self._make_room(now_us)
            self._firsts[digest] = id, now_us + window_us
            held = id
        done(held == id)

    def forget(self, identity: Identity, key: bytes, id: bytes) -> None:
        digest = _digest(identity, key)
        if self._firsts.get(digest, (b"",))[0] == id:
            del self._firsts[digest]

    def _make_room(self, now_us: int) -> None:
        """Drop what has ended at the head of the line, faster than it grows, and what has not where it is full."""
        for _ in range(2):
            digest, (_, until_us) = next(iter(self._firsts.items()), (b"", (b"", now_us + 1)))
            if until_us > now_us and len(self._firsts) < CAP:
                break
            del self._firsts[digest]


def _digest(identity: Identity, key: bytes) -> bytes:
    customer = identity.customer.encode("utf-8", "surrogatepass")
    return sha256(b"%d:%b%b" % (len(customer), customer, key)).digest()
