"""The counters in memory, for one worker: the rule of core/decision on a dict.

What has expired is not seen any more, and is dropped as others are written, so memory is bounded by what is live.
"""

from __future__ import annotations

from heapq import heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Any

from sidecar.core.counter import NEVER_US, id_us
from sidecar.core.decision import Decision, Write, changes_nothing, reserve, settle
from sidecar.core.errors import StoreError
from sidecar.ports import Local

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.core.counter import Checks
    from sidecar.ports import Clock

    Done = Callable[[Decision | StoreError], None]


DROPPED_MAX = 64  # expired keys by one call


class MemoryCounters(Local):
    """`Counters` that answer at once. `state` is what the rule reads: key → stored value."""

    def __init__(self, clock: Clock) -> None:
        self._now_us = clock.now_us
        self._expiries: dict[str, int] = {}
        self._due: list[tuple[int, str]] = []  # each key once; where its expiry was put off since, it goes back in
        self.state: dict[str, Any] = {}

    def reserve(self, id: bytes, checks: Checks, done: Done) -> None:
        """Ask all of `checks`, all or none; where their windows have passed, in those of now."""
        now_us = self._now_us()
        if self._due and self._due[0][0] <= now_us:
            self._drop(now_us)
        decision, writes = reserve(self.state, id, checks, now_us)
        if decision is None:
            decision, writes = reserve(self.state, id, checks.at(now_us), now_us)
        self._store(writes, now_us)
        done(decision or StoreError("memory: no window of these limits holds the time"))

    def force(self, id: bytes, checks: Checks, done: Done) -> None:
        """Reserve without asking, in the windows of `checks` even if they have passed. Once for an id, as ever."""
        now_us = self._now_us()
        self._drop(now_us)
        decision, writes = reserve(self.state, id, checks, now_us, force=True)
        self._store(writes, now_us)
        assert decision is not None  # noqa: S101 - whatever the time is
        done(decision)

    def settle(
        self, id: bytes, checks: Checks, truth: Sequence[int], failed: Callable[[StoreError], None] | None = None
    ) -> None:
        """Replace what was reserved by `truth[i]` units. It never fails."""
        if changes_nothing(checks, truth):
            return
        now_us = self._now_us()
        self._drop(now_us)
        self._store(settle(self.state, id, checks, truth, now_us, now_us - id_us(id)), now_us)

    def forget(self, keys: Sequence[str]) -> None:
        """Drop what has no expiry of its own: wallets, and what belongs to them."""
        for key in keys:
            self.state.pop(key, None)

    def _store(self, writes: list[Write], now_us: int) -> None:
        state, expiries = self.state, self._expiries
        for key, member, value, expire_us in writes:
            if member is None:
                state[key] = value
            elif value is None:
                self._remove(key, member)
                continue
            elif type(value) is int:
                self._put_slot(key, member, value, now_us)
            elif (members := state.get(key)) is not None:
                members[member] = value
            else:
                state[key] = {member: value}
            known_us = expiries.get(key)
            if known_us is None:
                if expire_us == NEVER_US:
                    continue
                heappush(self._due, (expire_us, key))
            elif expire_us <= known_us:
                continue
            expiries[key] = expire_us

    def _put_slot(self, key: str, member: bytes | int, until_us: int, now_us: int) -> None:
        """Those that nobody gave back make room."""
        members = self.state.setdefault(key, {})
        for gone in [other for other, expiry_us in members.items() if expiry_us <= now_us]:
            del members[gone]
        members[member] = until_us

    def _remove(self, key: str, member: bytes | int) -> None:
        members = self.state.get(key)
        if members is not None:
            members.pop(member, None)

    def _drop(self, now_us: int) -> None:
        """Drop keys whose time has come, a few at a time: what is left of them is not seen."""
        due, expiries = self._due, self._expiries
        for _ in range(DROPPED_MAX):
            if not due or due[0][0] > now_us:
                break
            key = due[0][1]
            expire_us = expiries[key]
            if expire_us > now_us:
                heapreplace(due, (expire_us, key))
            else:
                heappop(due)
                del expiries[key]
                self.state.pop(key, None)
