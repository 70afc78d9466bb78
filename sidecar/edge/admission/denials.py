"""A cache of denials: a caller over a limit is denied again without a call of the store, for one second at most.

It implements the `Counters` port. It repeats only exact denials by enforced limits, for the same counters, at no less
than the refused cost; it never allows a request. A top-up or a new plan takes effect within `HOLD_US`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import lt
from typing import Final

from sidecar.core.decision import Decision
from sidecar.core.errors import StoreError
from sidecar.core.limits import Checks
from sidecar.core.limits.base import WALLET
from sidecar.ports import Clock, Counters, CountersWrapper

HOLD_US: Final = 1_000_000
CAP: Final = 65_536

_Done = Callable[["Decision | StoreError"], None]
_Keys = tuple[tuple[str, ...], ...]


class Denials(CountersWrapper):
    """Caches up to CAP denials by the set of counters, and removes the oldest first. `hits` counts repetitions.

    An exhausted counter together with other counters is another entry, since an answer contains the figures of all of
    them. The denial of a concurrency limit is not cached, since a slot may become free at any moment; nor is that of a
    balance with a volume price, where more units may cost less.
    """

    def __init__(self, inner: Counters, clock: Clock) -> None:
        super().__init__(inner)
        self._mono_us = clock.mono_us
        self._denied: dict[_Keys, tuple[int, int, Decision]] = {}  # until, since (both monotonic), the denial
        self.hits = 0

    def try_local(self, id: bytes, checks: Checks) -> Decision | None:
        """A cached denial, or None."""
        if not self._denied or (denial := self._denial(checks)) is None:
            return None
        self.hits += 1
        return denial

    def reserve(self, id: bytes, checks: Checks, done: _Done) -> None:
        if (denial := self.try_local(id, checks)) is not None:
            done(denial)
        else:
            self._inner.reserve(id, checks, partial(self._decided, done))

    def _denial(self, checks: Checks) -> Decision | None:
        entry = self._denied.get(checks.keys)
        if entry is None:
            return None
        until_us, since_us, denial = entry
        now_us = self._mono_us()
        if now_us >= until_us:
            del self._denied[checks.keys]
            return None
        violated, costs, refused = denial.violated, checks.costs, denial.checks.costs
        if costs[violated] < refused[violated]:
            return None
        if checks.entries[violated].kind.stored_as == WALLET and any(map(lt, costs, refused)):
            return None  # a balance pays the price of all costs, so none of them may be smaller
        passed_us = now_us - since_us
        resets = [max(reset_us - passed_us, 0) for reset_us in denial.reset_us]
        return Decision(checks, denial.now_us + passed_us, denial.remaining, resets, denial.verdict, denial.mode)

    def _decided(self, done: _Done, outcome: Decision | StoreError) -> None:
        if type(outcome) is Decision and not outcome.allowed and outcome.mode == "exact":
            self._remember(outcome)
        done(outcome)

    def _remember(self, denial: Decision) -> None:
        checks = denial.checks
        if not checks.entries[denial.violated].kind.repeats_denial(checks.limits):
            return
        now_us = self._mono_us()
        hold_us = min(denial.reset_us[denial.violated] or HOLD_US, HOLD_US)
        self._denied.pop(checks.keys, None)  # so that the new entry is the newest
        if len(self._denied) >= CAP:
            del self._denied[next(iter(self._denied))]
        self._denied[checks.keys] = now_us + hold_us, now_us, denial
