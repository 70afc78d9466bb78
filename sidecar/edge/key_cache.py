"""A bounded cache before a store of keys, and itself one: found and unknown digests, each with its time to live.

Nothing is served past its time while the store answers; while it does not, a known key is served up to the stale bound
and counted. A flood of unknown keys cannot push out a known one: they are bounded apart.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from sidecar.core.errors import StoreError
from sidecar.ports import Keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.core.identity import Identity
    from sidecar.ports import Clock, Probe

    Done = Callable[[Identity | StoreError | None], None]


class CacheBounds(NamedTuple):
    """How many entries, and for how many µs each.

    `ttl_us` and `unknown_ttl_us` bound how late a change is seen when its message is lost; `stale_us` comes on top
    while the store is away, which is then asked for one key once in `ask_again_us`.
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
    """Wraps `keys` and is `ports.Keys`. Times run on the monotonic clock; a key's own end on the wall clock."""

    def __init__(self, keys: Keys, clock: Clock, probe: Probe, bounds: CacheBounds | None = None) -> None:
        self._keys = keys
        self._clock = clock
        self._probe = probe
        self._bounds = bounds or CacheBounds()
        self._known: OrderedDict[bytes, _Entry] = OrderedDict()
        self._unknown: OrderedDict[bytes, int] = OrderedDict()
        self._epoch = 0  # entries of an older one are asked for again
        self._changes = 0  # an answer to a question from before a change is not kept

    def known(self, digest: bytes) -> Identity | None:
        """As the store said, at most the time to live ago."""
        entry = self._known.get(digest)
        if entry is None or self._clock.mono_us() >= entry.fresh_until_us or entry.epoch != self._epoch:
            return None
        self._known.move_to_end(digest)
        return entry.identity

    def find(self, digest: bytes, done: Done) -> None:
        """As the store would say, at most the time to live ago; at once where it is cached."""
        identity = self.known(digest)
        if identity is not None:
            done(identity)
            return
        if digest not in self._known and self._clock.mono_us() < self._unknown.get(digest, 0):
            done(None)
            return
        changes = self._changes
        self._keys.find(digest, lambda found: self._answer(digest, found, changes, done))

    def forget(self, digest: bytes) -> None:
        """This key has changed in the store."""
        self._changes += 1
        self._known.pop(digest, None)
        self._unknown.pop(digest, None)

    def clear(self) -> None:
        """Any key may have changed: all are asked for again. What is known is served only while the store is away."""
        self._changes += 1
        self._epoch += 1
        self._unknown.clear()

    def _answer(self, digest: bytes, found: Identity | StoreError | None, changes: int, done: Done) -> None:
        if isinstance(found, StoreError):
            done(self._stale(digest) or found)
            return
        if changes == self._changes:
            found = self._keep(digest, found)
        done(found)

    def _stale(self, digest: bytes) -> Identity | None:
        """What was known before the store went away, for a while, without asking it each time."""
        entry = self._known.get(digest)
        now_us = self._clock.mono_us()
        if entry is None or now_us >= entry.stale_until_us:
            return None
        entry.epoch = self._epoch
        entry.fresh_until_us = min(now_us + self._bounds.ask_again_us, entry.stale_until_us)
        self._probe.count("keys_stale")
        return entry.identity

    def _keep(self, digest: bytes, found: Identity | None) -> Identity | None:
        now_us = self._clock.mono_us()
        if found is None:
            self._known.pop(digest, None)
            self._unknown[digest] = now_us + self._bounds.unknown_ttl_us
            _bound(self._unknown, self._bounds.unknown)
            return None
        before = self._known.get(digest)
        if before is not None and before.identity.same_as(found):
            found = before.identity
        fresh_us = self._bounds.ttl_us
        stale_us = fresh_us + self._bounds.stale_us
        if found.expires_us:
            left_us = found.expires_us - self._clock.now_us()
            fresh_us, stale_us = min(fresh_us, left_us), min(stale_us, left_us)
        self._known[digest] = _Entry(found, self._epoch, now_us + fresh_us, now_us + stale_us)
        self._known.move_to_end(digest)
        self._unknown.pop(digest, None)
        _bound(self._known, self._bounds.known)
        return found


def _bound(entries: OrderedDict[bytes, _Entry] | OrderedDict[bytes, int], most: int) -> None:
    while len(entries) > most:
        entries.popitem(last=False)
