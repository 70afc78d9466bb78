"""What holds for one plan on one route, worked out once per load so that a request only looks it up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sidecar.core.http import Request
from sidecar.core.policy.model import Facts, Limit, Meter, Plan, Route


class Terms:
    """The limits and meters that apply to the requests of one plan on one route. Compared by object.

    `fixed_costs[i]` units are asked of `limits[i]` by every request, or it is None and `costs(request)` says. `plan`
    is the plan's label, "" without one; `entitled` is False where the route asks for a feature that the plan lacks.
    """

    __slots__ = (
        "_asks",
        "_by_method",
        "_each",
        "_counted",
        "_measured",
        "_per_method",
        "_truths",
        "_zeros",
        "entitled",
        "fixed_costs",
        "limits",
        "meters",
        "plan",
        "route",
    )

    def __init__(self, plan: Plan, route: Route, meters: Sequence[Meter]) -> None:
        by_id = {meter.id: meter for meter in meters}
        self.plan = plan.label
        self.route = route
        self.entitled = not route.feature or route.feature in plan.features
        self.meters = tuple(meters)
        self.limits = tuple(limit for limit in plan.limits if _applies(limit, route, by_id))
        self._counted = tuple("" if limit.kind == "concurrency" else limit.meter for limit in self.limits)
        self._zeros = (0,) * len(self.limits)  # what a slot counts: "" is no meter
        self._asks = tuple(_ask(limit, by_id) for limit in self.limits)
        asks = frozenset().union(*(by_id[meter].asks for meter in self._counted if meter))
        needs = frozenset().union(*(meter.needs for meter in meters))
        self.fixed_costs: tuple[int, ...] | None = None if asks else tuple(ask(None) for ask in self._asks)
        self._by_method: dict[str, tuple[int, ...]] | None = {} if asks == {"method"} else None
        self._measured: dict[int | tuple[int, str], dict[str, int]] = {}
        self._each = tuple((meter.id, meter.measure) for meter in meters if "exchange" in meter.needs)
        self._per_method = "method" in needs
        self._truths: dict[int, tuple[int, ...]] = {}

    def costs(self, request: Request) -> tuple[int, ...]:
        """The units that `request` asks of each of `limits`. Tuples of method-dependent costs are shared."""
        if self.fixed_costs is not None:
            return self.fixed_costs
        if self._by_method is None:
            return tuple([ask(request) for ask in self._asks])
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

    def truth(self, usage: dict[str, int]) -> tuple[int, ...]:
        """What `measure` found, by limit: settle where it is unlike the costs. A slot is given back, so it is 0."""
        found = self._truths.get(id(usage))
        return self._truth(usage) if found is None else found

    def _truth(self, usage: dict[str, int]) -> tuple[int, ...]:
        return tuple(map(usage.get, self._counted, self._zeros))


def _applies(limit: Limit, route: Route, meters: Mapping[str, Meter]) -> bool:
    if limit.routes and route.id not in limit.routes:
        return False
    return limit.kind == "concurrency" or limit.meter in meters


def _ask(limit: Limit, meters: Mapping[str, Meter]) -> Callable[[Request | None], int]:
    if limit.kind == "concurrency":
        return lambda _: 1
    meter = meters[limit.meter]
    if meter.known:
        return meter.ask
    reserve = limit.reserve
    return lambda request: reserve * meter.ask(request)
