"""The compiled policy: what the hot path reads. Built once per load, never changed, swapped in whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from sidecar.core.policy.model import Meter, Plan, Route
from sidecar.core.policy.patterns import regex, specificity
from sidecar.core.policy.terms import Terms

CACHED_PATHS: Final = 16_384  # per policy; a scan of made-up paths costs a clear, never memory


class Policy:
    """Routes, plans and meters of one load. `version` is a short hash of the content."""

    __slots__ = ("_only", "_paths", "_room", "_terms", "_tries", "plans", "routes", "version")

    def __init__(
        self, version: str, routes: Iterable[Route], plans: Iterable[Plan], meters: Callable[[Route], Sequence[Meter]]
    ) -> None:
        """`meters(route)` yields the meters that can apply on a route."""
        self.version = version
        self.routes = tuple(sorted(routes, key=specificity, reverse=True))
        self.plans = {plan.id: plan for plan in plans}
        measured = {route.id: meters(route) for route in self.routes}
        nobody = Plan("", "")
        self._terms = {
            route.id: {plan.id: Terms(plan, route, measured[route.id]) for plan in (nobody, *self.plans.values())}
            for route in self.routes
        }
        self._tries = tuple((regex(route.pattern), route) for route in self.routes)
        first = self.routes[0] if self.routes else None
        # The least specific of all patterns comes first only where it is alone.
        self._only = first if first and first.pattern == "/**" and not first.methods else None
        self._paths: dict[str, dict[str, Route | None]] = {}
        self._room = CACHED_PATHS

    def match(self, method: str, path: str) -> Route | None:
        """The most specific route for a path in its normal form, or None (404)."""
        if self._only is not None:
            return self._only
        try:
            return self._paths[method][path]
        except KeyError:
            return self._match(method, path)

    def terms(self, plan_id: str, route: Route) -> Terms | None:
        """What holds for a plan on a route. "" is the terms of unattributed requests; None: no such plan, so deny."""
        return self._terms[route.id].get(plan_id)

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
