"""Concurrency: so many exchanges at once. Each holds a slot, which is given back when it ends.

The slots of a counter are a set: the exchange's id, and when its slot expires. A slot that nobody gives back, because
its worker was killed, expires after the limit's `period_us`; an exchange that lasts longer extends its own.

    concurrency 2, slots a (until 10:05) and b (until 10:01), at 10:00:
      c asks   denied: 2 - 2 remain. Nobody knows when a slot comes free, so the answer is to ask again in a second
      c asks at 10:02, when b has expired and was never settled: passes, and holds a slot until 10:12
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sidecar.core.limits.amount import Amounted
from sidecar.core.limits.base import (
    SCOPED_OPTIONS,
    SLOTS,
    Check,
    Denial,
    Evaluation,
    Evaluator,
    HeaderItem,
    State,
    Words,
    Write,
    Written,
)
from sidecar.core.limits.bounds import MINUTE_US, SECOND_US, amount_fault
from sidecar.core.limits.leasing import Leasing
from sidecar.core.limits.limit import Limit
from sidecar.core.window import Window

RETRY_US: Final = 1_000_000  # nobody knows when a slot comes free; ask again after a second
SLOT_EXPIRY_US: Final = 600_000_000  # a replica that was killed gives its slots back after ten minutes
_REACHED: Final = Denial(
    429,
    "temporary-reduced-capacity",
    "Request cannot be satisfied due to temporary server capacity constraints",
    "limit {id} of {amount} exchanges at once is reached",
)


class ConcurrencyKind(Amounted):
    """`concurrency: 20`."""

    name = "concurrency"
    code = "s"
    stored_as = SLOTS
    written_as = "amount"
    example = "20"
    options = SCOPED_OPTIONS | {"expiry_us"}
    default_scope = "key"
    is_metered = False
    fixed_cost = 1
    cost_max = 1
    is_protective = False
    is_priced = False
    leasing: Leasing | None = None

    def bounds_fault(self, limit: Limit) -> str | None:
        if (fault := amount_fault(limit.amount)) is not None:
            return fault
        if limit.period_us < SECOND_US:
            return f"a slot that nobody gives back expires after {limit.period_us} µs: it must be a second or more"
        return None

    def figures(self, written: Written) -> dict[str, Any]:
        return {"amount": written.amount * written.seats, "period_us": written.expiry_us or SLOT_EXPIRY_US}

    def describe(self, limit: Limit) -> str:
        return f"{limit.amount} at once"

    def expiry_us(self, limit: Limit, window: Window) -> int:
        return limit.period_us + MINUTE_US

    def evaluator(self, check: Check, *, forced: bool) -> Evaluator:
        limit, cost, key = check.limit, check.cost, check.keys[0]

        def evaluate(state: State, now_us: int) -> Evaluation:
            slots = state.get(key)
            remaining = limit.amount - (sum([until > now_us for until in slots.values()]) if slots else 0)
            denies, until_us = 0 < cost > remaining, now_us + limit.period_us
            return denies, remaining, RETRY_US * denies, remaining - cost, 0, until_us, until_us + MINUTE_US

        return evaluate

    def correction(self, state: State, check: Check, id_: bytes, actual: int, age_us: int, now_us: int) -> Write | None:
        return check.keys[0], id_, None, 0

    def must_settle(self, cost: int) -> bool:
        return cost > 0

    def hold_set(self, check: Check) -> tuple[str, str] | None:
        return ("slots", check.keys[0]) if check.cost else None

    def extension(self, state: State, check: Check, id_: bytes, until_us: int, *, is_open: bool) -> Write | None:
        """A slot that has expired is taken again: the exchange is still there."""
        return (check.keys[0], id_, until_us, until_us + MINUTE_US) if check.cost and is_open else None

    def excess(self, checks: Sequence[Check], index: int, actual: Sequence[int], remaining: Sequence[int]) -> int:
        return 0

    def repeats_denial(self, limits: Sequence[Limit]) -> bool:
        """A slot may come free at any moment."""
        return False

    def share_unknown(self, check: Check, unknown_us: int, now_us: int, *, is_lent_unknown: bool) -> bool:
        """The exchanges of a process end with it, and so do their slots."""
        return False

    def local_expiry_us(self, check: Check, value: Any) -> int:
        return 0

    def loss_ends_us(self, limit: Limit, window: Window, lost_us: int) -> int:
        return lost_us + limit.period_us

    def header_item(self, limit: Limit, window: Window) -> HeaderItem | None:
        return HeaderItem("concurrent-requests", 0)

    def denial(self, mode: str) -> Denial:
        return _REACHED

    def reserve_words(self, check: Check, wallet: int) -> tuple[str, Words]:
        return "slots", (check.limit.period_us,)

    def settle_words(self, check: Check, actual: int, age_us: int, wallet: int) -> tuple[str, Words]:
        return "slots", ()
