"""Which alerts this worker still has to tell: each threshold of a counter is handed over once, until it is written.

What was handed over and not written after a minute may be handed over again. Only counters that stand past their first
threshold are remembered, up to a cap; what is forgotten may be told twice here, unless a shared store remembers it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from sidecar.core.counter import left_at
from sidecar.core.record.alert import window_alert

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.core.decision import Decision
    from sidecar.core.record import Alert
    from sidecar.ports import Clock

AGAIN_US = 60_000_000
CAP = 16_384
_EXACT = frozenset({"exact", "leased"})  # a worker that decides alone does not know what is used
_NEVER = -(2**53)  # less than is ever left


class _Watch:
    """One counter: `told` percents are written, `asked` ones handed over; nothing is to do while `next` is not reached.

    `next`: what is left of `amount` units where the next threshold stands that is neither.
    """

    __slots__ = ("amount", "asked", "next", "percents", "told")

    def __init__(self) -> None:
        self.told: set[int] = set()
        self.asked: set[int] = set()
        self.percents: tuple[int, ...] = ()
        self.amount = 0
        self.next = _NEVER

    def is_of(self, percents: tuple[int, ...], amount: int) -> bool:
        return self.percents is percents and self.amount == amount

    def wait(self, percents: tuple[int, ...], amount: int) -> None:
        self.percents, self.amount = percents, amount
        waits = (percent for percent in percents if percent not in self.told and percent not in self.asked)
        percent = next(waits, None)
        self.next = _NEVER if percent is None else left_at(amount, percent)


class MemoryAlerts:
    """`ports.Alerts` for one worker alone, and the memory before a store that many share.

    Alerts on balances are not its business: what was granted stands in Redis.
    """

    def __init__(self, clock: Clock) -> None:
        self._mono_us = clock.mono_us
        self._watches: dict[str, _Watch] = {}  # by the counter's key, oldest first
        self._asked: deque[tuple[int, _Watch, int]] = deque(maxlen=4 * CAP)  # since when (mono µs), and what

    def look(self, decision: Decision, done: Callable[[Alert], None]) -> None:
        if decision.mode not in _EXACT:
            return
        checks, watches = decision.checks, self._watches
        for index, first in checks.alerting:
            left = decision.remaining[index]
            if left > first:
                continue
            watch, limit = watches.get(checks.keys[index][0]), checks.limits[index]
            if watch is not None and left > watch.next and watch.is_of(limit.alerts, limit.amount):
                continue
            if limit.kind != "balance":
                for percent in self.passed(checks.keys[index][0], limit.alerts, limit.amount, left):
                    done(window_alert(decision, index, percent))

    def passed(self, counter: str, percents: tuple[int, ...], amount: int, left: int) -> Sequence[int]:
        """The percents of `amount` that are used where `left` units are left, and that nobody here tells yet."""
        watch = self._watches.get(counter)
        if watch is None:
            watch = self._watch(counter)
        if not watch.is_of(percents, amount):  # a new counter, a policy that was edited, a seat more
            watch.wait(percents, amount)
        if left > watch.next:
            return ()
        found = [each for each in percents if left <= left_at(amount, each) and each not in watch.told | watch.asked]
        watch.asked.update(found)
        now_us = self._mono_us()
        self._asked.extend((now_us, watch, percent) for percent in found)
        watch.wait(percents, amount)
        return found

    def wrote(self, alert: Alert) -> None:
        watch = self._watches.get(alert.counter)
        if watch is not None:
            watch.told.add(alert.percent)

    def tick(self) -> None:
        """To be called about once a second: what was handed over a minute ago, and not written since, is due again."""
        until_us = self._mono_us() - AGAIN_US
        while self._asked and self._asked[0][0] <= until_us:
            _, watch, percent = self._asked.popleft()
            watch.asked.discard(percent)
            watch.wait(watch.percents, watch.amount)

    def _watch(self, counter: str) -> _Watch:
        if len(self._watches) >= CAP:
            del self._watches[next(iter(self._watches))]
        watch = self._watches[counter] = _Watch()
        return watch
