"""The counters in memory, for one worker: the rule of core/decision on a dict.

What has expired is not seen any more, and is dropped as others are written, so memory is bounded by what is live.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from sidecar.core.counter import NEVER_US, id_us
from sidecar.core.decision import Decision, Write, changes_nothing, reserve, settle
from sidecar.core.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.core.counter import Checks
    from sidecar.ports import Clock

    Done = Callable[[Decision | StoreError], None]


class MemoryCounters:
    """`Counters` that answer at once. `state` is what the rule reads: key → stored value."""

    def __init__(self, clock: Clock) -> None:
        self._now_us = clock.now_us
        self._expiries: dict[str, int] = {}
        self._due: list[tuple[int, str]] = []  # each key once; where its expiry was put off since, it goes back in
        self.state: dict[str, Any] = {}

    def reserve(self, id: bytes, checks: Checks, done: Done) -> None:
        """Ask all of `checks`, all or none; where their windows have passed, in those of now."""
        now_us = self._now_us()
        self._forget(now_us)
        if not checks.holds(now_us):
            checks = checks.at(now_us)
        done(self._reserve(id, checks, now_us, force=False))

    def force(self, id: bytes, checks: Checks, done: Done) -> None:
        """Reserve without asking, in the windows of `checks` even if they have passed. Once for an id, as ever."""
        now_us = self._now_us()
        self._forget(now_us)
        done(self._reserve(id, checks, now_us, force=True))

    def settle(
        self, id: bytes, checks: Checks, truth: Sequence[int], failed: Callable[[StoreError], None] | None = None
    ) -> None:
        """Replace what was reserved by `truth[i]` units. It never fails."""
        if changes_nothing(checks, truth):
            return
        now_us = self._now_us()
        self._forget(now_us)
        self._store(settle(self.state, id, checks, truth, now_us, now_us - id_us(id)), now_us)

    def forget(self, keys: Sequence[str]) -> None:
        """Drop what has no expiry of its own: wallets, and what belongs to them."""
        for key in keys:
            self.state.pop(key, None)

    def _reserve(self, id: bytes, checks: Checks, now_us: int, *, force: bool) -> Decision | StoreError:
        decision, writes = reserve(self.state, id, checks, now_us, force=force)
        if decision is None:
            return StoreError("memory: no window of these limits holds the time")
        self._store(writes, now_us)
        return decision

    def _store(self, writes: list[Write], now_us: int) -> None:
        for key, member, value, expire_us in writes:
            if member is None:
                self.state[key] = value
            elif value is not None:
                self._put(key, member, value, now_us)
            else:
                self._remove(key, member)
                continue
            if expire_us == NEVER_US:
                continue
            if key not in self._expiries:
                heappush(self._due, (expire_us, key))
            self._expiries[key] = max(expire_us, self._expiries.get(key, 0))

    def _put(self, key: str, member: bytes | int, value: Any, now_us: int) -> None:
        members = self.state.setdefault(key, {})
        if isinstance(value, int):  # a slot: those that nobody gave back make room
            for gone in [other for other, expiry_us in members.items() if expiry_us <= now_us]:
                del members[gone]
        members[member] = value

    def _remove(self, key: str, member: bytes | int) -> None:
        members = self.state.get(key)
        if members is not None:
            members.pop(member, None)

    def _forget(self, now_us: int) -> None:
        """Drop the keys whose time has come."""
        while self._due and self._due[0][0] <= now_us:
            key = heappop(self._due)[1]
            expire_us = self._expiries[key]
            if expire_us > now_us:
                heappush(self._due, (expire_us, key))
            else:
                del self._expiries[key]
                self.state.pop(key, None)
