"""Alerts that many workers share: each is claimed on Redis before it is told, and marked as told once it is written.

A claim runs out before this worker would ask again, so one whose claimer was killed is told by the next to look. It
decorates the memory of one worker, which asks here only for what it has not seen told.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from hiredis import pack_command

from sidecar.core.errors import StoreError

if TYPE_CHECKING:
    from sidecar.core.decision import Decision
    from sidecar.core.record import Alert
    from sidecar.ports import Clock, Commands

CLAIM_MS = 50_000
KEPT_US = 3_600_000_000  # after the period, for a clock that is behind
UNMARKED = 4_096  # marks that Redis has not taken yet; past that the oldest is dropped, and its alert may come twice

CLAIMED, TOLD = 1, 2
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

    def look(self, decision: Decision, done: Callable[[Alert], None]) -> None:
        self._memory.look(decision, partial(self._claim, done))

    def wrote(self, alert: Alert) -> None:
        self._memory.wrote(alert)
        if len(self._unmarked) >= UNMARKED:
            del self._unmarked[next(iter(self._unmarked))]
        self._unmarked[alert.key] = alert
        self._mark(alert)

    def tick(self) -> None:
        """To be called about once a second: mark what Redis has not taken yet, while it is of use."""
        self._memory.tick()
        for alert in list(self._unmarked.values()):
            if self._now_us() < alert.until_us:
                self._mark(alert)
            else:
                del self._unmarked[alert.key]

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
