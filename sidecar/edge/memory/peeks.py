"""How much of limits is left in the counters of a node without Redis."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.core.decision.peek import Peeked, peek
from sidecar.core.errors import StoreError
from sidecar.core.limits import Checks
from sidecar.edge.memory.counters import MemoryCounters
from sidecar.ports import Clock, Peeks


class MemoryPeeks(Peeks):
    """`Peeks` of counters in memory, which answer immediately."""

    def __init__(self, counters: MemoryCounters, clock: Clock) -> None:
        self._state = counters.state
        self._now_us = clock.now_us

    def peek(self, checks: Checks, done: Callable[[Peeked | StoreError], None]) -> None:
        now_us = self._now_us()
        part = self._state.of(checks)
        peeked = peek(part, checks, now_us) or peek(part, checks.at(now_us), now_us)
        done(peeked or StoreError("memory: no window of these limits contains the clock's time"))
