"""The counters in memory, for one worker: the rule of core/decision applied to a dict.

Expired entries are ignored, and removed while others are written, so the memory is bounded by the live entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush, heapreplace
from typing import Any

from sidecar.core.decision import MARK_LIFE_US, Decision, Write, changes_nothing, extend, reserve, settle
from sidecar.core.decision.state import State
from sidecar.core.errors import StoreError
from sidecar.core.limits import NEVER_US, Checks, id_us
from sidecar.core.limits.base import WALLET
from sidecar.core.native import mypyc_attr
from sidecar.ports import Clock, Local

Done = Callable[[Decision | StoreError], None]

DROPPED_MAX = 64  # expired keys by one call


@mypyc_attr(allow_interpreted_subclasses=True)
class MemoryCounters(Local):
    """`Counters` that answer immediately. `state`, read by the rule: key → stored value.

    `charged` is called with the key of each wallet that a settle changes.
    """

    def __init__(self, clock: Clock) -> None:
        self.charged: Callable[[str], None] = _ignore
        self._now_us = clock.now_us
        self._expiries: dict[str, int] = {}
        self._due: list[tuple[int, str]] = []  # a heap with each key once; a key that expires later now is pushed again
        self.state = State()

    def reserve(self, id: bytes, checks: Checks, done: Done) -> None:
        """Reserve all of `checks` or none of them; in the current windows, if theirs have passed."""
        now_us = self._now_us()
        if self._due and self._due[0][0] <= now_us:
            self._drop(now_us)
        part = self.state.of(checks)
        decision, writes = reserve(part, id, checks, now_us)
        if decision is None:
            decision, writes = reserve(part, id, checks.at(now_us), now_us)
        self._store(part, writes, now_us)
        done(decision or StoreError("memory: no window of these limits contains the clock's time"))

    def charge_unconditionally(self, id: bytes, checks: Checks, done: Done) -> None:
        """Charge past the limits too, in the windows of `checks` even if they have passed. Once per id."""
        done(self._charge(id, checks, self._now_us()))

    def _charge(self, id: bytes, checks: Checks, now_us: int) -> Decision:
        self._drop(now_us)
        part = self.state.of(checks)
        decision, writes = reserve(part, id, checks, now_us, force=True)
        self._store(part, writes, now_us)
        assert decision is not None  # noqa: S101 - a forced charge needs no current window
        return decision

    def settle(
        self, id: bytes, checks: Checks, actual: Sequence[int], failed: Callable[[StoreError], None] | None = None
    ) -> None:
        """Replace the reserved units by `actual[i]`. It never fails."""
        if changes_nothing(checks, actual):
            return
        self._settle(id, checks, actual, self._now_us())
        if checks.has_wallet:
            for check in checks.entries:
                if check.kind.stored_as == WALLET:
                    self.charged(check.keys[0])

    def _settle(self, id: bytes, checks: Checks, actual: Sequence[int], now_us: int) -> None:
        self._drop(now_us)
        part = self.state.of(checks)
        self._store(part, settle(part, id, checks, actual, now_us, now_us - id_us(id)), now_us)

    # Saved state: a start reads the rows back and replays the journal.

    def replay_reserve(self, id: bytes, checks: Checks, at_us: int) -> None:
        """Repeat a reservation that was made at `at_us`; once per id."""
        self._charge(id, checks, at_us)

    def replay_settle(self, id: bytes, checks: Checks, actual: Sequence[int], at_us: int) -> None:
        """Repeat a settle that was made at `at_us`. Its reservation is in the state, its mark may be missing."""
        part = self.state.of(checks)
        bucket = checks.bucket(id)
        if id not in part.get(bucket, {}):
            self._store(part, [(bucket, id, "0", at_us + MARK_LIFE_US)], at_us)
        self._settle(id, checks, actual, at_us)

    def store(self, key: str, writes: Iterable[Write], now_us: int) -> None:
        """Store entries of the customer of `key`."""
        self._store(self.state.part(key), writes, now_us)

    def stored(self, index: int) -> list[tuple[str, Any, int]]:
        """Key, value and expiry (0: never written) of all entries in the part at `index`; maps are copies."""
        expiries = self._expiries
        return [
            (key, value.copy() if type(value) is dict else value, expiries.get(key, 0))
            for key, value in self.state.parts[index].items()
        ]

    def extend(self, exchanges: Sequence[tuple[bytes, Checks]]) -> None:
        now_us = self._now_us()
        for id_, checks in exchanges:
            part = self.state.of(checks)
            self._store(part, extend(part, id_, checks, now_us, now_us - id_us(id_)), now_us)

    def peek(self, key: str) -> Any:
        return self.state.get(key)

    def put(self, key: str, value: Any, expire_us: int) -> None:
        self.store(key, [(key, None, value, expire_us)], self._now_us())

    def forget(self, keys: Sequence[str]) -> None:
        """Remove entries without an expiry: wallets and their parts."""
        for key in keys:
            self.state.pop(key, None)

    def _store(self, state: dict[str, Any], writes: Iterable[Write], now_us: int) -> None:
        expiries = self._expiries
        for key, member, value, expire_us in writes:
            if member is None:
                state[key] = value
            elif value is None:
                if key in state:
                    state[key].pop(member, None)
                continue
            elif type(value) is int:
                _put_slot(state, key, member, value, now_us)
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

    def _drop(self, now_us: int) -> None:
        """Remove expired keys, at most DROPPED_MAX per call; the others are ignored by every read."""
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


def _ignore(_key: str) -> None:
    """The default of `charged`."""


def _put_slot(state: dict[str, Any], key: str, member: bytes | int, until_us: int, now_us: int) -> None:
    """Put a slot, and remove the expired ones, which were never returned."""
    members = state.setdefault(key, {})
    for gone in [other for other, expiry_us in members.items() if expiry_us <= now_us]:
        del members[gone]
    members[member] = until_us
