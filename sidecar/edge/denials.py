"""A cache of denials: who is over a limit is told so again without asking the store, for a second at most.

It is a `Counters` port itself. It only ever repeats an exact denial by an enforced limit, for the same counters, at no
less than the refused cost; it never allows anything. A top-up or a new plan is felt within `HOLD_US`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import lt
from typing import TYPE_CHECKING, Final

from sidecar.core.decision import Decision
from sidecar.ports import Counters

if TYPE_CHECKING:
    from sidecar.core.counter import Checks
    from sidecar.core.errors import StoreError
    from sidecar.core.policy import Limit
    from sidecar.ports import Clock

HOLD_US: Final = 1_000_000
CAP: Final = 65_536

_Done = Callable[["Decision | StoreError"], None]
_Keys = tuple[tuple[str, ...], ...]


class Denials(Counters):
    """Remembers up to CAP denials by the counters asked together, the oldest forgotten first. `hits` counts repeats.

    Other counters asked with the same exhausted one are another question: their figures are in the answer, so the
    store is asked. A slot may come free at any moment, so a concurrency limit's denial is not kept; nor is a balance's
    where more may cost less (a volume price).
    """

    def __init__(self, inner: Counters, clock: Clock) -> None:
        self._inner = inner
        self._mono_us = clock.mono_us
        self._denied: dict[_Keys, tuple[int, int, Decision]] = {}  # until, seen at (mono µs), what was said
        self.hits = 0

    def spend(self, id: bytes, checks: Checks) -> Decision | None:
        """What was denied is denied again."""
        if not self._denied or (again := self._again(checks)) is None:
            return None
        self.hits += 1
        return again

    def reserve(self, id: bytes, checks: Checks, done: _Done) -> None:
        if (again := self.spend(id, checks)) is not None:
            done(again)
        else:
            self._inner.reserve(id, checks, partial(self._decided, done))

    def force(self, id: bytes, checks: Checks, done: _Done) -> None:
        self._inner.force(id, checks, done)

    def settle(
        self, id: bytes, checks: Checks, truth: Sequence[int], failed: Callable[[StoreError], None] | None = None
    ) -> None:
        self._inner.settle(id, checks, truth, failed)

    def _again(self, checks: Checks) -> Decision | None:
        entry = self._denied.get(checks.keys)
        if entry is None:
            return None
        until_us, seen_us, said = entry
        now_us = self._mono_us()
        if now_us >= until_us:
            del self._denied[checks.keys]
            return None
        violated, costs, refused = said.violated, checks.costs, said.checks.costs
        if costs[violated] < refused[violated]:
            return None
        if checks.payers and checks.limits[violated].kind == "balance" and any(map(lt, costs, refused)):
            return None  # what a balance is asked is the price of all
        passed_us = now_us - seen_us
        resets = [max(reset_us - passed_us, 0) for reset_us in said.reset_us]
        return Decision(
            checks, said.now_us + passed_us, said.remaining, resets, said.violated, said.shadowed, said.mode
        )

    def _decided(self, done: _Done, outcome: Decision | StoreError) -> None:
        if type(outcome) is Decision and not outcome.allowed and outcome.mode == "exact":
            self._remember(outcome)
        done(outcome)

    def _remember(self, said: Decision) -> None:
        checks = said.checks
        limit = checks.limits[said.violated]
        if limit.kind == "concurrency" or (limit.kind == "balance" and any(map(_by_volume, checks.limits))):
            return
        now_us = self._mono_us()
        hold_us = min(said.reset_us[said.violated] or HOLD_US, HOLD_US)
        self._denied.pop(checks.keys, None)  # to the end of the line
        if len(self._denied) >= CAP:
            del self._denied[next(iter(self._denied))]
        self._denied[checks.keys] = now_us + hold_us, now_us, said


def _by_volume(limit: Limit) -> bool:
    return limit.price is not None and limit.price.kind == "volume"
