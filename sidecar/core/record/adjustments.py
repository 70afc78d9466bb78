"""Moves the counters by what a correction or a void adds to a record, in the windows in which the record was counted.

An adjustment is a settle of nothing reserved: `actual[i]` units, mostly below 0, are added to the counter of each limit
of the record's plan with a window. Where a balance pays for them, the difference of the charge goes back to the wallet,
at the price and in the tier where the counter is now. Rates and slots are left out: time has given them back.

    record  11-21, usage {"tokens": 812}, monthly quota counted in 2026-11
    void    {"tokens": -812}              the counter of `monthly` in 2026-11: -812, if Redis still has it
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sidecar.core.identity import Identity
from sidecar.core.limits import KINDS, Checks, Limit, checks_for
from sidecar.core.limits.base import COUNT, WALLET
from sidecar.core.policy import Policy
from sidecar.core.record.changes import Change
from sidecar.core.record.events import WITHHELD


class Adjustment(NamedTuple):
    """`actual[i]` units of `checks.entries[i]`. `skipped`: ids of limits whose window is not that of the record."""

    checks: Checks
    actual: tuple[int, ...]
    skipped: tuple[str, ...] = ()

    @property
    def units(self) -> dict[str, int]:
        """The units by limit, without zeros."""
        return {check.limit.id: units for check, units in zip(self.checks.entries, self.actual, strict=True) if units}


def adjustment_of(policy: Policy, identity: Identity, change: Change, period_us: int) -> Adjustment | None:
    """The adjustment of a change; None: the record was counted by no limit that the policy still has.

    `identity` has the plan with which the record was counted, and the zone and anchor of its customer. `period_us` is
    the change's `period_time`.
    """
    data: dict[str, Any] = change.original["data"]
    route = next((route for route in policy.routes if route.id == data["route"]), None)
    terms = policy.terms(identity.plan, route, identity.customer) if route is not None else None
    if terms is None or data.get("decision") is None or data["outcome"] == WITHHELD:
        return None
    excluded = any(data["billable_reason"] == exclusion.id for exclusion in terms.exclusions)
    is_billable = bool(data["billable"])
    units = terms.actual_units(change.usage, billable=is_billable, excluded=excluded and not is_billable)
    periods = {each["id"]: each.get("period", "") for each in data["decision"]["limits"]}
    chosen: list[tuple[Limit, int]] = []
    skipped: list[str] = []
    for limit, number in zip(terms.limits, units, strict=True):
        kind = KINDS[limit.kind]
        if kind.stored_as == WALLET or (kind.is_priced and number):
            chosen.append((limit, number))
        elif kind.stored_as == COUNT and number and limit.id in periods:
            if kind.window(limit, identity, period_us).id == periods[limit.id]:
                chosen.append((limit, number))
            else:
                skipped.append(limit.id)
    if not any(number for _, number in chosen) and not skipped:
        return None
    limits = [limit for limit, _ in chosen]
    checks = checks_for(limits, (0,) * len(limits), identity, period_us)
    return Adjustment(checks, tuple([number for _, number in chosen]), tuple(skipped))
