"""The alerts that this worker has yet to write: each threshold of a counter is returned once.

An alert that is not written within a minute may be returned again. Only counters past their first threshold are
remembered, up to a cap. A forgotten counter's alert may be returned a second time, unless a shared store prevents it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from sidecar.core.decision import Decision
from sidecar.core.limits import left_at
from sidecar.core.limits.base import WALLET
from sidecar.core.record import Alert
from sidecar.core.record.alert import TopUp, balance_alert, balance_counter, window_alert
from sidecar.ports import Clock

AGAIN_US = 60_000_000
CAP = 16_384
_EXACT = frozenset({"exact", "leased"})  # a worker that decides locally does not know the usage
_NEVER = -(2**53)  # less than is ever left


class _Watch:
    """The thresholds of one counter: the percents that are `written`, or `pending` (returned, not written yet).

    `next`: the units of `amount` that are left at the next threshold that is neither. Above it nothing is due.
    """

    __slots__ = ("amount", "next", "pending", "percents", "written")

    def __init__(self) -> None:
        self.written: set[int] = set()
        self.pending: set[int] = set()
        self.percents: tuple[int, ...] = ()
        self.amount = 0
        self.next = _NEVER

    def is_for(self, percents: tuple[int, ...], amount: int) -> bool:
        return self.percents is percents and self.amount == amount

    def wait(self, percents: tuple[int, ...], amount: int) -> None:
        self.percents, self.amount = percents, amount
        waits = (percent for percent in percents if percent not in self.written and percent not in self.pending)
        percent = next(waits, None)
        self.next = _NEVER if percent is None else left_at(amount, percent)


class MemoryAlerts:
    """`ports.Alerts` of a single worker, and the local filter in front of a shared store.

    `topped` returns a wallet's `Wallet.topped` by its key; without it the shared store handles alerts on balances.
    `note(counter, percent)` is called for each written alert; a later process passes the same to `restore`.
    """

    def __init__(
        self,
        clock: Clock,
        topped: Callable[[str], tuple[int, int, str]] | None = None,
        note: Callable[[str, int], None] | None = None,
    ) -> None:
        self._mono_us = clock.mono_us
        self._topped = topped
        self._note = note
        self._watches: dict[str, _Watch] = {}  # by the counter's key, oldest first
        self._pending: deque[tuple[int, _Watch, int]] = deque(maxlen=4 * CAP)  # since (monotonic), of which, percent

    def evaluate(self, decision: Decision, done: Callable[[Alert], None]) -> None:
        if decision.mode not in _EXACT:
            return
        checks, watches = decision.checks, self._watches
        for index, first in checks.alerting:
            left = decision.remaining[index]
            if left > first:
                continue
            check = checks.entries[index]
            watch, limit = watches.get(check.keys[0]), check.limit
            if check.kind.stored_as == WALLET:
                if self._topped is not None:
                    self._evaluate_balance(decision, index, self._topped(check.keys[0]), done)
                continue
            if watch is not None and left > watch.next and watch.is_for(limit.alerts, limit.amount):
                continue
            for percent in self.passed(check.keys[0], limit.alerts, limit.amount, left):
                done(window_alert(decision, index, percent))

    def _evaluate_balance(
        self, decision: Decision, index: int, topped: tuple[int, int, str], done: Callable[[Alert], None]
    ) -> None:
        made_us, amount, grant = topped
        left, percents = decision.remaining[index], decision.checks.entries[index].limit.alerts
        if amount and left <= left_at(amount, percents[0]):
            top_up = TopUp(grant, made_us, amount, balance_counter(decision.checks, index, grant))
            for percent in self.passed(top_up.counter, percents, amount, left):
                done(balance_alert(decision, index, percent, top_up))

    def passed(self, counter: str, percents: tuple[int, ...], amount: int, left: int) -> Sequence[int]:
        """The percents of `amount` that are passed if `left` units are left, and are neither written nor pending."""
        watch = self._watches.get(counter)
        if watch is None:
            watch = self._watch(counter)
        if not watch.is_for(percents, amount):  # a new counter, an edited policy, one more seat
            watch.wait(percents, amount)
        if left > watch.next:
            return ()
        waiting = watch.written | watch.pending
        due = [each for each in percents if left <= left_at(amount, each) and each not in waiting]
        watch.pending.update(due)
        now_us = self._mono_us()
        self._pending.extend((now_us, watch, percent) for percent in due)
        watch.wait(percents, amount)
        return due

    def wrote(self, alert: Alert) -> None:
        watch = self._watches.get(alert.counter)
        if watch is not None:
            watch.written.add(alert.percent)
        if self._note is not None:
            self._note(alert.counter, alert.percent)

    def written(self) -> list[tuple[str, list[int]]]:
        """The written percents by counter."""
        return [(counter, sorted(watch.written)) for counter, watch in self._watches.items() if watch.written]

    def restore(self, counter: str, percents: Iterable[int]) -> None:
        """These percents of a counter were written before."""
        watch = self._watches.get(counter)
        if watch is None:
            watch = self._watch(counter)
        watch.written.update(percents)

    def tick(self) -> None:
        """Call it about once a second: alerts that were returned a minute ago, and not written since, are due again."""
        until_us = self._mono_us() - AGAIN_US
        while self._pending and self._pending[0][0] <= until_us:
            _, watch, percent = self._pending.popleft()
            watch.pending.discard(percent)
            watch.wait(watch.percents, watch.amount)

    def _watch(self, counter: str) -> _Watch:
        if len(self._watches) >= CAP:
            del self._watches[next(iter(self._watches))]
        watch = self._watches[counter] = _Watch()
        return watch
