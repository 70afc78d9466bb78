"""A bounded cache in front of a store of keys: known and unknown digests, each with a time to live.

While the store answers, no entry is used past its time to live. While it does not, a known key is used until
`stale_us` later, and counted. Unknown keys are bounded separately, so that a flood of them cannot evict known keys.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from sidecar.core.errors import StoreError
from sidecar.core.identity import Identity
from sidecar.ports import Clock, Keys, Probe

Done = Callable[[Identity | StoreError | None], None]


class CacheBounds(NamedTuple):
    """The numbers of entries, and their times to live.

    A change whose message is lost takes effect after `ttl_us` (or `unknown_ttl_us`) at the latest. While the store does
    not answer, `stale_us` is added, and the store is asked for the same key once in `ask_again_us`.
    """

    known: int = 100_000
    unknown: int = 10_000
    ttl_us: int = 30_000_000
    unknown_ttl_us: int = 5_000_000
    stale_us: int = 300_000_000
    ask_again_us: int = 1_000_000


class _Entry:
    __slots__ = ("epoch", "fresh_until_us", "identity", "stale_until_us")

    def __init__(self, identity: Identity, epoch: int, fresh_until_us: int, stale_until_us: int) -> None:
        self.identity = identity
        self.epoch = epoch
        self.fresh_until_us = fresh_until_us
        self.stale_until_us = stale_until_us


class KeyCache(Keys):
    """Wraps `keys` and implements `ports.Keys`. Times are monotonic, except a key's own expiry (wall clock)."""

    def __init__(self, keys: Keys, clock: Clock, probe: Probe, bounds: CacheBounds | None = None) -> None:
        self._keys = keys
        self._clock = clock
        self._probe = probe
        self._bounds = bounds or CacheBounds()
        self._known: OrderedDict[bytes, _Entry] = OrderedDict()
        self._unknown: OrderedDict[bytes, int] = OrderedDict()
        self._epoch = 0  # entries of an older epoch are looked up again
        self._changes = 0  # an answer that was requested before a change is not cached

    def known(self, digest: bytes) -> Identity | None:
        """The store's answer, at most a time to live old; None if there is no such answer."""
        entry = self._known.get(digest)
        if entry is None or self._clock.mono_us() >= entry.fresh_until_us or entry.epoch != self._epoch:
            return None
        self._known.move_to_end(digest)
        return entry.identity

    def was_known(self, digest: bytes) -> bool:
        """Whether the key is in the cache, its time to live over or not, or the store knows it without waiting."""
        return digest in self._known or self._keys.was_known(digest)

    def find(self, digest: bytes, done: Done) -> None:
        """The store's answer, at most a time to live old; immediately if it is cached."""
        identity = self.known(digest)
        if identity is not None:
            done(identity)
            return
        if digest not in self._known and self._clock.mono_us() < self._unknown.get(digest, 0):
            done(None)
            return
        changes = self._changes
        self._keys.find(digest, lambda reply: self._answer(digest, reply, changes, done))

    def forget(self, digest: bytes) -> None:
        """The key was changed in the store."""
        self._changes += 1
        self._known.pop(digest, None)
        self._unknown.pop(digest, None)

    def clear(self) -> None:
        """Any key may have changed: look all up again. Cached ones are used only if the store does not answer."""
        self._changes += 1
        self._epoch += 1
        self._unknown.clear()

    def _answer(self, digest: bytes, reply: Identity | StoreError | None, changes: int, done: Done) -> None:
        if isinstance(reply, StoreError):
            done(self._stale(digest) or reply)
            return
        if changes == self._changes:
            reply = self._keep(digest, reply)
        done(reply)

    def _stale(self, digest: bytes) -> Identity | None:
        """The cached identity while the store does not answer, up to `stale_us`. It is asked at most once a second."""
        entry = self._known.get(digest)
        now_us = self._clock.mono_us()
        if entry is None or now_us >= entry.stale_until_us:
            return None
        entry.epoch = self._epoch
        entry.fresh_until_us = min(now_us + self._bounds.ask_again_us, entry.stale_until_us)
        self._probe.count("keys_stale")
        return entry.identity

    def _keep(self, digest: bytes, identity: Identity | None) -> Identity | None:
        now_us = self._clock.mono_us()
        if identity is None:
            self._known.pop(digest, None)
            self._unknown[digest] = now_us + self._bounds.unknown_ttl_us
            _bound(self._unknown, self._bounds.unknown)
            return None
        before = self._known.get(digest)
        if before is not None and before.identity.same_as(identity):
            identity = before.identity
        fresh_us = self._bounds.ttl_us
        stale_us = fresh_us + self._bounds.stale_us
        if identity.expires_us:
            left_us = identity.expires_us - self._clock.now_us()
            fresh_us, stale_us = min(fresh_us, left_us), min(stale_us, left_us)
        self._known[digest] = _Entry(identity, self._epoch, now_us + fresh_us, now_us + stale_us)
        self._known.move_to_end(digest)
        self._unknown.pop(digest, None)
        _bound(self._known, self._bounds.known)
        return identity


def _bound(entries: OrderedDict[bytes, _Entry] | OrderedDict[bytes, int], most: int) -> None:
    while len(entries) > most:
        entries.popitem(last=False)
