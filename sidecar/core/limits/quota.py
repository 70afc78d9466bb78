"""Quotas: so many units in each hour, day, week, month or year of a time zone."""

from __future__ import annotations

from typing import Any

from sidecar.core.identity import Identity
from sidecar.core.limits.base import METERED_OPTIONS, Written
from sidecar.core.limits.bounds import DAY_US, amount_fault
from sidecar.core.limits.counted import Counted
from sidecar.core.limits.leasing import Leasing
from sidecar.core.limits.limit import Limit
from sidecar.core.window import Window, calendar_window


class CalendarCounted(Counted):
    """Counts in windows of the calendar: in the limit's zone or the customer's, from the 1st or the customer's day."""

    code = "q"

    def same_counter(self, limit: Limit) -> dict[str, object]:
        return {"calendar": limit.calendar}

    def window(self, limit: Limit, identity: Identity, now_us: int) -> Window:
        zone = identity.zone if limit.zone == "customer" else limit.zone
        return calendar_window(limit.calendar, zone, identity.anchor_us if limit.anchored else 0, now_us)

    def loss_ends_latest_us(self, limit: Limit, lost_us: int) -> int:
        if limit.anchored or limit.zone == "customer":  # then its window may begin with the loss, in any zone
            return calendar_window(limit.calendar, "UTC", lost_us, lost_us).end_us + DAY_US
        return calendar_window(limit.calendar, limit.zone, 0, lost_us).end_us


class QuotaKind(CalendarCounted):
    """`quota: 10000/month`."""

    name = "quota"
    written_as = "calendar"
    example = "10000/month"
    options = METERED_OPTIONS | {"anchor", "zone", "alert"}
    default_scope = "customer"
    is_protective = False
    is_priced = False
    leasing: Leasing | None = Leasing()

    def bounds_fault(self, limit: Limit) -> str | None:
        return amount_fault(limit.amount)

    def figures(self, written: Written) -> dict[str, Any]:
        return {"amount": written.amount * written.seats, "calendar": written.calendar}

    def describe(self, limit: Limit) -> str:
        return f"{limit.amount} per {limit.calendar}" + (" of subscription" if limit.anchored else "")
