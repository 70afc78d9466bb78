"""Decisions while the store does not answer, as each limit's `on_store_failure` says.

`Degraded` implements the `Counters` port and never fails: every `reserve` ends in a Decision, immediately if the store
is known to be away. It admits at most `over_admission_bound` units more than the limit. All admitted units become
debts: they are charged in the store when it answers again, under the id of the exchange, so that a charge which the
store had applied already counts once. The balance of a customer is not known here, so a balance limit denies, or lends
its `offline` allowance once per outage and wallet. Shares and debts are in a file, from which the successor of a killed
worker continues.

A charge that the store may have applied is repeated only while the store's mark of its id exists for certain, since the
mark makes the repetition safe. Later it is given up and counted as drift.

    quota 100, 4 workers: this worker's share is 25. The store stops answering; 30 requests arrive here.
    25 are admitted and become 25 debts, 5 are denied. The store answers: it is charged 25, whatever it had counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from sidecar.core.decision import Decision
from sidecar.core.errors import StoreError
from sidecar.core.limits import NEVER_US, Checks
from sidecar.core.limits.base import SLOTS, WALLET
from sidecar.core.price.wallet import Wallet
from sidecar.edge.degraded.debts import Debts, Drifted, nobody_counts
from sidecar.edge.degraded.ledger import Ledger
from sidecar.edge.degraded.share import first_unknown, refuses
from sidecar.ports import Clock, Counters, CountersWrapper, Local

RETRY_US = 1_000_000  # reset time of a degraded denial: the outage may end soon, even if the limit's period is a month
PLANS = 4_096  # cached shares, one per Checks in use

_Done = Callable[["Decision | StoreError"], None]


class Degraded(CountersWrapper):
    """Wraps the shared counters; `local` counters in memory hold this worker's share.

    Plain integers: `allowed` and `denied` (local decisions), `owed` (open debts: exchanges and sums), `paid`, `lost`
    (debts given up, because both caps were reached or because the store may or may not have them). `drifted` is called
    for each lost debt with the units that the store should have counted. `tick`, once a second, pays debts while there
    is no traffic. A limit is divided into as many shares as the ledger has `total_workers`.

    Beyond the cap of debts, the reserved units are charged and not the actual ones.
    """

    def __init__(
        self,
        inner: Counters,
        local: Local,
        clock: Clock,
        new_id: Callable[[], bytes],
        ledger: Ledger | None = None,
        drifted: Drifted = nobody_counts,
    ) -> None:
        super().__init__(inner)
        self._local = local
        self._clock = clock
        self._ledger = ledger or Ledger()
        self._workers = self._ledger.total_workers
        self._debts = Debts(inner, clock, new_id, self._ledger, drifted)
        self._debts.on_reply = self._on_reply
        self._debts.on_batch_done = self._on_batch_done
        self._by_id = self._debts.by_id  # the same object, for a short look-up in each settle
        self._plans: dict[Checks, tuple[Checks, int]] = {}
        self._slots: dict[bytes, Checks] = {}
        self._lent: set[str] = set()  # keys of wallets in `local`, until the store has all that they lent
        self._away_since_us = -1  # monotonic
        self._away_us = 0  # the same time by the wall clock
        self._degraded_us = 0
        self.allowed = self.denied = 0

    @property
    def owed(self) -> int:
        return len(self._debts)

    @property
    def paid(self) -> int:
        return self._debts.paid

    @property
    def lost(self) -> int:
        return self._debts.lost

    @property
    def damaged(self) -> int:
        """Outage files that were damaged at the start."""
        return self._ledger.damaged

    @property
    def degraded_seconds(self) -> int:
        """Whole seconds during which the store did not answer."""
        since_us = self._away_since_us
        return (self._degraded_us + (self._clock.mono_us() - since_us if since_us >= 0 else 0)) // 1_000_000

    def adopt(self) -> None:
        """Continue from the previous process's shares and debts. Call it before any other method."""
        if not self._debts.adopt():
            return
        now_us = self._clock.now_us()
        for key, (kind, value, expire_us) in self._ledger.outage.local.items():
            if kind == "wallet":
                self._local.put(key, Wallet(debt=value), NEVER_US)
                self._lent.add(key)
            elif expire_us > now_us:
                self._local.put(key, tuple(value) if kind == "rate" else value, expire_us)

    def reserve(self, id: bytes, checks: Checks, done: _Done) -> None:
        """Ask the store; if it does not answer, decide locally. `done` always gets a Decision."""
        self._inner.reserve(id, checks, partial(self._decided, id, checks, done))

    def settle(
        self,
        id: bytes,
        checks: Checks,
        actual: Sequence[int],
        failed: Callable[[StoreError], None] | None = None,
    ) -> None:
        """Send the actual units to the store, now or when it answers again; `failed` is never called."""
        debt = self._by_id.get(id) if self._by_id else None
        slots = self._slots.pop(id, None) if self._slots else None
        if slots is not None or (debt is not None and debt.local):
            self._local.settle(id, slots or self._plan(checks)[0], actual)
        if debt is not None:
            self._debts.settle(id, debt, actual, self._values(debt.checks) if debt.local else [])
        else:
            self._inner.settle(id, checks, actual, partial(self._unsettled, id, checks, actual))

    def settle_again(self, id: bytes, checks: Checks, actual: Sequence[int], age_us: int) -> None:
        """Repeat a settle that a predecessor may have sent `age_us` ago, if the store's mark of it exists for certain.

        Call `tick` after the last one.
        """
        debt = self._debts.by_id.get(id)
        if debt is not None:  # adopted, or a second call: the debt knows whether it was sent
            if debt.actual is None:
                self._debts.settle(id, debt, actual, self._values(debt.checks) if debt.local else [])
        else:
            self._debts.settle_again(id, checks, actual, age_us)

    def extend(self, exchanges: Sequence[tuple[bytes, Checks]]) -> None:
        self._inner.extend(exchanges)
        if self._slots:
            self._local.extend([(id_, self._slots[id_]) for id_, _ in exchanges if id_ in self._slots])

    def decide_locally(self, id: bytes, checks: Checks, done: _Done) -> None:
        """Decide immediately, without the store: it did not answer a request that included this one (of a lease)."""
        self._note_away()
        self._decide(id, checks, False, done)  # False: the store never received this id

    def tick(self) -> None:
        """Pay the next batch of debts, also without traffic. Call it about once a second."""
        self._debts.tend()
        self._debts.pay()

    # Local decisions.

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
        if refusing < 0 and self._ledger.outage.unknown_us:
            refusing = first_unknown(checks, self._ledger.outage, self._clock.now_us())
        if refusing >= 0:
            self._refuse(id, self._refusal(checks, refusing), maybe, done)
        else:
            self._local.reserve(id, scaled, partial(self._shared, id, checks, maybe, done))

    def _shared(self, id: bytes, checks: Checks, maybe: bool, done: _Done, outcome: Decision | StoreError) -> None:
        if isinstance(outcome, StoreError):  # no window contains the time of the clock: the usage is unknown, so deny
            self._refuse(id, self._refusal(checks, 0), maybe, done)
            return
        if not outcome.allowed:
            self._refuse(id, _for_checks(outcome, checks), maybe, done)
            return
        self.allowed += 1
        if checks.must_settle:
            self._slots[id] = outcome.checks
        if checks.has_wallet:
            self._lent.update(key for keys in _wallets(checks) for key in keys)
        sent_us = self._clock.now_us() if maybe else 0
        self._debts.admit(id, checks, self._away_us, sent_us, self._values(outcome.checks))
        done(_for_checks(outcome, checks))

    def _values(self, checks: Checks) -> list[object]:
        """The local counters of `checks`: of a wallet the amount lent, of slots None."""
        values: list[object] = []
        for check in checks.entries:
            value = None if check.kind.stored_as == SLOTS else self._local.peek(check.keys[0])
            values.append(value.debt if isinstance(value, Wallet) else value)
        return values

    def _refusal(self, checks: Checks, violated: int) -> Decision:
        zeros = (0,) * len(checks.entries)
        decision = Decision(checks, self._clock.now_us(), zeros, zeros, 1 + violated)
        decision.unknown = "away"
        return decision

    def _refuse(self, id: bytes, decision: Decision, maybe: bool, done: _Done) -> None:
        """Deny. If the store may have reserved units for it, they are returned when it answers again."""
        self.denied += 1
        decision.mode = "degraded"
        decision.reset_us = (RETRY_US,) * len(decision.reset_us)
        if maybe:
            self._debts.owe(id, decision.checks, (0,) * len(decision.checks.costs), self._clock.now_us())
        done(decision)

    def _plan(self, checks: Checks) -> tuple[Checks, int]:
        """`checks` with this worker's shares as limits, and the index of a limit that always denies, else -1."""
        plan = self._plans.get(checks)
        if plan is None:
            limits = [check.kind.share(check.limit, self._workers) for check in checks.entries]
            refusing = next((i for i, check in enumerate(checks.entries) if refuses(check.limit, self._workers)), -1)
            if len(self._plans) >= PLANS:
                self._plans.clear()
            plan = self._plans[checks] = checks.with_limits(limits), refusing
        return plan

    def _unsettled(self, id: bytes, checks: Checks, actual: Sequence[int], error: StoreError) -> None:
        """The store has a reservation and did not take the actual units."""
        self._note_away()
        self._debts.owe(id, checks, actual, self._clock.now_us() if error.maybe_applied else 0)

    # Away and back.

    def _on_reply(self, answered: bool) -> None:
        """The store answered the charge of a debt, or did not."""
        if not answered:
            self._note_away()
        elif self._away_since_us >= 0:
            self._end_of_outage()

    def _on_batch_done(self) -> None:
        """All charges of a batch have a reply: send the next batch, or reset the allowances of wallets."""
        if self.owed:
            if self._away_since_us < 0:
                asyncio.get_running_loop().call_soon(self.tick)
        elif self._lent:
            self._reset_allowances()

    def _reset_allowances(self) -> None:
        """The store has all that wallets lent here: the next outage begins with a whole allowance."""
        for id_, checks in [(id_, checks) for id_, checks in self._slots.items() if checks.has_wallet]:
            self._local.settle(id_, checks, checks.costs)
            del self._slots[id_]  # its settle goes to the store only
        self._local.forget(tuple(self._lent))
        self._ledger.forget([*self._lent])
        self._lent.clear()

    def _note_away(self) -> None:
        if self._away_since_us < 0:
            self._away_since_us = self._clock.mono_us()
            self._away_us = self._clock.now_us()

    def _note_back(self) -> None:
        self._end_of_outage()
        self.tick()

    def _end_of_outage(self) -> None:
        self._degraded_us += self._clock.mono_us() - self._away_since_us
        self._away_since_us = -1
        if self._ledger.outage.is_lent_unknown:
            self._ledger.know_lent()


def _wallets(checks: Checks) -> list[tuple[str, ...]]:
    return [check.keys for check in checks.entries if check.kind.stored_as == WALLET]


def _for_checks(local: Decision, checks: Checks) -> Decision:
    """The decision about this worker's share as a decision about `checks`."""
    return Decision(checks, local.now_us, local.remaining, local.reset_us, local.verdict, "degraded")
