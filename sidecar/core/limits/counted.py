"""The common part of kinds that count units in windows: quota, window and priced.

A counter is one integer under a key that has the window's id in it, so a new window starts at 0 and nothing is ever
reset. With `used` units counted, `amount - used` remain, and a request passes while its cost is not more than that. It
is charged in the same step. Once its exchange has ended, the actual units take the place of the cost.

    quota 1,000/month, 940 used:
      a request that reserves 50   passes: 990 used, 10 left
      a request that reserves 20   is denied until the month ends; a denial counts nothing
      the first used only 30       its settle takes 20 back: 970 used, 30 left
"""

from __future__ import annotations

from typing import Any

from sidecar.core.limits.amount import Metered, unit_of
from sidecar.core.limits.base import (
    COUNT,
    Check,
    Evaluation,
    Evaluator,
    HeaderItem,
    State,
    Words,
    Write,
)
from sidecar.core.limits.bounds import COUNT_MAX, DAY_US, MINUTE_US, SECOND_US
from sidecar.core.limits.limit import Limit
from sidecar.core.window import Window


class Counted(Metered):
    """All answers but the definition, the window and the keys."""

    stored_as = COUNT

    def expiry_us(self, limit: Limit, window: Window) -> int:
        return window.end_us + min(window.end_us - window.start_us, DAY_US) + MINUTE_US

    def evaluator(self, check: Check, *, forced: bool) -> Evaluator:
        return evaluate_count(check)

    def correction(self, state: State, check: Check, id_: bytes, actual: int, age_us: int, now_us: int) -> Write | None:
        owed = min(actual, COUNT_MAX) - check.cost
        if not owed:
            return None
        used = max(0, min(state.get(check.keys[0], 0) + owed, COUNT_MAX))
        return check.keys[0], None, used, self.expiry_us(check.limit, check.window)

    def share_unknown(self, check: Check, unknown_us: int, now_us: int, *, is_lent_unknown: bool) -> bool:
        return check.window.start_us <= unknown_us

    def local_expiry_us(self, check: Check, value: Any) -> int:
        return self.expiry_us(check.limit, check.window)

    def loss_ends_us(self, limit: Limit, window: Window, lost_us: int) -> int:
        return window.end_us if window.start_us <= lost_us else 0

    def header_item(self, limit: Limit, window: Window) -> HeaderItem | None:
        return HeaderItem(unit_of(limit.meter), -(-(window.end_us - window.start_us) // SECOND_US))

    def reserve_words(self, check: Check, wallet: int) -> tuple[str, Words]:
        window = check.window
        return "count", (window.start_us, window.end_us, self.expiry_us(check.limit, window) // 1000)

    def settle_words(self, check: Check, actual: int, age_us: int, wallet: int) -> tuple[str, Words]:
        return "count", (min(actual, COUNT_MAX) - check.cost, self.expiry_us(check.limit, check.window) // 1000)


def evaluate_count(check: Check) -> Evaluator:
    """The evaluation of a count in a fixed window."""
    cost, key, end_us, amount = check.cost, check.keys[0], check.window.end_us, check.limit.amount
    expire_us = check.kind.expiry_us(check.limit, check.window)

    def evaluate(state: State, now_us: int) -> Evaluation:
        used = state.get(key, 0)
        remaining, reset_us = amount - used, end_us - now_us
        after = min(used + cost, COUNT_MAX)
        return 0 < cost > remaining, remaining, reset_us, remaining - cost, reset_us, after, expire_us

    return evaluate
