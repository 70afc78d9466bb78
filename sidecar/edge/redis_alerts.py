"""Alerts that many workers share: each is claimed on Redis before it is told, and marked as told once it is written.

A claim runs out before this worker would ask again, so one whose claimer was killed is told by the next to look. It
decorates the memory of one worker, which asks here only for what it has not seen told. What a balance's percents are of
stands in its wallet, and is read anew every few seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from hiredis import pack_command

from sidecar.core.counter import left_at
from sidecar.core.errors import StoreError
from sidecar.core.record.alert import TopUp, balance_alert, balance_counter

if TYPE_CHECKING:
    from sidecar.core.decision import Decision
    from sidecar.core.record import Alert
    from sidecar.ports import Clock, Commands

CLAIM_MS = 50_000
KEPT_US = 3_600_000_000  # after the period, for a clock that is behind
UNMARKED = 4_096  # marks that Redis has not taken yet; past that the oldest is dropped, and its alert may come twice

TOPPED_TICKS = 10  # seconds for which a top-up may go unseen
TOPPED_MAX = 16_384

CLAIMED, TOLD = 1, 2
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


class Memory(Protocol):
    """What is asked of the memory of one worker: it hands over what it has not seen told, and again after a while."""

    def look(self, decision: Decision, done: Callable[[Alert], None]) -> None: ...
    def passed(self, counter: str, percents: tuple[int, ...], amount: int, left: int) -> Sequence[int]: ...
    def wrote(self, alert: Alert) -> None: ...
    def tick(self) -> None: ...


class RedisAlerts:
    """`ports.Alerts` on Redis, around one worker's memory. `is_away()`: the store has just failed: it is not asked."""

    def __init__(self, memory: Memory, commands: Commands, clock: Clock, is_away: Callable[[], bool]) -> None:
        self._memory = memory
        self._send = commands.send
        self._now_us = clock.now_us
        self._is_away = is_away
        self._unmarked: dict[str, Alert] = {}
        self._topped: dict[tuple[str, str], TopUp] = {}  # by the wallet's key and the limit
        self._ticks = 0

    def look(self, decision: Decision, done: Callable[[Alert], None]) -> None:
        self._memory.look(decision, partial(self._claim, done))
        for index, _ in decision.checks.alerting:
            if decision.checks.limits[index].kind == "balance" and decision.mode in _EXACT:
                self._look_at_balance(decision, index, done)

    def wrote(self, alert: Alert) -> None:
        self._memory.wrote(alert)
        if len(self._unmarked) >= UNMARKED:
            del self._unmarked[next(iter(self._unmarked))]
        self._unmarked[alert.key] = alert
        self._mark(alert)

    def tick(self) -> None:
        """To be called about once a second: mark what Redis has not taken yet, and read anew what may have changed."""
        self._memory.tick()
        self._ticks += 1
        if self._ticks % TOPPED_TICKS == 0:
            self._topped.clear()
        for alert in list(self._unmarked.values()):
            if self._now_us() < alert.until_us:
                self._mark(alert)
            else:
                del self._unmarked[alert.key]

    def _look_at_balance(self, decision: Decision, index: int, done: Callable[[Alert], None]) -> None:
        checks = decision.checks
        asked = checks.keys[index][0], checks.limits[index].id
        topped = self._topped.get(asked)
        if topped is not None:
            self._spent(decision, index, topped, done)
        elif not self._is_away():
            if len(self._topped) >= TOPPED_MAX:
                self._topped.clear()
            self._topped[asked] = _NOTHING  # until the answer; where there is none, until it is asked again
            self._send(asked[0], _packed("HGET", asked[0], "topped"), partial(self._read, asked, decision, index, done))

    def _read(
        self, asked: tuple[str, str], decision: Decision, index: int, done: Callable[[Alert], None], reply: Any
    ) -> None:
        """A wallet that nobody filled has no top-up, and one that does not answer tells nothing."""
        if type(reply) is bytes:
            made_us, amount, grant = reply.decode().split(" ", 2)
            topped = TopUp(grant, int(made_us), int(amount), balance_counter(decision.checks, index, grant))
            self._topped[asked] = topped
            self._spent(decision, index, topped, done)

    def _spent(self, decision: Decision, index: int, topped: TopUp, done: Callable[[Alert], None]) -> None:
        left, percents = decision.remaining[index], decision.checks.limits[index].alerts
        if topped.amount and left <= left_at(topped.amount, percents[0]):
            for percent in self._memory.passed(topped.counter, percents, topped.amount, left):
                self._claim(done, balance_alert(decision, index, percent, topped))

    def _claim(self, done: Callable[[Alert], None], alert: Alert) -> None:
        if not self._is_away():
            packed = _packed("EVAL", _CLAIM, 1, alert.key, CLAIM_MS)
            self._send(alert.key, packed, partial(self._answered, done, alert))

    def _answered(self, done: Callable[[Alert], None], alert: Alert, reply: Any) -> None:
        """An error, or a claim of another: the memory hands it over again in a minute."""
        if reply == CLAIMED:
            done(alert)
        elif reply == TOLD:
            self._memory.wrote(alert)

    def _mark(self, alert: Alert) -> None:
        if not self._is_away():
            packed = _packed("EVAL", _MARK, 1, alert.key, (alert.until_us + KEPT_US) // 1000)
            self._send(alert.key, packed, partial(self._marked, alert.key))

    def _marked(self, key: str, reply: Any) -> None:
        if type(reply) is not StoreError:
            self._unmarked.pop(key, None)


def _packed(*words: str | bytes | int) -> bytes:
    packed: bytes = pack_command(words)  # type: ignore[arg-type] # its stub knows commands of one word only
    return packed
