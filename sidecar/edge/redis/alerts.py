"""Alerts shared by many workers: a worker claims an alert on Redis, writes it, and then marks it as written.

A claim expires before the same worker would try again, so if the claimer is killed, another worker writes the alert.
The class wraps the local alerts of one worker, which pass on only thresholds that they do not know as written. The
amount to which the percents of a balance refer is in its wallet; it is read again every few seconds.

    worker 1, quota at 80 %: claims the key, writes the alert's record, sets the key to 'told' until the period's end
    worker 2, the same: its claim fails; a minute later it claims again, reads 'told', and remembers it
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from sidecar.core.decision import Decision
from sidecar.core.errors import StoreError
from sidecar.core.limits import left_at
from sidecar.core.limits.base import WALLET
from sidecar.core.record import Alert
from sidecar.core.record.alert import TopUp, balance_alert, balance_counter
from sidecar.edge.redis.wire import command
from sidecar.ports import Clock, Commands

CLAIM_MS = 50_000
GRACE_US = 3_600_000_000  # how long a mark outlives the period, for a clock that is behind
UNMARKED = 4_096  # marks that Redis does not have yet; beyond it the oldest is dropped, and its alert may be repeated

TOPPED_TICKS = 10  # seconds until a top-up is noticed, at most
TOPPED_MAX = 16_384

CLAIMED, WRITTEN = 1, 2
_NOTHING = TopUp("", 0, 0, "")
_EXACT = frozenset({"exact", "leased"})
_CLAIM = """
local held = redis.call('GET', KEYS[1])
if held == 'told' then return 2 end
if held then return 0 end
redis.call('SET', KEYS[1], 'claimed', 'PX', ARGV[1])
return 1
"""
_MARK = "redis.call('SET', KEYS[1], 'told') return redis.call('PEXPIREAT', KEYS[1], ARGV[1])"


class LocalAlerts(Protocol):
    """The alerts of one worker (`MemoryAlerts`), which return a threshold again until it is written."""

    def evaluate(self, decision: Decision, done: Callable[[Alert], None]) -> None: ...
    def passed(self, counter: str, percents: tuple[int, ...], amount: int, left: int) -> Sequence[int]: ...
    def wrote(self, alert: Alert) -> None: ...
    def tick(self) -> None: ...


class RedisAlerts:
    """`ports.Alerts` on Redis, around one worker's local alerts. While `is_away()`, no command is sent."""

    def __init__(self, memory: LocalAlerts, commands: Commands, clock: Clock, is_away: Callable[[], bool]) -> None:
        self._memory = memory
        self._send = commands.send
        self._now_us = clock.now_us
        self._is_away = is_away
        self._unmarked: dict[str, Alert] = {}
        self._topped: dict[tuple[str, str], TopUp] = {}  # by the wallet's key and the limit
        self._ticks = 0

    def evaluate(self, decision: Decision, done: Callable[[Alert], None]) -> None:
        self._memory.evaluate(decision, partial(self._claim, done))
        for index, _ in decision.checks.alerting:
            if decision.checks.entries[index].kind.stored_as == WALLET and decision.mode in _EXACT:
                self._evaluate_balance(decision, index, done)

    def wrote(self, alert: Alert) -> None:
        self._memory.wrote(alert)
        if len(self._unmarked) >= UNMARKED:
            del self._unmarked[next(iter(self._unmarked))]
        self._unmarked[alert.key] = alert
        self._mark(alert)

    def tick(self) -> None:
        """Call it about once a second: send the marks that Redis lacks, and have top-ups read again."""
        self._memory.tick()
        self._ticks += 1
        if self._ticks % TOPPED_TICKS == 0:
            self._topped.clear()
        for alert in list(self._unmarked.values()):
            if self._now_us() < alert.until_us:
                self._mark(alert)
            else:
                del self._unmarked[alert.key]

    def _evaluate_balance(self, decision: Decision, index: int, done: Callable[[Alert], None]) -> None:
        checks = decision.checks
        wallet = checks.keys[index][0], checks.entries[index].limit.id
        topped = self._topped.get(wallet)
        if topped is not None:
            self._spent(decision, index, topped, done)
        elif not self._is_away():
            if len(self._topped) >= TOPPED_MAX:
                self._topped.clear()
            self._topped[wallet] = _NOTHING  # until the reply, or until the cache is cleared
            packed = command("HGET", wallet[0], "topped")
            self._send(wallet[0], packed, partial(self._read, wallet, decision, index, done))

    def _read(
        self, wallet: tuple[str, str], decision: Decision, index: int, done: Callable[[Alert], None], reply: Any
    ) -> None:
        """Evaluate the thresholds of a top-up. Without a top-up, or with an error, there is nothing to evaluate."""
        if type(reply) is bytes:
            made_us, amount, grant = reply.decode().split(" ", 2)
            topped = TopUp(grant, int(made_us), int(amount), balance_counter(decision.checks, index, grant))
            self._topped[wallet] = topped
            self._spent(decision, index, topped, done)

    def _spent(self, decision: Decision, index: int, topped: TopUp, done: Callable[[Alert], None]) -> None:
        left, percents = decision.remaining[index], decision.checks.entries[index].limit.alerts
        if topped.amount and left <= left_at(topped.amount, percents[0]):
            for percent in self._memory.passed(topped.counter, percents, topped.amount, left):
                self._claim(done, balance_alert(decision, index, percent, topped))

    def _claim(self, done: Callable[[Alert], None], alert: Alert) -> None:
        if not self._is_away():
            packed = command("EVAL", _CLAIM, 1, alert.key, CLAIM_MS)
            self._send(alert.key, packed, partial(self._answered, done, alert))

    def _answered(self, done: Callable[[Alert], None], alert: Alert, reply: Any) -> None:
        """After an error, or another worker's claim, the local alerts return it again in a minute."""
        if reply == CLAIMED:
            done(alert)
        elif reply == WRITTEN:
            self._memory.wrote(alert)

    def _mark(self, alert: Alert) -> None:
        if not self._is_away():
            packed = command("EVAL", _MARK, 1, alert.key, (alert.until_us + GRACE_US) // 1000)
            self._send(alert.key, packed, partial(self._marked, alert.key))

    def _marked(self, key: str, reply: Any) -> None:
        if type(reply) is not StoreError:
            self._unmarked.pop(key, None)
