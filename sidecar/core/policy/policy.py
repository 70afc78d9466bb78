"""The compiled policy that the data path reads. Built once per load, never changed, replaced as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from sidecar.core.policy.meter import Excluded, Exclusion, Meter
from sidecar.core.policy.model import NO_HASHES, Plan, Route
from sidecar.core.policy.patterns import HeadTest, head_test, regex, specificity
from sidecar.core.policy.terms import Terms, buffered_sides, inspected_sides

CACHED_PATHS: Final = 16_384  # per policy; a scan of random paths clears the cache and never grows it
NO_CUSTOMERS: Final[Mapping[str, Plan]] = MappingProxyType({})
NO_FIELDS: Final[Mapping[bytes, bytes]] = MappingProxyType({})


class Policy:
    """Routes, plans and meters of one load. `version` is a short hash of the content.

    Names of request header fields, in lower case: meters, exclusions and routes read `headers`, `carriers` may hold a
    credential. `late` are both; as trailers they come too late to be read, so they must not reach the upstream.
    """

    __slots__ = (
        "_choices", "_only", "_own", "_parts", "_paths", "_room", "_terms", "_tries",
        "carriers", "customers", "exclusions", "has_balances", "hashes", "headers", "late", "plans", "routes",
        "usage_route", "version",
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

        `customers` are plans of single customers, each with the id of the plan that it extends: all of its limits and
        features, changed ones included.
        """
        self.version = version
        self.hashes = NO_HASHES  # of its documents; this and the next are set by the source of the policy
        self.has_balances = False
        self.exclusions = tuple(exclusions)
        self.plans = {plan.id: plan for plan in plans}
        self._terms: dict[str, dict[str, Terms]] = {}
        self.customers = customers
        self._own: dict[tuple[str, str], Terms] = {}  # of a customer on a route
        self._parts: dict[str, tuple[Sequence[Meter], Sequence[Excluded]]] = {}
        compiled = [self._compiled(route, meters(route)) for route in routes]
        self.routes = tuple(sorted(compiled, key=specificity, reverse=True))
        parts = [part for meters_and_more in self._parts.values() for both in meters_and_more for part in both]
        matched = frozenset(name for route in self.routes for name, _ in route.headers)
        self.headers = matched.union(*(part.headers for part in parts))
        self.carriers = frozenset(source.field for route in self.routes for source in route.sources if source.field)
        self.late = self.headers | self.carriers
        sources = dict.fromkeys(source for route in self.routes for source in route.sources)
        self.usage_route = Route("", sources=tuple(sources))  # of the usage path, where any key is read
        self._tries = tuple((regex(route.pattern), head_test(route), route) for route in self.routes)
        first = self.routes[0] if self.routes else None
        # The least specific of all patterns is first only where it is the only one.
        plain = first is not None and not (first.methods or first.host or first.headers)
        self._only = first if first and plain and first.pattern == "/**" else None
        self._paths: dict[str, dict[str, Route | None]] = {}  # only where the path and the method decide alone
        self._choices: dict[tuple[str, str], list[tuple[HeadTest | None, Route]]] = {}
        self._room = CACHED_PATHS

    def _compiled(self, route: Route, meters: Sequence[Meter]) -> Route:
        """The route with the bodies that are inspected on it; stores its terms."""
        tried = [exclusion.on(route.id) for exclusion in self.exclusions]
        exclusions = [excluded for excluded in tried if excluded is not None]
        read, held = inspected_sides(route, meters, exclusions), buffered_sides(route, meters, exclusions)
        if (read, held) != (route.reads, route.holds):
            route = replace(route, reads=read, holds=held)
        plans = (Plan("", ""), *self.plans.values())
        self._terms[route.id] = {plan.id: Terms(plan, route, meters, exclusions) for plan in plans}
        self._parts[route.id] = meters, exclusions
        return route

    def match(
        self, method: str, path: str, host: bytes = b"", fields: Mapping[bytes, bytes] = NO_FIELDS
    ) -> Route | None:
        """The most specific route for a path in its normal form, or None (404).

        `host` is the Host field, `fields` are all fields by lower-case name.
        """
        if self._only is not None:
            return self._only
        try:
            return self._paths[method][path]
        except KeyError:
            choices = self._choices.get((method, path)) or self._match(method, path)
        return next((route for fits, route in choices if fits is None or fits(host, fields)), None)

    def terms(self, plan_id: str, route: Route, customer: str = "") -> Terms | None:
        """The terms of a plan on a route. Plan "" is that of unattributed requests; None: no such plan, so deny.

        A customer with its own terms on top of that plan gets those.
        """
        if customer in self.customers and self.customers[customer].id == plan_id:
            return self._own.get((customer, route.id)) or self._owned(customer, route)
        return self._terms[route.id].get(plan_id)

    def plan_of(self, plan_id: str, customer: str) -> Plan | None:
        """The plan of a customer, with its own terms; None: no such plan."""
        own = self.customers.get(customer)
        return own if own is not None and own.id == plan_id else self.plans.get(plan_id)

    def _owned(self, customer: str, route: Route) -> Terms:
        """Built on first use: building those of a thousand customers on all routes would delay a reload."""
        terms = self._own[customer, route.id] = Terms(self.customers[customer], route, *self._parts[route.id])
        return terms

    def offering(self, feature: str) -> tuple[str, ...]:
        """The plans that have a feature, in the order of the policy."""
        return tuple(plan.id for plan in self.plans.values() if feature in plan.features)

    def _match(self, method: str, path: str) -> list[tuple[HeadTest | None, Route]]:
        """The routes for a path, most specific first, up to the first without a test of the head; cached."""
        choices: list[tuple[HeadTest | None, Route]] = []
        for fits, test, route in self._tries:
            if (not route.methods or method in route.methods) and fits(path):
                choices.append((test, route))
                if test is None:
                    break
        if self._room == 0:
            self._paths.clear()
            self._choices.clear()
            self._room = CACHED_PATHS
        self._room -= 1
        if choices and choices[0][0] is not None:
            self._choices[method, path] = choices
        else:
            self._paths.setdefault(method, {})[path] = choices[0][1] if choices else None
        return choices
