"""The compiled policy: what the hot path reads. Built once per load, never changed, swapped in whole."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` units of a meter per window, for a scope. Its counters are found by `id`, never by definition.

    rate:        GCRA; `per` units in each `period_us`, at most `amount` (the burst) at once.
    window:      `amount` units in `period_us`; sliding (two counters, weighted) unless `fixed`.
    quota:       `amount` units per `calendar` unit (hour, day, week, month, year), in `zone` (IANA name, or
                 "customer" for the identity's own), from the 1st, or from the identity's anchor where `anchored`.
    concurrency: `amount` exchanges at once; a slot that nobody gives back expires after `period_us`.
    """

    id: str
    kind: str
    amount: int
    meter: str = "requests"
    scope: str = "key"  # key | subject | customer
    per: int = 0
    period_us: int = 0
    calendar: str = ""
    zone: str = "UTC"
    anchored: bool = False
    fixed: bool = False
    over: str = "deny"  # deny | allow
    stage: str = "enforce"  # shadow | enforce
    on_store_failure: str = "allow"  # allow (within the local share) | deny
    routes: frozenset[str] = frozenset()  # empty: every route
