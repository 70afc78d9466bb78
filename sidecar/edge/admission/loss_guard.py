"""Denials after a loss of the store's data: by limits with `on_store_loss: deny`, until their loss is over.

A store that came back empty would admit units that were used already. The guard implements the `Counters` port, is
called before all other counters, and is in use only after a loss. The loss is over for a limit when nothing that was
counted before it would count any more: a quota's or fixed window's period has ended, a sliding window's length has
passed, a rate's burst has leaked, a slot has expired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sidecar.core.decision import Decision
from sidecar.core.errors import StoreError
from sidecar.core.limits import KINDS, Checks, Limit
from sidecar.ports import Clock, Counters, CountersWrapper

_Done = Callable[["Decision | StoreError"], None]


class LossGuard(CountersWrapper):
    """`lost_us(slot_key)`: when the Redis node of a key lost its data, µs since 1970; 0: never. `denied`: a count."""

    def __init__(self, inner: Counters, clock: Clock, lost_us: Callable[[str], int]) -> None:
        super().__init__(inner)
        self._clock = clock
        self._lost_us = lost_us
        self.denied = 0

    def try_local(self, id: bytes, checks: Checks) -> Decision | None:
        return self._denial(checks) or self._inner.try_local(id, checks)

    def reserve(self, id: bytes, checks: Checks, done: _Done) -> None:
        denial = self._denial(checks)
        if denial is not None:
            done(denial)
        else:
            self._inner.reserve(id, checks, done)

    def _denial(self, checks: Checks) -> Decision | None:
        lost_us = self._lost_us(checks.marks)
        if not lost_us:
            return None
        now_us = self._clock.now_us()
        for index, check in enumerate(checks.entries):
            if check.cost and guards(check.limit):
                left_us = check.kind.loss_ends_us(check.limit, check.window, lost_us) - now_us
                if left_us > 0:
                    self.denied += 1
                    count = len(checks.entries)
                    resets = [left_us if each == index else 0 for each in range(count)]
                    denial = Decision(checks, now_us, (0,) * count, resets, 1 + index, "degraded")
                    denial.unknown = "lost"
                    return denial
        return None


def guards(limit: Limit) -> bool:
    """Whether a limit denies after a loss of the store's data."""
    return limit.on_store_loss == "deny" and limit.over == "deny" and limit.stage == "enforce"


def denies_until_us(limits: Iterable[Limit], lost_us: int) -> int:
    """When the last of `limits` admits again after the loss at `lost_us`; 0 without limits. `guards` is true of each.

    For customers with their own subscription day or time zone it is the latest possible time.
    """
    return max((KINDS[limit.kind].loss_ends_latest_us(limit, lost_us) for limit in limits), default=0)
