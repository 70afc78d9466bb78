"""Charges that the store does not have yet after an outage, and their payment: in batches, the newest first.

A debt that the store may have applied is sent again under its own id while the store's mark of that id can exist, so
that it counts once. Later nobody knows whether it was counted, so it is given up: the counter drifts, the bill does not
change. Before a debt is sent for the first time, the file says durably that it was sent, so that a successor never
takes it for unsent. If the file can neither be written nor removed, nothing is sent.

A rate is charged only the units that have not leaked since, so the newest debts are sent first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Final

from sidecar.core.decision import Decision
from sidecar.core.errors import StoreError
from sidecar.core.limits import Check, Checks, Limit
from sidecar.core.limits.pace import OutageTime
from sidecar.edge.degraded.ledger import Ledger
from sidecar.edge.degraded.outage import Debt
from sidecar.ports import Clock, Counters

CAP: Final = 100_000  # debts of single exchanges; beyond it they are added up by counter
BATCH: Final = 32  # debts sent in one iteration of the loop
MARKED: Final = 1_024  # debts marked as sent by one synced line, since a sync of a disk takes milliseconds
GIVE_UP_US: Final = 150_000_000  # a mark in the store lives for 180 s
_CACHED: Final = 4_096


Drifted = Callable[[bytes, "Checks", Sequence[int]], None]


def nobody_counts(_id: bytes, _checks: Checks, _actual: Sequence[int]) -> None:
    """Debts that are given up are not counted by limit."""


class Debts:
    """All debts of one worker.

    `on_reply(answered)` is called for each reply, `on_batch_done` after the last one of a batch. Plain integers:
    `paid`, `lost` (given up: too old, or both caps were reached).
    """

    def __init__(
        self, store: Counters, clock: Clock, new_id: Callable[[], bytes], ledger: Ledger, drifted: Drifted
    ) -> None:
        self._drifted = drifted
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._ledger = ledger
        self._outage_times: dict[Limit, OutageTime | None] = {}
        self._with_costs: dict[tuple[Checks, tuple[int, ...]], Checks] = {}  # a cache
        self._taken: list[bytes] = []
        self._unsent: list[bytes] = []
        self._marked: set[bytes] = set()  # not sent, although the file says so
        self.by_id: dict[bytes, Debt] = {}
        self.sums = ledger.outage.sums
        self.waiting = 0  # for so many replies
        self.paid = self.lost = 0
        self.on_reply: Callable[[bool], None] = lambda _answered: None
        self.on_batch_done: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self.by_id) + len(self.sums)

    def adopt(self) -> bool:
        """Take over the debts of the previous process; False: it left no file."""
        outage = self._ledger.adopt(self._clock.now_us())
        if outage is None:
            return False
        for debt in outage.doubtful:
            self._give_up(b"", debt.checks, debt.actual)
        self.by_id.update(outage.debts)
        self.sums.update(outage.sums)
        return True

    # Adding debts.

    def admit(self, id_: bytes, checks: Checks, away_us: int, sent_us: int, values: list[object]) -> None:
        """Add an exchange that was admitted from this worker's share, in an outage since `away_us`."""
        leaks_us = self._leaks_us(checks, away_us) if any(self._times(checks)) else []
        if len(self.by_id) < CAP or id_ in self.by_id:
            debt = self.by_id[id_] = Debt(checks, counted=False, sent_us=sent_us, leaks_us=leaks_us)
            self._ledger.admit(id_, checks, debt, values)
        else:
            for part in self._ledger.outage.add_up(checks, leaks_us, CAP):
                self._give_up(b"", part, None)
            self._ledger.add_up(checks, leaks_us, values)

    def owe(self, id_: bytes, checks: Checks, actual: Sequence[int], sent_us: int) -> None:
        """Add an exchange that is, or may be, reserved in the store, which lacks the actual units."""
        if len(self.by_id) < CAP or id_ in self.by_id:
            debt = self.by_id[id_] = Debt(checks, counted=True, actual=list(actual), sent_us=sent_us)
            self._ledger.owe(id_, debt)
        else:
            self._give_up(id_, checks, actual)

    def settle_again(self, id_: bytes, checks: Checks, actual: Sequence[int], age_us: int) -> None:
        """Add a settle that a predecessor may have sent to the store `age_us` ago."""
        if not 0 <= age_us < GIVE_UP_US:
            self._give_up(id_, checks, actual)
            return
        self.owe(id_, checks, actual, self._clock.now_us() - age_us)

    def settle(self, id_: bytes, debt: Debt, actual: Sequence[int], values: list[object]) -> None:
        """An admitted exchange has ended; it used `actual`."""
        debt.actual = list(actual)
        for index, leaks_us in enumerate(debt.leaks_us):
            if leaks_us:
                check = debt.checks.entries[index]
                key, time = check.keys[0], self._time(check)
                more_us = time.span_us(actual[index] - check.cost) if time is not None else 0
                debt.leaks_us[index] = leaks_us + more_us
                known_us = self._ledger.outage.leaks_us.get(key, leaks_us)
                self._ledger.outage.leaks_us[key] = known_us + more_us
        self._ledger.settle(id_, debt, values)

    def _leaks_us(self, checks: Checks, away_us: int) -> list[int]:
        now_us, known, times_us = self._clock.now_us(), self._ledger.outage.leaks_us, []
        for check, time in zip(checks.entries, self._times(checks), strict=True):
            leaks_us = 0
            if time is not None and check.cost:
                key = check.keys[0]
                leaks_us = known[key] = time.after(known.get(key, 0), check.cost, away_us, now_us)
            times_us.append(leaks_us)
        return times_us

    def _times(self, checks: Checks) -> list[OutageTime | None]:
        return [self._time(check) for check in checks.entries]

    def _time(self, check: Check) -> OutageTime | None:
        limit = check.limit
        if limit not in self._outage_times:
            if len(self._outage_times) >= _CACHED:
                self._outage_times.clear()
            self._outage_times[limit] = check.kind.outage_time(limit, self._ledger.total_workers)
        return self._outage_times[limit]

    # Payment.

    def tend(self) -> None:
        """Rewrite the file if it has grown or a write failed."""
        self._ledger.tend(self.by_id, self.sums, self._clock.now_us())

    def pay(self) -> None:
        """Send the next batch to the store. Nothing is sent while replies of a batch are missing."""
        if self.waiting or not self:
            return
        while self.sums and len(self.by_id) < BATCH:
            self._take_sum()
        now_us = self._clock.now_us()
        batch = [*islice(reversed(self.by_id.items()), BATCH)]
        stale = [id_ for id_, debt in batch if self._is_stale(id_, debt, now_us)]
        for id_ in stale:
            debt = self.by_id.pop(id_)
            self._give_up(id_, debt.checks, debt.actual)
        if stale:
            self._ledger.remove(stale)
        batch = [(id_, debt) for id_, debt in batch if id_ in self.by_id]
        fresh = {id_ for id_, debt in batch if not debt.sent_us or id_ in self._marked}
        if any(not debt.sent_us for _, debt in batch) and not self._mark(now_us):
            return
        self._marked -= fresh
        self.waiting = len(batch) + 1  # 1 for this call, since a reply may be delivered within the loop
        for id_, debt in batch:
            if debt.counted:
                self._take(id_, debt.checks, debt.actual, 0 if id_ in fresh else debt.sent_us)
                self._count_reply()
            else:
                checks, actual = self._charged(debt, now_us)
                self._store.charge_unconditionally(
                    id_, checks, partial(self._replied, id_, debt, checks, actual, id_ in fresh)
                )
        self._count_reply()

    def _is_stale(self, id_: bytes, debt: Debt, now_us: int) -> bool:
        return bool(debt.sent_us) and id_ not in self._marked and not 0 <= now_us - debt.sent_us < GIVE_UP_US

    def _mark(self, now_us: int) -> bool:
        """Write durably that the newest debts are sent, before any of them is; False: the file cannot be written."""
        newest = [*islice((id_ for id_, debt in reversed(self.by_id.items()) if not debt.sent_us), MARKED)]
        if not self._ledger.sent(newest, now_us):
            return False
        for id_ in newest:
            self.by_id[id_].sent_us = now_us
        self._marked.update(newest)
        return True

    def _unmark(self) -> None:
        """The store does not answer: undo the mark of unsent debts, which may wait longer than `GIVE_UP_US`."""
        self._unsent += self._marked
        self._marked.clear()

    def _take_sum(self) -> None:
        debt = self.sums.popitem()[1]
        if debt.checks.must_settle:
            debt.actual = list(debt.checks.costs)  # a hold without a settle would be released
        id_ = self._new_id()  # so that a repeated charge counts once
        self.by_id[id_] = debt
        self._ledger.take_sum(id_, debt)

    def _give_up(self, id_: bytes, checks: Checks, actual: Sequence[int] | None) -> None:
        """The counters are wrong by this; the bill does not change."""
        self.lost += 1
        self._drifted(id_, checks, checks.costs if actual is None else actual)

    def _charged(self, debt: Debt, now_us: int) -> tuple[Checks, Sequence[int] | None]:
        """The checks to charge, and the units to settle them with; of rates, the units that have not leaked."""
        checks, actual = debt.checks, debt.actual
        if not any(debt.leaks_us):
            return checks, actual
        costs = list(checks.costs)
        units = list(checks.costs if actual is None else actual)
        for index, leaks_us in enumerate(debt.leaks_us):
            if leaks_us:
                check = checks.entries[index]
                if (time := self._time(check)) is not None:
                    units[index] = time.unleaked(leaks_us, units[index], now_us)
                costs[index] = min(costs[index], units[index], check.limit.amount)  # the settle charges the rest
        cache_key = (checks, tuple(costs))
        charged = self._with_costs.get(cache_key)
        if charged is None:
            if len(self._with_costs) >= _CACHED:
                self._with_costs.clear()
            charged = checks if cache_key[1] == checks.costs else checks.with_costs(cache_key[1])
            self._with_costs[cache_key] = charged
        return charged, None if actual is None and units == costs else units

    def _replied(
        self,
        id_: bytes,
        debt: Debt,
        sent: Checks,
        actual: Sequence[int] | None,
        new: bool,
        outcome: Decision | StoreError,
    ) -> None:
        if isinstance(outcome, StoreError):
            self.on_reply(False)
            if new and not outcome.maybe_applied:
                self._unsent.append(id_)
            self._unmark()
        else:
            self.on_reply(True)
            if actual is None and debt.actual is not None:  # the exchange has ended since the charge was sent
                pairs = zip(debt.actual, sent.costs, debt.checks.costs, strict=True)
                actual = [max(0, units + had - cost) for units, had, cost in pairs]
            self._take(id_, sent, actual, 0)
        self._count_reply()

    def _take(self, id_: bytes, checks: Checks, actual: Sequence[int] | None, sent_us: int) -> None:
        """The store has counted it; `sent_us`: when the actual units may have been sent for the first time, or 0."""
        self.paid += 1
        del self.by_id[id_]
        self._taken.append(id_)
        if actual is not None:
            self._store.settle(id_, checks, actual, partial(self._unsettled, id_, checks, actual, sent_us))

    def _unsettled(self, id_: bytes, checks: Checks, actual: Sequence[int], sent_us: int, error: StoreError) -> None:
        self.on_reply(False)
        self._unmark()
        self.owe(id_, checks, actual, sent_us or (self._clock.now_us() if error.maybe_applied else 0))

    def _count_reply(self) -> None:
        self.waiting -= 1
        if self.waiting:
            return
        taken, self._taken = self._taken, []
        if taken:
            self._ledger.remove([id_ for id_ in taken if id_ not in self.by_id])
        unsent, self._unsent = self._unsent, []
        unsent = [id_ for id_ in unsent if id_ in self.by_id]
        for id_ in unsent:
            self.by_id[id_].sent_us = 0
        if unsent:
            self._ledger.unsent(unsent)
        self.on_batch_done()
