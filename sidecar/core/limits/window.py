"""Windows: so many units in each length of time, sliding unless `fixed`.

A fixed window counts as a quota does, from one multiple of its length to the next; twice the amount can pass within a
short time around a boundary. A sliding window also counts what the previous window held, weighted by how much of it
still lies within one length before now, as if it had been spread evenly. That takes two counters, and no list of
requests. The weight is rounded up and the time passed is rounded down to ms, so that never more is admitted.

    window 100/60s, 80 units in the previous minute, 30 in this one, 15 s of which have passed:
      weight of the previous   ceil(80 x (60 - 15) / 60) = 60
      remaining                100 - 30 - 60 = 10
      a request of 12 units    is denied until the weight is at most 58: 80 x (60 - t) / 60 <= 58, so t = 16.5 s
"""

from __future__ import annotations

from typing import Any, Final

from sidecar.core.identity import Identity
from sidecar.core.limits.base import METERED_OPTIONS, Check, Evaluation, Evaluator, State, Words, Written, scope_keys
from sidecar.core.limits.bounds import COUNT_MAX, MINUTE_US, amount_fault
from sidecar.core.limits.counted import Counted, evaluate_count
from sidecar.core.limits.leasing import Leasing
from sidecar.core.limits.limit import Limit
from sidecar.core.window import Window, describe_length, length_window

_EXACT: Final = 2**53


class WindowKind(Counted):
    """`window: 100/60s`."""

    name = "window"
    code = "w"
    written_as = "length"
    example = "100/60s"
    options = METERED_OPTIONS | {"fixed", "alert"}
    default_scope = "key"
    is_protective = True
    is_priced = False
    leasing: Leasing | None = Leasing()

    def bounds_fault(self, limit: Limit) -> str | None:
        if (fault := amount_fault(limit.amount)) is not None:
            return fault
        if limit.period_us < 1000 or limit.period_us % 1000:
            return f"a window of {limit.period_us} µs must be whole milliseconds"
        if not limit.fixed and (limit.amount + 1) * (limit.period_us // 1000) > _EXACT // 2:
            return f"{limit.amount} units sliding over {limit.period_us} µs are too fine to weigh exactly: use fixed"
        return None

    def figures(self, written: Written) -> dict[str, Any]:
        return {"amount": written.amount * written.seats, "period_us": written.period_us, "fixed": written.fixed}

    def same_counter(self, limit: Limit) -> dict[str, object]:
        return {"period": f"{limit.period_us} µs", "fixed": limit.fixed}

    def describe(self, limit: Limit) -> str:
        return f"{limit.amount} per {describe_length(limit.period_us)}" + (" (fixed)" if limit.fixed else "")

    def window(self, limit: Limit, identity: Identity, now_us: int) -> Window:
        return length_window(limit.period_us, now_us)

    def keys(self, limit: Limit, identity: Identity, window: Window) -> tuple[str, ...]:
        if limit.fixed:
            return super().keys(limit, identity, window)
        return scope_keys(self.code, limit, identity, window.id, length_window(limit.period_us, window.start_us - 1).id)

    def expiry_us(self, limit: Limit, window: Window) -> int:
        """A sliding window is read for another length."""
        return window.end_us + (window.end_us - window.start_us) + MINUTE_US

    def evaluator(self, check: Check, *, forced: bool) -> Evaluator:
        return evaluate_count(check) if check.limit.fixed else _evaluate_sliding(check)

    def loss_ends_us(self, limit: Limit, window: Window, lost_us: int) -> int:
        return super().loss_ends_us(limit, window, lost_us) if limit.fixed else lost_us + limit.period_us

    def loss_ends_latest_us(self, limit: Limit, lost_us: int) -> int:
        return self.loss_ends_us(limit, length_window(limit.period_us, lost_us), lost_us)

    def reserve_words(self, check: Check, wallet: int) -> tuple[str, Words]:
        limit, window = check.limit, check.window
        words = window.start_us, window.end_us, self.expiry_us(limit, window) // 1000
        if limit.fixed:
            return "count", words
        return "window", (*words, limit.period_us // 1000, previous_ceiling(limit))


def previous_ceiling(limit: Limit) -> int:
    """The most units of a previous window that are weighted, so that units x ms stays exact in a double."""
    return min(COUNT_MAX, _EXACT // (limit.period_us // 1000) - 1)


def _evaluate_sliding(check: Check) -> Evaluator:
    limit, cost, (key, before_key) = check.limit, check.cost, check.keys
    start_us, end_us = check.window.start_us, check.window.end_us
    amount, length, ceiling = limit.amount, limit.period_us // 1000, previous_ceiling(limit)
    expire_us = check.kind.expiry_us(limit, check.window)

    def evaluate(state: State, now_us: int) -> Evaluation:
        used, before = state.get(key, 0), state.get(before_key, 0)
        before = min(before, ceiling)
        passed = (now_us - start_us) // 1000  # ms: past time rounds down,
        remaining = amount - used - -(-before * (length - passed) // length)  # and the weight up: never more admitted
        denies, reset_us = 0 < cost > remaining, end_us - now_us
        opens_us = start_us + _opens_ms(limit, cost, used, before) * 1000 - now_us if denies else reset_us
        return denies, remaining, opens_us, remaining - cost, reset_us, min(used + cost, COUNT_MAX), expire_us

    return evaluate


def _opens_ms(limit: Limit, cost: int, used: int, before: int) -> int:
    """The ms from the window's start at which `cost` units pass if nobody else asks; its end where they never will."""
    length, room = limit.period_us // 1000, limit.amount - cost
    if room < 0:
        return length
    if room >= used:
        return length - (room - used) * length // before
    return length + length - room * length // min(used, previous_ceiling(limit))
