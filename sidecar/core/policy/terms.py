"""The terms of one plan on one route, compiled once per load so that a request only looks them up.

Limits keep the order of the plan. An exchange that is excluded from the bill charges no quota and no priced limit, but
still counts for limits that protect the API (rates and windows): a retry is free, a flood of retries is still a flood.
An exchange that is not billed for another reason charges no balance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from sidecar.core.http import Request
from sidecar.core.identity import Identity
from sidecar.core.limits import KINDS, Limit
from sidecar.core.limits.base import WALLET
from sidecar.core.policy.meter import Arriving, Excluded, Facts, Meter, Tap
from sidecar.core.policy.model import Plan, Route
from sidecar.core.policy.patterns import glob, model_key


class Terms:
    """The limits and meters that apply to the requests of one plan on one route. Compared by object.

    `fixed_costs[i]` is the cost of every request for `limits[i]`, or None where `costs(request)` computes it. `plan` is
    the plan's label, "" without one; `entitled` is False where the plan lacks the feature that the route needs. `reads`
    is the route's; `unused` is the usage of an exchange that never reached the upstream, 0 of each meter: read-only.
    With `retries_us` > 0, a request that repeats an Idempotency-Key within that time is an excluded retry.
    `refuses_unread`: `unread` has to be called.
    """

    __slots__ = (
        "_asks", "_by_method", "_counted", "_each", "_gates", "_measured", "_missing", "_per_method",
        "_protected", "_reads_body", "_units", "_unpriced", "_unread", "_zeros", "entitled", "exclusions",
        "fixed_costs", "limits", "meters", "plan", "reads", "refuses_unread", "retries_us", "route", "unused",
        "varies",
    )  # fmt: skip

    def __init__(self, plan: Plan, route: Route, meters: Sequence[Meter], exclusions: Sequence[Excluded] = ()) -> None:
        by_id = {meter.id: meter for meter in meters}
        self.plan = plan.label
        self.route = route
        self.reads = inspected_sides(route, meters, exclusions)
        self.entitled = not route.feature or route.feature in plan.features
        gates = [(models, name) for models, name in route.models if name not in plan.features]
        self._gates = tuple([(glob(model_key(models)), name) for models, name in gates])
        self.exclusions = tuple(exclusions)
        self.retries_us = next((excluded.retries_us for excluded in exclusions if excluded.retries_us), 0)
        self.meters = tuple(meters)
        self.unused = dict.fromkeys([meter.id for meter in meters], 0)
        self.limits = tuple(_applying(plan.limits, route, by_id))
        kinds = [KINDS[limit.kind] for limit in self.limits]
        meters_of = [limit.meter if kind.is_metered else "" for limit, kind in zip(self.limits, kinds, strict=True)]
        self._counted = tuple(meters_of)
        self._protected = tuple(
            [meter if kind.is_protective else "" for meter, kind in zip(meters_of, kinds, strict=True)]
        )
        self._unpriced = tuple(["" if kind.is_priced else meter for meter, kind in zip(meters_of, kinds, strict=True)])
        self._zeros = (0,) * len(self.limits)  # the units of limits without a meter ("")
        self._asks = tuple(_ask(limit, by_id) for limit in self.limits)
        asks = frozenset().union(*(by_id[meter].asks for meter in self._counted if meter))
        needs = frozenset().union(*(meter.needs for meter in meters))
        self.fixed_costs: tuple[int, ...] | None = None if asks else tuple(ask(None) for ask in self._asks)
        self._by_method: dict[str, tuple[int, ...]] | None = {} if asks == {"method"} else None
        self.varies = (
            self.fixed_costs is None and self._by_method is None
        )  # with values that clients choose, so unbounded
        self._reads_body = "body" in asks
        self._measured: dict[int | tuple[int, str], dict[str, int]] = {}
        self._each = tuple((meter.id, meter.measure) for meter in meters if "exchange" in meter.needs)
        self._missing = tuple((meter.id, meter.missing) for meter in meters if meter.missing is not None)
        self._per_method = "method" in needs
        self._units: dict[int, tuple[int, ...]] = {}
        sold = _sold(self.limits, meters) if plan.label and route.unread == "deny" else ()
        self._unread = tuple(dict.fromkeys([meter.unread for meter in sold if meter.unread is not None]))
        self.refuses_unread = bool(self._unread)

    def costs(self, request: Request, tap: Tap | None = None) -> tuple[int, ...]:
        """The cost of `request` for each of `limits`, in units. Tuples of method-dependent costs are shared.

        `tap` has the values of its body; None: the body was not read, and defaults apply.
        """
        if self.fixed_costs is not None:
            return self.fixed_costs
        if self._by_method is None:
            arriving = Arriving(request, tap) if self._reads_body else request
            return tuple([ask(arriving) for ask in self._asks])
        costs = self._by_method.get(request.method)
        if costs is None:
            costs = self._by_method[request.method] = tuple([ask(request) for ask in self._asks])
        return costs

    def unread(self, request: Request, tap: Tap) -> bool:
        """Whether a meter that is sold cannot read what it needs of the body, and has no default for that.

        Such a request is refused: uncounted use would be free.
        """
        arriving = Arriving(request, tap)
        for unread in self._unread:  # noqa: SIM110 - compiled, a generator costs more than all else here
            if unread(arriving):
                return True
        return False

    def measure(self, facts: Facts) -> dict[str, int]:
        """The usage of the exchange, by meter id, zeros included. Shared between exchanges: read-only."""
        key = (facts.status, facts.method) if self._per_method else facts.status
        usage = self._measured.get(key)
        if usage is None:
            usage = self._measured[key] = {meter.id: meter.measure(facts) for meter in self.meters}
            self._units[id(usage)] = self._units_of(usage)  # `_measured` keeps it alive, so its id stays unique
        if self._each:
            usage = usage.copy()
            for name, measure in self._each:
                usage[name] = measure(facts)
        return usage

    def missing(self, facts: Facts) -> tuple[str, ...]:
        """The meters whose quantity a body did not yield, so that `quality` is partial. Only where `reads`."""
        return tuple([name for name, missing in self._missing if missing(facts)])

    def excluded(self, facts: Facts, identity: Identity | None, *, retry: bool = False) -> str:
        """The id of the first exclusion that matches an exchange; "": none. A `retry` repeats an earlier request.

        Called only where there are `exclusions`, when the exchange has ended.
        """
        for exclusion in self.exclusions:
            if (retry or not exclusion.retries_us) and exclusion.matches(facts, identity):
                return exclusion.id
        return ""

    def is_paid(self, request: Request, tap: Tap | None, usage: Mapping[str, int]) -> bool:
        """Whether `usage`, of an exchange that was refused or cut, is all that its repetition can be charged.

        Quantities of an answer are unknown where none was received, and a status may prevent a meter from counting.
        """
        arriving = Arriving(request, tap)
        for meter in self.meters:
            source = arriving if "body" in meter.asks else request
            if not meter.known or meter.ask(source) != usage[meter.id]:
                return False
        return True

    def lacks(self, model: str) -> str:
        """The feature that the plan lacks for a model on this route, "" for none. An unknown model ("") needs all."""
        key = model_key(model)
        return next((feature for matches, feature in self._gates if not key or matches(key)), "")

    def actual_units(self, usage: dict[str, int], *, billable: bool = True, excluded: bool = False) -> tuple[int, ...]:
        """The result of `measure`, by limit; settle where it differs from the costs. A slot is released, so it is 0.

        An exchange that is not `billable` charges no balance, and an `excluded` one charges only rates and windows.
        """
        if not billable:
            return tuple(map(usage.get, self._protected if excluded else self._unpriced, self._zeros))
        units = self._units.get(id(usage))
        return self._units_of(usage) if units is None else units

    def _units_of(self, usage: dict[str, int]) -> tuple[int, ...]:
        return tuple(map(usage.get, self._counted, self._zeros))


def buffered_sides(route: Route, meters: Sequence[Meter], exclusions: Sequence[Excluded]) -> frozenset[str]:
    """The inspected bodies that have to be buffered whole. AI answers are read as they pass."""
    sides = frozenset[str]().union(*(meter.holds for meter in meters), *(excluded.reads for excluded in exclusions))
    return sides | {"request"} if route.models and not route.usage else sides


def inspected_sides(route: Route, meters: Sequence[Meter], exclusions: Sequence[Excluded]) -> frozenset[str]:
    """The bodies that are inspected on a route: "request", "response"."""
    sides = frozenset[str]().union(*(meter.reads for meter in meters), *(excluded.reads for excluded in exclusions))
    if route.usage:
        sides |= {"request", "response"}
    return sides | {"request"} if route.models else sides


def _sold(limits: Sequence[Limit], meters: Sequence[Meter]) -> list[Meter]:
    """The meters that decide or are billed: all but those whose limits are all in stage `shadow` or `soft`."""
    enforced = {limit.meter for limit in limits if limit.stage == "enforce"}
    tried = {limit.meter for limit in limits} - enforced
    return [meter for meter in meters if meter.id not in tried]


def _applying(limits: Sequence[Limit], route: Route, meters: Mapping[str, Meter]) -> list[Limit]:
    """The limits that count something on the route; a balance does where a priced limit that it pays for does."""
    applying: list[Limit] = []
    unpaid: set[str] = set()  # units of priced limits without a balance so far
    for limit in limits:
        if limit.routes and route.id not in limit.routes:
            continue
        kind = KINDS[limit.kind]
        if kind.stored_as == WALLET:
            applies = limit.unit in unpaid
            unpaid.discard(limit.unit)
        else:
            applies = not kind.is_metered or limit.meter in meters
        if applies:
            applying.append(limit)
            if kind.is_priced:
                unpaid.add(limit.unit)
    return applying


def _ask(limit: Limit, meters: Mapping[str, Meter]) -> Callable[[Request | Arriving | None], int]:
    kind = KINDS[limit.kind]
    if not kind.is_metered:
        units = kind.fixed_cost
        return lambda _: units
    meter = meters[limit.meter]
    if meter.known:
        return cast("Callable[[Request | Arriving | None], int]", meter.ask)
    reserve = limit.reserve

    def ask(request: Request | Arriving | None) -> int:
        units = meter.ask(request)
        return reserve if units is None else units

    return ask
