"""What holds for one plan on one route, worked out once per load so that a request only looks it up.

Limits keep the order of the plan. What is excluded from the bill charges nothing that is sold (quotas, priced limits),
and still counts for what protects the API (rates and windows): a retry costs nothing, a flood of them is no less one.
What is not billed for another reason takes no money.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, cast

from sidecar.core.http import Request
from sidecar.core.identity import Identity
from sidecar.core.policy.meter import Arriving, Excluded, Facts, Meter, Tap
from sidecar.core.policy.model import Limit, Plan, Route
from sidecar.core.policy.patterns import glob

METERLESS: Final = frozenset({"concurrency", "balance"})  # a slot counts exchanges, a balance pays for other limits
PROTECTIVE: Final = frozenset({"rate", "window"})


class Terms:
    """The limits and meters that apply to the requests of one plan on one route. Compared by object.

    `fixed_costs[i]` units are asked of `limits[i]` by every request, or it is None and `costs(request)` says. `plan`
    is the plan's label, "" without one; `entitled` is False where the route asks for a feature that the plan lacks.
    `reads` is the route's; `retries_us` > 0 is how long a repeated Idempotency-Key makes a retry that is excluded.
    """

    __slots__ = (
        "_asks",
        "_by_method",
        "_counted",
        "_each",
        "_gates",
        "_looks_inside",
        "_measured",
        "_missing",
        "_per_method",
        "_protected",
        "_truths",
        "_unpriced",
        "_zeros",
        "entitled",
        "exclusions",
        "fixed_costs",
        "limits",
        "meters",
        "plan",
        "reads",
        "retries_us",
        "route",
    )

    def __init__(self, plan: Plan, route: Route, meters: Sequence[Meter], exclusions: Sequence[Excluded] = ()) -> None:
        by_id = {meter.id: meter for meter in meters}
        self.plan = plan.label
        self.route = route
        self.reads = reads(route, meters, exclusions)
        self.entitled = not route.feature or route.feature in plan.features
        self._gates = tuple((glob(models), name) for models, name in route.models if name not in plan.features)
        self.exclusions = tuple(exclusions)
        self.retries_us = next((excluded.retries_us for excluded in exclusions if excluded.retries_us), 0)
        self.meters = tuple(meters)
        self.limits = tuple(_applying(plan.limits, route, by_id))
        self._counted = tuple("" if limit.kind in METERLESS else limit.meter for limit in self.limits)
        self._protected = tuple(limit.meter if limit.kind in PROTECTIVE else "" for limit in self.limits)
        self._unpriced = tuple("" if limit.kind in METERLESS | {"priced"} else limit.meter for limit in self.limits)
        self._zeros = (0,) * len(self.limits)  # what a slot counts: "" is no meter
        self._asks = tuple(_ask(limit, by_id) for limit in self.limits)
        asks = frozenset().union(*(by_id[meter].asks for meter in self._counted if meter))
        needs = frozenset().union(*(meter.needs for meter in meters))
        self.fixed_costs: tuple[int, ...] | None = None if asks else tuple(ask(None) for ask in self._asks)
        self._by_method: dict[str, tuple[int, ...]] | None = {} if asks == {"method"} else None
        self._looks_inside = "body" in asks
        self._measured: dict[int | tuple[int, str], dict[str, int]] = {}
        self._each = tuple((meter.id, meter.measure) for meter in meters if "exchange" in meter.needs)
        self._missing = tuple((meter.id, meter.missing) for meter in meters if meter.missing is not None)
        self._per_method = "method" in needs
        self._truths: dict[int, tuple[int, ...]] = {}

    def costs(self, request: Request, tap: Tap | None = None) -> tuple[int, ...]:
        """The units that `request` asks of each of `limits`. Tuples of method-dependent costs are shared.

        `tap` is what was read of its body, None where nothing was: then what stands in it counts as the defaults say.
        """
        if self.fixed_costs is not None:
            return self.fixed_costs
        if self._by_method is None:
            asked = Arriving(request, tap) if self._looks_inside else request
            return tuple([ask(asked) for ask in self._asks])
        found = self._by_method.get(request.method)
        if found is None:
            found = self._by_method[request.method] = tuple([ask(request) for ask in self._asks])
        return found

    def measure(self, facts: Facts) -> dict[str, int]:
        """What the exchange used, by meter id; a 0 is stated. Shared between exchanges: never change it."""
        key = (facts.status, facts.method) if self._per_method else facts.status
        usage = self._measured.get(key)
        if usage is None:
            usage = self._measured[key] = {meter.id: meter.measure(facts) for meter in self.meters}
            self._truths[id(usage)] = self._truth(usage)  # the memo keeps it alive, so its id is its own
        if self._each:
            usage = usage.copy()
            for name, measure in self._each:
                usage[name] = measure(facts)
        return usage

    def missing(self, facts: Facts) -> tuple[str, ...]:
        """The meters for which a body did not yield what was measured, so that `quality` is partial. For `reads`."""
        return tuple([name for name, missing in self._missing if missing(facts)])

    def excluded(self, facts: Facts, identity: Identity | None, *, retry: bool = False) -> str:
        """The first exclusion that holds for an exchange, by id; "" where none does. A `retry` repeats an earlier one.

        Asked only where there are `exclusions`, when the exchange has ended.
        """
        for exclusion in self.exclusions:
            if (retry or not exclusion.retries_us) and exclusion.holds(facts, identity):
                return exclusion.id
        return ""

    def lacks(self, model: str) -> str:
        """The feature that the plan lacks for a model on this route, "" for none. A model "", not known, needs all."""
        return next((feature for matches, feature in self._gates if not model or matches(model)), "")

    def truth(self, usage: dict[str, int], *, billable: bool = True, excluded: bool = False) -> tuple[int, ...]:
        """What `measure` found, by limit: settle where it is unlike the costs. A slot is given back, so it is 0.

        What is not `billable` burns no balance, and what is `excluded` charges nothing but rates and windows.
        """
        if not billable:
            return tuple(map(usage.get, self._protected if excluded else self._unpriced, self._zeros))
        found = self._truths.get(id(usage))
        return self._truth(usage) if found is None else found

    def _truth(self, usage: dict[str, int]) -> tuple[int, ...]:
        return tuple(map(usage.get, self._counted, self._zeros))


def holds(route: Route, meters: Sequence[Meter], exclusions: Sequence[Excluded]) -> frozenset[str]:
    """Which of the bodies that are looked at have to be held whole: AI answers are read as they pass."""
    found = frozenset[str]().union(*(meter.holds for meter in meters), *(excluded.reads for excluded in exclusions))
    return found | {"request"} if route.models and not route.usage else found


def reads(route: Route, meters: Sequence[Meter], exclusions: Sequence[Excluded]) -> frozenset[str]:
    """Which bodies are looked at on a route: "request", "response"."""
    found = frozenset[str]().union(*(meter.reads for meter in meters), *(excluded.reads for excluded in exclusions))
    if route.usage:
        found |= {"request", "response"}
    return found | {"request"} if route.models else found


def _applying(limits: Sequence[Limit], route: Route, meters: Mapping[str, Meter]) -> list[Limit]:
    """Those that have something to count here; a balance has where one of the priced limits that it pays for has."""
    found: list[Limit] = []
    owed: set[str] = set()  # units of priced limits that no balance has paid for yet
    for limit in limits:
        if limit.routes and route.id not in limit.routes:
            continue
        if limit.kind in METERLESS:
            applies = limit.kind == "concurrency" or limit.unit in owed
            owed.discard(limit.unit)
        else:
            applies = limit.meter in meters
        if applies:
            found.append(limit)
            if limit.kind == "priced":
                owed.add(limit.unit)
    return found


def _ask(limit: Limit, meters: Mapping[str, Meter]) -> Callable[[Request | Arriving | None], int]:
    if limit.kind in METERLESS:
        units = int(limit.kind == "concurrency")
        return lambda _: units
    meter = meters[limit.meter]
    if meter.known:
        return cast("Callable[[Request | Arriving | None], int]", meter.ask)
    reserve = limit.reserve

    def ask(request: Request | Arriving | None) -> int:
        units = meter.ask(request)
        return reserve if units is None else units

    return ask
