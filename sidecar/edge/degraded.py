"""Deciding while the store is away: each limit's `on_store_failure` says how, and what was let through is owed.

It is a `Counters` port itself, and one that never fails: every `reserve` ends in a Decision, at once where the store is
known to be away. It lets through at most `over_admission_bound` more than the limit; every unit of it is put into the
counter when the store is back, by the exchange's own id, so that one which the store took after all counts once. What a
customer has is not known here, so a balance denies, or lends its `offline` allowance: once an outage, to each wallet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from sidecar.core.counter import COUNT_MAX
from sidecar.core.decision import Decision
from sidecar.core.errors import StoreError
from sidecar.core.price import dearest
from sidecar.ports import Counters, Local

if TYPE_CHECKING:
    from sidecar.core.counter import Checks
    from sidecar.core.policy import Limit
    from sidecar.ports import Clock

RETRY_US = 1_000_000  # what a degraded denial tells as reset: an outage is not a used-up month
CAP = 100_000  # exchanges owed one by one; beyond it, owed as sums by counter
BATCH = 32  # debts paid in one turn of the loop
PLANS = 4_096  # shares kept ready, one per Checks in use

_Done = Callable[["Decision | StoreError"], None]


def share_of(limit: Limit, workers: int) -> Limit:
    """The limit as one of `workers` applies it alone: its part of the amount, at least 1, and of the rate.

    Of a balance: its part of the offline allowance, by which an empty wallet may go below zero. What is priced costs
    the most that it can, since how far the customer is in its tiers is not known.
    """
    if limit.kind == "balance":
        return replace(limit, amount=limit.offline // workers)
    if limit.kind == "priced":
        return limit if limit.price is None else replace(limit, price=dearest(limit.price))
    return replace(limit, amount=max(1, limit.amount // workers), period_us=limit.period_us * _stretch(limit, workers))


def _stretch(limit: Limit, workers: int) -> int:
    return workers if limit.kind == "rate" else 1


def over_admission_bound(limit: Limit, workers: int) -> int:
    """Units that may pass beyond `limit` per window while the store is away; 0 where it denies or never refuses.

    Of a balance: nano-units, for each customer and outage.
    """
    if limit.over == "allow" or limit.stage != "enforce" or _refuses(limit, workers) or limit.kind == "priced":
        return 0
    return share_of(limit, workers).amount * workers


class _Debt:
    """What the store has yet to be told of one exchange: to count it (`counted`: it has that), then the truth."""

    __slots__ = ("checks", "counted", "local", "truth")

    def __init__(self, checks: Checks, *, counted: bool, local: bool, truth: Sequence[int] | None) -> None:
        self.checks = checks
        self.counted = counted
        self.local = local
        self.truth = truth


class Degraded(Counters):
    """Wraps the shared counters with `local` ones in memory that hold this worker's share.

    Plain integers: `allowed`, `denied` (decisions made alone), `owed` (exchanges and sums yet to be told), `paid`,
    `lost` (debts given up because both caps were reached). `tick` once a second pays debts where no traffic does.

    Past CAP exchanges the truth is not waited for: what was reserved is what is counted.
    """

    def __init__(
        self, inner: Counters, local: Local, clock: Clock, new_id: Callable[[], bytes], workers: int = 1
    ) -> None:
        self._inner = inner
        self._local = local
        self._clock = clock
        self._new_id = new_id
        self._workers = workers
        self._plans: dict[Checks, tuple[Checks, int]] = {}
        self._debts: dict[bytes, _Debt] = {}
        self._sums: dict[tuple[str, ...], Checks] = {}
        self._slots: dict[bytes, Checks] = {}
        self._lent: set[str] = set()  # keys of wallets in `local`, until all that they lent is told
        self._asked = 0
        self._away_since_us = -1
        self._degraded_us = 0
        self.allowed = self.denied = self.paid = self.lost = 0

    @property
    def owed(self) -> int:
        return len(self._debts) + len(self._sums)

    @property
    def degraded_seconds(self) -> int:
        """Whole seconds during which the store did not answer."""
        since_us = self._away_since_us
        return (self._degraded_us + (self._clock.mono_us() - since_us if since_us >= 0 else 0)) // 1_000_000

    def reserve(self, id: bytes, checks: Checks, done: _Done) -> None:
        """Ask the store; where it does not answer, decide alone. Always a Decision."""
        self._inner.reserve(id, checks, partial(self._decided, id, checks, done))

    def force(self, id: bytes, checks: Checks, done: _Done) -> None:
        self._inner.force(id, checks, done)

    def settle(
        self,
        id: bytes,
        checks: Checks,
        truth: Sequence[int],
        failed: Callable[[StoreError], None] | None = None,
    ) -> None:
        """Tell the store the truth, now or when it is back; `failed` is never called."""
        debt = self._debts.get(id) if self._debts else None
        slots = self._slots.pop(id, None) if self._slots else None
        if slots is not None or (debt is not None and debt.local):
            self._local.settle(id, slots or self._plan(checks)[0], truth)
        if debt is not None:
            debt.truth = truth
        else:
            self._inner.settle(id, checks, truth, partial(self._unsettled, id, checks, truth))

    def alone(self, id: bytes, checks: Checks, done: _Done) -> None:
        """Decide alone, at once: the store did not answer another, who asked for this one as well."""
        self._note_away()
        self._decide(id, checks, False, done)  # False: the store was never told of it

    def tick(self) -> None:
        """Try to pay, also without traffic. Call it about once a second."""
        if self.owed and not self._asked:
            self._pay()

    # Deciding alone.

    def _decided(self, id: bytes, checks: Checks, done: _Done, outcome: Decision | StoreError) -> None:
        if type(outcome) is StoreError:
            self._note_away()
            self._decide(id, checks, outcome.maybe_applied, done)
            return
        if self._away_since_us >= 0:
            self._note_back()
        done(outcome)

    def _decide(self, id: bytes, checks: Checks, maybe: bool, done: _Done) -> None:
        scaled, refusing = self._plan(checks)
        if refusing >= 0:
            self._refuse(id, self._refusal(checks, refusing), maybe, done)
        else:
            self._local.reserve(id, scaled, partial(self._shared, id, checks, maybe, done))

    def _shared(self, id: bytes, checks: Checks, maybe: bool, done: _Done, said: Decision | StoreError) -> None:
        if isinstance(said, StoreError):  # a clock that no window holds: nothing is known, so nothing is allowed
            self._refuse(id, self._refusal(checks, 0), maybe, done)
            return
        if not said.allowed:
            self._refuse(id, _answering(said, checks), maybe, done)
            return
        self.allowed += 1
        if checks.slots:
            self._slots[id] = said.checks
        if checks.payers:
            self._lent.update(*_purses(checks))
        self._owe(id, _Debt(checks, counted=False, local=True, truth=None))
        done(_answering(said, checks))

    def _refusal(self, checks: Checks, violated: int) -> Decision:
        zeros = (0,) * len(checks.limits)
        return Decision(checks, self._clock.now_us(), zeros, zeros, violated)

    def _refuse(self, id: bytes, said: Decision, maybe: bool, done: _Done) -> None:
        """Deny; what the store may have reserved for it is given back when it answers again."""
        self.denied += 1
        said.mode = "degraded"
        said.reset_us = (RETRY_US,) * len(said.reset_us)
        if maybe:
            self._owe(id, _Debt(said.checks, counted=True, local=False, truth=(0,) * len(said.checks.costs)))
        done(said)

    def _plan(self, checks: Checks) -> tuple[Checks, int]:
        """The same question to this worker's share, and the index of the limit that denies in any case, else -1."""
        plan = self._plans.get(checks)
        if plan is None:
            limits = tuple(share_of(limit, self._workers) for limit in checks.limits)
            refusing = next((i for i, limit in enumerate(checks.limits) if _refuses(limit, self._workers)), -1)
            if len(self._plans) >= PLANS:
                self._plans.clear()
            plan = self._plans[checks] = replace(checks, limits=limits, wire=None, plan=None), refusing
        return plan

    # What is owed.

    def _owe(self, id: bytes, debt: _Debt) -> None:
        if len(self._debts) < CAP or id in self._debts:
            self._debts[id] = debt
        elif debt.counted:
            self.lost += 1
        else:
            self._add_up(debt.checks)

    def _add_up(self, checks: Checks) -> None:
        """Past the cap, what was asked for is owed by counter, or by wallet with all that it pays for."""
        for together in _together(checks):
            key = tuple(name for i in together for name in checks.keys[i])
            if known := self._sums.get(key):
                units = (checks.costs[i] for i in together)
                known.costs = tuple(min(sum(pair), COUNT_MAX) for pair in zip(known.costs, units, strict=True))
            elif len(self._sums) < CAP:
                self._sums[key] = checks.only(together)
            else:
                self.lost += 1

    def _unsettled(self, id: bytes, checks: Checks, truth: Sequence[int], error: StoreError) -> None:
        """The store holds a reservation and has not heard the truth."""
        self._note_away()
        self._owe(id, _Debt(checks, counted=True, local=False, truth=truth))

    def _pay(self) -> None:
        """Tell the store the next batch; the one after it follows when all of this one is told."""
        while self._sums and len(self._debts) < BATCH:
            checks = self._sums.popitem()[1]
            truth = checks.costs if checks.slots else None  # a hold that nobody settles would be given back
            # Its id is its own from now on, so that telling it twice counts it once.
            self._debts[self._new_id()] = _Debt(checks, counted=False, local=False, truth=truth)
        batch = list(islice(self._debts.items(), BATCH))
        self._asked = len(batch)
        for owner, debt in batch:
            if debt.counted:
                self._told(owner, debt, None)
            else:
                self._inner.force(owner, debt.checks, partial(self._told, owner, debt))

    def _told(self, id: bytes, debt: _Debt, outcome: Decision | StoreError | None) -> None:
        if type(outcome) is StoreError:
            self._note_away()
        else:
            self.paid += 1
            del self._debts[id]
            if outcome is not None and self._away_since_us >= 0:
                self._end_of_outage()
            if debt.truth is not None:
                failed = partial(self._unsettled, id, debt.checks, debt.truth)
                self._inner.settle(id, debt.checks, debt.truth, failed)
        self._asked -= 1
        if self._lent and not self.owed:
            self._close_books()
        if not self._asked and self._away_since_us < 0 and self.owed:
            asyncio.get_running_loop().call_soon(self.tick)

    def _close_books(self) -> None:
        """All that wallets lent here is told to the store: the next outage begins with a whole allowance."""
        for id_, checks in [(id_, checks) for id_, checks in self._slots.items() if checks.payers]:
            self._local.settle(id_, checks, checks.costs)
            del self._slots[id_]  # its settle concerns the store alone
        self._local.forget(tuple(self._lent))
        self._lent.clear()

    # Away and back.

    def _note_away(self) -> None:
        if self._away_since_us < 0:
            self._away_since_us = self._clock.mono_us()

    def _note_back(self) -> None:
        self._end_of_outage()
        self.tick()

    def _end_of_outage(self) -> None:
        self._degraded_us += self._clock.mono_us() - self._away_since_us
        self._away_since_us = -1


def _refuses(limit: Limit, workers: int) -> bool:
    if limit.over == "allow" or limit.stage != "enforce":
        return False
    return limit.offline < workers if limit.kind == "balance" else limit.on_store_failure == "deny"


def _purses(checks: Checks) -> list[tuple[str, ...]]:
    return [keys for limit, keys in zip(checks.limits, checks.keys, strict=True) if limit.kind == "balance"]


def _together(checks: Checks) -> list[tuple[int, ...]]:
    """The indexes that are owed as one: a balance with what it pays for, any other by itself.

    Slots are not owed: they are free before it is told.
    """
    payers = checks.payers or (-1,) * len(checks.limits)
    return [
        (*(each for each, payer in enumerate(payers) if payer == i), i)
        for i, limit in enumerate(checks.limits)
        if limit.kind != "concurrency" and payers[i] < 0
    ]


def _answering(said: Decision, checks: Checks) -> Decision:
    """The share's decision as the answer to the question that was asked."""
    return Decision(checks, said.now_us, said.remaining, said.reset_us, said.violated, said.shadowed, "degraded")
