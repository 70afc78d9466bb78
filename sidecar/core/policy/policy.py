"""The compiled policy: what the hot path reads. Built once per load, never changed, swapped in whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from sidecar.core.policy.meter import Excluded, Exclusion, Meter
from sidecar.core.policy.model import Plan, Route
from sidecar.core.policy.patterns import regex, specificity
from sidecar.core.policy.terms import Terms, holds, reads

CACHED_PATHS: Final = 16_384  # per policy; a scan of made-up paths costs a clear, never memory
NO_CUSTOMERS: Final[Mapping[str, Plan]] = MappingProxyType({})


class Policy:
    """Routes, plans and meters of one load. `version` is a short hash of the content."""

    __slots__ = (
        "_only", "_own", "_parts", "_paths", "_room", "_terms", "_tries",
        "customers", "exclusions", "plans", "routes", "version",
    )  # fmt: skip

    def __init__(
        self,
        version: str,
        routes: Iterable[Route],
        plans: Iterable[Plan],
        meters: Callable[[Route], Sequence[Meter]],
        *,
        exclusions: Sequence[Exclusion] = (),
        customers: Mapping[str, Plan] = NO_CUSTOMERS,
    ) -> None:
        """`meters(route)` yields the meters that can apply on a route.

        `customers` have terms of their own on top of the plan whose id theirs bears: all of its limits and features,
        those that were changed included.
        """
        self.version = version
        self.exclusions = tuple(exclusions)
        self.plans = {plan.id: plan for plan in plans}
        self._terms: dict[str, dict[str, Terms]] = {}
        self.customers = customers
        self._own: dict[tuple[str, str], Terms] = {}  # of a customer on a route
        self._parts: dict[str, tuple[Sequence[Meter], Sequence[Excluded]]] = {}
        found = [self._compiled(route, meters(route)) for route in routes]
        self.routes = tuple(sorted(found, key=specificity, reverse=True))
        self._tries = tuple((regex(route.pattern), route) for route in self.routes)
        first = self.routes[0] if self.routes else None
        # The least specific of all patterns comes first only where it is alone.
        self._only = first if first and first.pattern == "/**" and not first.methods else None
        self._paths: dict[str, dict[str, Route | None]] = {}
        self._room = CACHED_PATHS

    def _compiled(self, route: Route, meters: Sequence[Meter]) -> Route:
        """The route with what is read on it; keeps its terms."""
        tried = [exclusion.on(route.id) for exclusion in self.exclusions]
        exclusions = [excluded for excluded in tried if excluded is not None]
        read, held = reads(route, meters, exclusions), holds(route, meters, exclusions)
        if (read, held) != (route.reads, route.holds):
            route = replace(route, reads=read, holds=held)
        plans = (Plan("", ""), *self.plans.values())
        self._terms[route.id] = {plan.id: Terms(plan, route, meters, exclusions) for plan in plans}
        self._parts[route.id] = meters, exclusions
        return route

    def match(self, method: str, path: str) -> Route | None:
        """The most specific route for a path in its normal form, or None (404)."""
        if self._only is not None:
            return self._only
        try:
            return self._paths[method][path]
        except KeyError:
            return self._match(method, path)

    def terms(self, plan_id: str, route: Route, customer: str = "") -> Terms | None:
        """What holds for a plan on a route. "" is the terms of unattributed requests; None: no such plan, so deny.

        A customer with terms of its own on top of that plan gets those.
        """
        if customer in self.customers and self.customers[customer].id == plan_id:
            return self._own.get((customer, route.id)) or self._owned(customer, route)
        return self._terms[route.id].get(plan_id)

    def _owned(self, customer: str, route: Route) -> Terms:
        """Made when first asked for: those of a thousand customers on all routes would hold up a reload."""
        made = self._own[customer, route.id] = Terms(self.customers[customer], route, *self._parts[route.id])
        return made

    def offering(self, feature: str) -> tuple[str, ...]:
        """The plans that have a feature, in the order of the policy."""
        return tuple(plan.id for plan in self.plans.values() if feature in plan.features)

    def _match(self, method: str, path: str) -> Route | None:
        found = next(
            (route for form, route in self._tries if (not route.methods or method in route.methods) and form(path)),
            None,
        )
        if self._room == 0:
            self._paths.clear()
            self._room = CACHED_PATHS
        self._room -= 1
        self._paths.setdefault(method, {})[path] = found
        return found
