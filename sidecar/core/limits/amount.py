"""The common answers of kinds that count under a scope: all but the wallet.

`Amounted` is for any of them. `Metered` is for those that count units of a meter, where an exchange holds nothing that
has to be given back: what it charged is corrected when it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sidecar.core.identity import Identity
from sidecar.core.limits.base import NO_WINDOW, Check, Denial, Kind, State, Write, scope_keys
from sidecar.core.limits.bounds import COUNT_MAX, left_at
from sidecar.core.limits.limit import Limit
from sidecar.core.limits.pace import OutageTime
from sidecar.core.window import Window

USED_UP: Final = Denial(
    429,
    "quota-exceeded",
    "Request cannot be satisfied as assigned quota has been exceeded",
    "limit {id} of {amount} {meter} is used up for now",
)


class Amounted(Kind):
    """Shares, alerts and record figures of a limit that has an amount; one counter, unless a kind has windows."""

    def same_counter(self, limit: Limit) -> dict[str, object]:
        return {}

    def window(self, limit: Limit, identity: Identity, now_us: int) -> Window:
        return NO_WINDOW

    def keys(self, limit: Limit, identity: Identity, window: Window) -> tuple[str, ...]:
        """The kind's code is in the name: where the kind of a limit is edited, its value has another type."""
        return scope_keys(self.code, limit, identity, window.id)

    def first_alert(self, limit: Limit) -> int:
        return left_at(limit.amount, limit.alerts[0])

    def share(self, limit: Limit, workers: int) -> Limit:
        return replace(limit, amount=max(1, limit.amount // workers))

    def refuses_alone(self, limit: Limit, workers: int) -> bool:
        return limit.on_store_failure == "deny"

    def over_admission(self, limit: Limit, workers: int) -> int:
        return self.share(limit, workers).amount * workers

    def outage_time(self, limit: Limit, workers: int) -> OutageTime | None:
        return None

    def loss_ends_latest_us(self, limit: Limit, lost_us: int) -> int:
        return self.loss_ends_us(limit, NO_WINDOW, lost_us)

    def record_item(self, check: Check) -> tuple[tuple[str, str | int | None], ...]:
        return ("id", check.limit.id), ("period", check.window.id), ("used", None), ("limit", check.limit.amount)

    def record_figure(self, limit: Limit, remaining: int) -> int:
        return limit.amount - remaining


class Metered(Amounted):
    """Units of the limit's meter."""

    is_metered = True
    fixed_cost = 0
    cost_max = COUNT_MAX

    def must_settle(self, cost: int) -> bool:
        return False

    def hold_set(self, check: Check) -> tuple[str, str] | None:
        return None

    def extension(self, state: State, check: Check, id_: bytes, until_us: int, *, is_open: bool) -> Write | None:
        return None

    def excess(self, checks: Sequence[Check], index: int, actual: Sequence[int], remaining: Sequence[int]) -> int:
        return min(actual[index], COUNT_MAX) - checks[index].cost

    def repeats_denial(self, limits: Sequence[Limit]) -> bool:
        return True

    def denial(self, mode: str) -> Denial:
        return USED_UP


def unit_of(meter: str) -> str:
    """The unit in RateLimit-Policy: "" is its default, `request`.

    A unit of our own goes by its meter's name: left out, it would be taken for requests.
    """
    if meter.endswith("_bytes"):
        return "content-bytes"
    return "" if meter == "requests" else meter
