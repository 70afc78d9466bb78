"""First attempts of requests with an Idempotency-Key, in memory, for one worker: ids by the digest of customer and key.

It answers immediately. Digests and ids are stored for their window. Beyond the cap the oldest is removed, and its retry
counts as a first attempt again.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

from sidecar.core.errors import StoreError
from sidecar.core.identity import Identity
from sidecar.ports import Clock

CAP = 65_536


class MemoryRetries:
    """`ports.Retries` on a dictionary of up to CAP keys. Windows run on the monotonic clock.

    `note(digest, id, until_us)` is called for each first attempt; a later process passes the same to `restore`.
    """

    def __init__(self, clock: Clock, note: Callable[[bytes, bytes, int], None] | None = None) -> None:
        self._now_us, self._mono_us = clock.now_us, clock.mono_us
        self._note = note
        self._firsts: dict[bytes, tuple[bytes, int]] = {}  # digest → id, end of its window; oldest first

    def first(
        self, identity: Identity, key: bytes, window_us: int, id: bytes, done: Callable[[bool | StoreError], None]
    ) -> None:
        digest, now_us = _digest(identity, key), self._mono_us()
        held, until_us = self._firsts.get(digest, (b"", 0))
        if now_us >= until_us:
            self._firsts.pop(digest, None)  # so that the new entry is the newest
            self._make_room(now_us)
            self._firsts[digest] = id, now_us + window_us
            held = id
            if self._note is not None:
                self._note(digest, id, self._now_us() + window_us)
        done(held == id)

    def forget(self, identity: Identity, key: bytes, id: bytes) -> None:
        self.drop(_digest(identity, key), id)

    def held(self) -> list[tuple[bytes, bytes, int]]:
        """All entries: digest, id, and the end of the window by the wall clock."""
        offset_us = self._now_us() - self._mono_us()
        return [(digest, id_, until_us + offset_us) for digest, (id_, until_us) in self._firsts.items()]

    def restore(self, digest: bytes, id: bytes, until_us: int) -> None:
        """Restore an entry until `until_us` by the wall clock, unless another exchange has been first since."""
        now_us = self._mono_us()
        held, ends_us = self._firsts.get(digest, (id, 0))
        if held == id or now_us >= ends_us:
            self._firsts.pop(digest, None)
            self._make_room(now_us)
            self._firsts[digest] = id, now_us + until_us - self._now_us()

    def drop(self, digest: bytes, id: bytes) -> None:
        """As `forget`, by the digest."""
        if self._firsts.get(digest, (b"",))[0] == id:
            del self._firsts[digest]

    def _make_room(self, now_us: int) -> None:
        """Remove up to two of the oldest entries: ended ones, and if the cap is reached, others too."""
        for _ in range(2):
            digest, (_, until_us) = next(iter(self._firsts.items()), (b"", (b"", now_us + 1)))
            if until_us > now_us and len(self._firsts) < CAP:
                break
            del self._firsts[digest]


def _digest(identity: Identity, key: bytes) -> bytes:
    customer = identity.customer.encode("utf-8", "surrogatepass")
    return sha256(b"%d:%b%b" % (len(customer), customer, key)).digest()
