"""A breaker around the counters: once they have failed a few times in a row, nobody else waits for their timeout.

It is a `Counters` port itself. Closed, it passes everything through; open, it answers StoreError at once; after a
pause one call goes through as a probe, and its outcome decides. Any answer, a denial too, is a success.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from sidecar.core.errors import StoreError
from sidecar.ports import Counters

if TYPE_CHECKING:
    from sidecar.core.counter import Checks
    from sidecar.core.decision import Decision
    from sidecar.ports import Clock

_Done = Callable[["Decision | StoreError"], None]
_Ask = Callable[[bytes, "Checks", _Done], None]


class Breaker(Counters):
    """Opens after `failures` StoreErrors in a row, probes every `pause_us`. `opened` counts the openings.

    Not its business: what an error means for the request (that is the degraded decision), and settles, whose success
    nobody hears of; while it is open they fail at once, so that they are kept as debt.
    """

    def __init__(self, inner: Counters, clock: Clock, *, failures: int = 5, pause_us: int = 1_000_000) -> None:
        self._inner = inner
        self._clock = clock
        self._limit = failures
        self._pause_us = pause_us
        self._failures = 0
        self._probe_at_us = 0
        self._error = StoreError("store: not asked, it has just failed several times in a row")
        self.is_open = False
        self.opened = 0

    def reserve(self, id: bytes, checks: Checks, done: _Done) -> None:
        if self.is_open:
            self._probe(self._inner.reserve, id, checks, done)
        else:
            self._inner.reserve(id, checks, partial(self._seen, done))

    def force(self, id: bytes, checks: Checks, done: _Done) -> None:
        if self.is_open:
            self._probe(self._inner.force, id, checks, done)
        else:
            self._inner.force(id, checks, partial(self._seen, done))

    def settle(
        self,
        id: bytes,
        checks: Checks,
        truth: Sequence[int],
        failed: Callable[[StoreError], None] | None = None,
    ) -> None:
        if not self.is_open:
            self._inner.settle(id, checks, truth, failed)
        elif failed is not None:
            failed(self._error)

    def _probe(self, ask: _Ask, id: bytes, checks: Checks, done: _Done) -> None:
        now_us = self._clock.mono_us()
        if now_us < self._probe_at_us:
            done(self._error)
            return
        self._probe_at_us = now_us + self._pause_us  # one probe a pause, whether or not it is ever answered
        ask(id, checks, partial(self._seen, done))

    def _seen(self, done: _Done, outcome: Decision | StoreError) -> None:
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
