"""Reads from a journal's entries what an exchange reserved and what it settled.

A worker that starts after a kill knows an exchange only by its OPEN entry and its record. Read under the current
policy, they yield the same checks (keys, windows, costs) and the same actual units with which the exchange itself
reserved and settled. So its settle can be sent again, and its counters can be rebuilt. Nothing is decided or sent here.

    OPEN    reserved {"tokens": 500}                     -> costs (500,) of the limit `monthly` in 2026-11
    record  usage {"tokens": 812}, billable, mode exact  -> actual units (812,)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from sidecar.core.identity import Identity
from sidecar.core.limits import KINDS, Checks, checks_for
from sidecar.core.policy import Policy, Route, Terms
from sidecar.core.record.events import WITHHELD

_CACHED = 4_096  # identities and checks of one reader


class Settlement(NamedTuple):
    """`actual[i]` units take the place of `checks.costs[i]`, which the exchange `id` reserved.

    `mode` is the decision's (exact, leased, degraded …), "" where it is not known (the exchange was open at a crash). A
    leased exchange reserved nothing by itself: its costs are 0, and its actual units are what it used beyond (or, below
    zero, less than) the units leased for it. `closed_us` is when it ended, µs since the epoch by its worker's clock.
    """

    id: bytes
    checks: Checks
    actual: tuple[int, ...]
    mode: str
    closed_us: int


class Settlements:
    """Reads settlements under one policy. Plans, routes and limits that it no longer has are left out."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._routes: dict[str, Route] = {route.id: route for route in policy.routes}
        self._identities: dict[tuple[str, str, str, str, str, int], Identity] = {}
        self._checks: dict[tuple[Identity, Terms, tuple[int, ...], tuple[int, ...]], Checks] = {}

    def reserved(self, before: dict[str, Any]) -> Checks | None:
        """The checks that an exchange reserved, by the JSON of its OPEN entry; None and errors as for `read`."""
        caller = self._caller(before)
        if caller is None or not caller[1].limits:
            return None
        identity, terms = caller
        which = tuple(range(len(terms.limits)))
        return self._checks_at(identity, terms, which, tuple(_costs(terms, before)), _instant(before))

    def read(self, id_: bytes, opened: bytes, closed: bytes, closed_us: int) -> Settlement | None:
        """The settlement of the exchange `id_`: the body of its OPEN entry and of its record (JSON).

        None where it has no counters: nobody's, of a plan or route that has gone, or without limits.
        ValueError, KeyError, TypeError: they are not entries of ours.
        """
        before, data = orjson.loads(opened), orjson.loads(closed)["data"]
        if (caller := self._caller(before)) is None:
            return None
        identity, terms = caller
        decision = data.get("decision")
        recorded = {each["id"] for each in decision["limits"]} if decision is not None else set()
        which = [
            index
            for index, limit in enumerate(terms.limits)
            if decision is None or KINDS[limit.kind].is_priced or limit.id in recorded
        ]
        if not which:
            return None
        costs, at_us = _costs(terms, before), _instant(before)
        checks = self._checks_at(identity, terms, tuple(which), tuple(costs[index] for index in which), at_us)
        all_units = _actual_units(terms, data)
        units = tuple(all_units[index] for index in which)
        mode = str(decision["mode"]) if decision is not None else ""
        if mode == "leased":
            units = tuple(used - cost for used, cost in zip(units, checks.costs, strict=True))
            checks = self._checks_at(identity, terms, tuple(which), (0,) * len(which), at_us)
        return Settlement(id_, checks, units, mode, closed_us)

    def adjustment(self, change: dict[str, Any]) -> Settlement | None:
        """The settle of a change of a record, which reserved nothing: `units` by limit, in the windows at `at_us`.

        `change` has the caller and the route as an OPEN entry does. None and errors as for `read`.
        """
        if (caller := self._caller(change)) is None:
            return None
        identity, terms = caller
        units, at_us = change["units"], int(change["at_us"])
        which = tuple(index for index, limit in enumerate(terms.limits) if limit.id in units)
        if not which:
            return None
        checks = self._checks_at(identity, terms, which, (0,) * len(which), at_us)
        actual = tuple(int(units[limit.id]) for limit in checks.limits)
        return Settlement(change["id"].encode(), checks, actual, "", change["now_us"])

    def _caller(self, before: dict[str, Any]) -> tuple[Identity, Terms] | None:
        route = self._routes.get(before["route"])
        if "customer" not in before or route is None:
            return None
        identity = self._identity(before)
        terms = self._policy.terms(identity.plan, route, identity.customer)
        return (identity, terms) if terms is not None else None

    def _identity(self, before: dict[str, Any]) -> Identity:
        plan = str(before["plan"]).partition("@")[0]
        key = (
            before["key_id"], before["subject"], before["customer"], plan, before.get("zone", "UTC"),
            before.get("anchor_us", 0),
        )  # fmt: skip
        identity = self._identities.get(key)
        if identity is None:
            if len(self._identities) >= _CACHED:
                self._identities.clear()
            identity = self._identities[key] = Identity(*key)
        return identity

    def _checks_at(
        self, identity: Identity, terms: Terms, which: tuple[int, ...], costs: tuple[int, ...], at_us: int
    ) -> Checks:
        key = (identity, terms, which, costs)
        checks = self._checks.get(key)
        if checks is None or not checks.covers(at_us):
            if len(self._checks) >= _CACHED:
                self._checks.clear()
            limits = [terms.limits[index] for index in which]
            checks = self._checks[key] = checks_for(limits, costs, identity, at_us)
        return checks


def _instant(before: dict[str, Any]) -> int:
    """An instant in the windows that were checked: the arrival, unless the store's clock chose other windows."""
    return int(before.get("at_us", before["time_us"]))


def _costs(terms: Terms, before: dict[str, Any]) -> list[int]:
    """The units reserved of each limit: one slot, nothing of a balance, else the units of the meter or of the limit."""
    own, reserved = before.get("costs", {}), before["reserved"]
    return [
        own.get(limit.id, reserved.get(limit.meter, 0)) if (kind := KINDS[limit.kind]).is_metered else kind.fixed_cost
        for limit in terms.limits
    ]


def _actual_units(terms: Terms, data: dict[str, Any]) -> tuple[int, ...]:
    if data["outcome"] == WITHHELD:  # its answer reached nobody
        return (0,) * len(terms.limits)
    excluded = any(data["billable_reason"] == exclusion.id for exclusion in terms.exclusions)
    return terms.actual_units(data["usage"], billable=data["billable"], excluded=excluded and not data["billable"])
