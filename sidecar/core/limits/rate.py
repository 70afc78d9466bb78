"""Rates: so many units in each period, and a burst at once. core/limits/pace.py has the theory and an example."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sidecar.core.limits.amount import Metered, unit_of
from sidecar.core.limits.base import (
    METERED_OPTIONS,
    RATE,
    Check,
    Evaluation,
    Evaluator,
    HeaderItem,
    State,
    Words,
    Write,
    Written,
)
from sidecar.core.limits.bounds import COUNT_MAX, MINUTE_US, SECOND_US, amount_fault
from sidecar.core.limits.leasing import Leasing, RateLeasing
from sidecar.core.limits.limit import Limit
from sidecar.core.limits.pace import NOTICE_US, OutageTime, backlog_of, burst_us, pace_of, shift_of
from sidecar.core.window import Window, describe_length


class RateKind(Metered):
    """`rate: 100/10s`."""

    name = "rate"
    code = "r"
    stored_as = RATE
    written_as = "length"
    example = "5/s or 100/10s"
    options = METERED_OPTIONS | {"burst"}
    default_scope = "key"
    is_protective = True
    is_priced = False
    leasing: Leasing | None = RateLeasing()

    def bounds_fault(self, limit: Limit) -> str | None:
        if (fault := amount_fault(limit.amount)) is not None:
            return fault
        if limit.per < 1 or limit.period_us < 1:
            return "a rate needs at least 1 unit in at least 1 µs"
        pace = pace_of(limit, 0)
        if limit.amount * pace.step > 2**50 or pace.burst[0] * 2 > pace.ceiling_us:
            return f"a burst of {limit.amount} at {limit.per} in {limit.period_us} µs is too fine to count exactly"
        return None

    def figures(self, written: Written) -> dict[str, Any]:
        burst = written.burst or written.amount
        return {
            "amount": burst * written.seats,
            "per": written.amount * written.seats,
            "period_us": written.period_us,
        }

    def describe(self, limit: Limit) -> str:
        return f"{limit.per} per {describe_length(limit.period_us)}, {limit.amount} at once"

    def expiry_us(self, limit: Limit, window: Window) -> int:
        """Each value has an expiry of its own: it is of no use once its arrival time has passed."""
        return MINUTE_US

    def evaluator(self, check: Check, *, forced: bool) -> Evaluator:
        """Forced, what no longer fits is charged beyond the burst, unless the limit may be passed anyway."""
        limit, cost, key = check.limit, check.cost, check.keys[0]
        step, parts, _, whole, ceiling_us = pace_of(limit, cost)
        units, burst, last = whole[0] * parts + whole[1], limit.amount * step, parts - 1
        spills = forced and not check.role

        def evaluate(state: State, now_us: int) -> Evaluation:  # in 1/parts µs
            backlog = 0
            if (stored := state.get(key)) is not None and stored[0] >= now_us:
                backlog = min(stored[0] - now_us, ceiling_us) * parts + min(stored[1], last)
            full = backlog + units
            if denies := cost > 0 and full > burst:
                until_us = -((burst - full) // parts)
                if not spills:
                    full = max(backlog, burst)  # who may pass a full one fills it no further
            else:
                until_us = -(-backlog // parts)
            whole_us, rest = divmod(full, parts)
            arrival_us = now_us + whole_us
            left, left_us = (burst - full) // step, whole_us + (rest > 0)
            remaining, value = (burst - backlog) // step, (arrival_us, rest)
            return denies, remaining, until_us, left, left_us, value, arrival_us + MINUTE_US

        return evaluate

    def correction(self, state: State, check: Check, id_: bytes, actual: int, age_us: int, now_us: int) -> Write | None:
        limit, cost, key = check.limit, check.cost, check.keys[0]
        whole_us, rest = shift_of(limit, cost, min(actual, COUNT_MAX) - cost, age_us)
        if not whole_us and not rest:
            return None
        pace = pace_of(limit, cost)
        backlog = backlog_of(state.get(key), limit, now_us) + whole_us * pace.parts + rest
        whole_us, rest = divmod(backlog, pace.parts)
        arrival_us = now_us + min(whole_us, pace.ceiling_us)  # before now it is as good as none
        return key, None, (arrival_us, rest), arrival_us + MINUTE_US

    def share(self, limit: Limit, workers: int) -> Limit:
        return replace(limit, amount=max(1, limit.amount // workers), period_us=limit.period_us * workers)

    def over_admission(self, limit: Limit, workers: int) -> int:
        """Beyond burst + rate x time: the store admits some before it has all debts, and more before others find it."""
        bound = self.share(limit, workers).amount * workers
        return bound * min(workers, 2) - (-limit.per * NOTICE_US // limit.period_us)

    def share_unknown(self, check: Check, unknown_us: int, now_us: int, *, is_lent_unknown: bool) -> bool:
        """A burst later the bucket is empty in any case."""
        return now_us < unknown_us + burst_us(check.limit) + NOTICE_US

    def local_expiry_us(self, check: Check, value: Any) -> int:
        return int(value[0]) + MINUTE_US

    def outage_time(self, limit: Limit, workers: int) -> OutageTime | None:
        return OutageTime(limit, workers)

    def loss_ends_us(self, limit: Limit, window: Window, lost_us: int) -> int:
        return lost_us + burst_us(limit)

    def header_item(self, limit: Limit, window: Window) -> HeaderItem | None:
        """Its window is the time in which the whole burst comes back."""
        return HeaderItem(unit_of(limit.meter), -(-limit.amount * limit.period_us // (limit.per * SECOND_US)))

    def reserve_words(self, check: Check, wallet: int) -> tuple[str, Words]:
        pace = pace_of(check.limit, check.cost)
        return "rate", (*pace.cost, *pace.burst, pace.step, pace.parts, pace.ceiling_us)

    def settle_words(self, check: Check, actual: int, age_us: int, wallet: int) -> tuple[str, Words]:
        pace = pace_of(check.limit, check.cost)
        owed = min(actual, COUNT_MAX) - check.cost
        return "rate", (*shift_of(check.limit, check.cost, owed, age_us), pace.parts, pace.ceiling_us)
