"""A circuit breaker around the counters: after several failures in a row, requests no longer wait for a timeout.

It implements the `Counters` port. Closed, it passes all calls to the inner counters. Open, it answers StoreError
immediately. After a pause one call is passed on as a probe; its outcome closes the breaker or leaves it open. Every
answer counts as a success, a denial too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sidecar.core.decision import Decision
from sidecar.core.errors import StoreError
from sidecar.core.limits import Checks
from sidecar.ports import Clock, Counters, CountersWrapper

_Done = Callable[["Decision | StoreError"], None]


class Breaker(CountersWrapper):
    """Opens after `failures` StoreErrors in a row, probes every `pause_us`. `opened` counts how often it opened.

    The degraded decision says what an error means for the request. The outcome of settles is not counted here; while
    the breaker is open they fail immediately, and the caller records them as debts.
    """

    def __init__(self, inner: Counters, clock: Clock, *, failures: int = 5, pause_us: int = 1_000_000) -> None:
        super().__init__(inner)
        self._clock = clock
        self._limit = failures
        self._pause_us = pause_us
        self._failures = 0
        self._probe_at_us = 0
        self._error = StoreError(
            "store: not called, since it failed several times in a row; the next probe is due soon"
        )
        self.is_open = False
        self.opened = 0

    @property
    def failing(self) -> bool:
        """Whether the last call failed."""
        return self._failures > 0

    def reserve(self, id: bytes, checks: Checks, done: _Done) -> None:
        if self.is_open and not self._may_probe():
            done(self._error)
        else:
            self._inner.reserve(id, checks, partial(self._seen, done))

    def charge_unconditionally(self, id: bytes, checks: Checks, done: _Done) -> None:
        self.ask(partial(self._inner.charge_unconditionally, id, checks), done)

    def ask(self, send: Callable[[Callable[[Any], None]], None], done: Callable[[Any], None]) -> None:
        """Send another kind of request to the same store, under this breaker: `send(reply)`, which may be the probe."""
        if self.is_open and not self._may_probe():
            done(self._error)
        else:
            send(partial(self._seen, done))

    def settle(
        self,
        id: bytes,
        checks: Checks,
        actual: Sequence[int],
        failed: Callable[[StoreError], None] | None = None,
    ) -> None:
        if not self.is_open:
            self._inner.settle(id, checks, actual, failed)
        elif failed is not None:
            failed(self._error)

    def extend(self, exchanges: Sequence[tuple[bytes, Checks]]) -> None:
        if not self.is_open:
            self._inner.extend(exchanges)

    def _may_probe(self) -> bool:
        """True once per pause, whether or not that probe is answered."""
        now_us = self._clock.mono_us()
        if now_us < self._probe_at_us:
            return False
        self._probe_at_us = now_us + self._pause_us
        return True

    def _seen(self, done: Callable[[Any], None], outcome: Any) -> None:
        if type(outcome) is StoreError:
            self._failures += 1
            if self._failures >= self._limit and not self.is_open:
                self.is_open = True
                self.opened += 1
                self._probe_at_us = self._clock.mono_us() + self._pause_us
        elif self._failures:
            self._failures = 0
            self.is_open = False
        done(outcome)
