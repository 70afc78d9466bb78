"""Doubles of the stores: API keys, counters, retries and alerts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sidecar.core.decision import Decision, Write, extend, reserve, settle
from sidecar.core.decision.peek import Peeked, peek
from sidecar.core.errors import StoreError
from sidecar.core.identity import Identity, digest
from sidecar.core.limits import Checks, id_us, left_at, wallet_keys
from sidecar.core.limits.base import WALLET
from sidecar.core.price import wallet as wallets
from sidecar.core.price.wallet import Grant, Wallet
from sidecar.core.record import Alert
from sidecar.core.record.alert import window_alert
from sidecar.ports import Counters, Keys, Peeks
from sidecar.testing.basics import HandClock, Held


class KeyBook(Held, Keys):
    """`ports.Keys` on a dictionary. While `fails` is set, it is the answer."""

    def __init__(self, pepper: bytes = b"") -> None:
        super().__init__()
        self.pepper = pepper
        self.requested: list[bytes] = []
        self.fails: StoreError | None = None
        self._known: dict[bytes, Identity] = {}

    def register(self, credential: str, identity: Identity) -> Identity:
        """Register `credential` for `identity`."""
        self._known[digest(credential.encode(), self.pepper)] = identity
        return identity

    def revoke(self, credential: str) -> None:
        """Remove `credential`."""
        del self._known[digest(credential.encode(), self.pepper)]

    def find(self, digest: bytes, done: Callable[[Identity | StoreError | None], None]) -> None:
        self.requested.append(digest)
        result = self.fails or self._known.get(digest)
        self.answer(lambda: done(result))


def apply_writes(state: dict[str, Any], writes: Iterable[Write]) -> None:
    """Apply the changes that the rule returns to a state of plain values. Expired values stay in it."""
    for key, member, value, _ in writes:
        if member is None:
            state[key] = value
        elif value is None:
            state.get(key, {}).pop(member, None)
        else:
            state.setdefault(key, {})[member] = value


class CounterBook(Held, Counters):
    """`ports.Counters` on a dictionary, of which nothing expires. While `fails` is set, it is the answer."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__()
        self.state: dict[str, Any] = {}
        self.settled: list[tuple[bytes, tuple[int, ...]]] = []
        self.fails: StoreError | None = None
        self._clock = clock

    def reserve(self, id: bytes, checks: Checks, done: Callable[[Decision | StoreError], None]) -> None:
        self._reserve(id, checks, done, force=False)

    def charge_unconditionally(self, id: bytes, checks: Checks, done: Callable[[Decision | StoreError], None]) -> None:
        self._reserve(id, checks, done, force=True)

    def settle(
        self, id: bytes, checks: Checks, actual: Sequence[int], failed: Callable[[StoreError], None] | None = None
    ) -> None:
        if self.fails is not None:
            return failed(self.fails) if failed is not None else None
        self.settled.append((id, tuple(actual)))
        now_us = self._clock.now_us()
        return apply_writes(self.state, settle(self.state, id, checks, actual, now_us, now_us - id_us(id)))

    def extend(self, exchanges: Sequence[tuple[bytes, Checks]]) -> None:
        now_us = self._clock.now_us()
        for id_, checks in exchanges if self.fails is None else ():
            apply_writes(self.state, extend(self.state, id_, checks, now_us, now_us - id_us(id_)))

    def fund(self, customer: str, name: str, amount: int) -> None:
        """Grant an amount to a customer's wallet, without expiry. `name` is its unit and scale: usd, or credits.2."""
        now_us, (wallet_key, ledger_key, *_) = self._clock.now_us(), wallet_keys(customer, name)
        ledger = self.state.setdefault(ledger_key, {})
        grant = Grant(f"grant-{len(ledger)}", 0, 0, 0, amount, amount, made_us=now_us)
        self.state[wallet_key], postings = wallets.add(self.state.get(wallet_key, Wallet()), grant, now_us)
        for each in postings:
            ledger[max(ledger, default=0) + 1] = (
                each.kind,
                each.id,
                each.delta,
                wallets.balance(self.state[wallet_key]),
            )

    def balance(self, customer: str, name: str) -> int:
        """The balance of the customer's wallet."""
        wallet: Wallet = self.state.get(wallet_keys(customer, name)[0], Wallet())
        return wallets.balance(wallet)

    def postings(self, customer: str, name: str) -> list[tuple[str, str, int, int]]:
        """The ledger: kind, id of the exchange or grant, change, balance after it."""
        rows = self.state.get(wallet_keys(customer, name)[1], {}).values()
        return [(kind, id_, change, balance) for kind, id_, change, balance, *_ in rows]

    def used(self, limit: str) -> int:
        """The units in all counters of a limit (windows, quotas, priced), or its used slots (concurrency)."""
        values = [value for key, value in self.state.items() if key.split(":")[2].partition("=")[2] == limit]
        return sum(len(value) if isinstance(value, dict) else value for value in values)

    def _reserve(
        self, id: bytes, checks: Checks, done: Callable[[Decision | StoreError], None], *, force: bool
    ) -> None:
        if self.fails is not None:
            failure = self.fails
            return self.answer(lambda: done(failure))
        now_us = self._clock.now_us()
        checks = checks if force or checks.covers(now_us) else checks.at(now_us)
        decision, writes = reserve(self.state, id, checks, now_us, force=force)
        apply_writes(self.state, writes)
        result = decision if decision is not None else StoreError("the limits have no window at this time")
        return self.answer(lambda: done(result))


class PeekBook(Held, Peeks):
    """`ports.Peeks` on the dictionary of a `CounterBook`. While `fails` is set, it is the answer."""

    def __init__(self, counters: CounterBook, clock: HandClock) -> None:
        super().__init__()
        self.fails: StoreError | None = None
        self._counters = counters
        self._clock = clock

    def peek(self, checks: Checks, done: Callable[[Peeked | StoreError], None]) -> None:
        now_us = self._clock.now_us()
        peeked = self.fails or peek(self._counters.state, checks.at(now_us), now_us)
        assert peeked is not None  # noqa: S101 - it is asked in the windows of now
        self.answer(lambda: done(peeked))


class RetryBook(Held):
    """`ports.Retries` on a dictionary, of which nothing expires. While `fails` is set, it is the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.firsts: dict[tuple[str, bytes], bytes] = {}
        self.windows: list[int] = []
        self.fails: StoreError | None = None

    def first(
        self, identity: Identity, key: bytes, window_us: int, id: bytes, done: Callable[[bool | StoreError], None]
    ) -> None:
        self.windows.append(window_us)
        result = self.fails or self.firsts.setdefault((identity.customer, key), id) == id
        self.answer(lambda: done(result))

    def forget(self, identity: Identity, key: bytes, id: bytes) -> None:
        if self.firsts.get((identity.customer, key)) == id:
            del self.firsts[identity.customer, key]


class AlertBook(Held):
    """`ports.Alerts` on a list: each alert of a window is passed on until it is written. `written` has the keys."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def evaluate(self, decision: Decision, done: Callable[[Alert], None]) -> None:
        checks = decision.checks
        for index, _ in checks.alerting:
            check = checks.entries[index]
            limit = check.limit
            for percent in limit.alerts:
                if decision.remaining[index] <= left_at(limit.amount, percent) and check.kind.stored_as != WALLET:
                    self._pass_on(window_alert(decision, index, percent), done)

    def wrote(self, alert: Alert) -> None:
        self.written.append(alert.key)

    def _pass_on(self, alert: Alert, done: Callable[[Alert], None]) -> None:
        if alert.key not in self.written:
            self.answer(lambda: done(alert))
