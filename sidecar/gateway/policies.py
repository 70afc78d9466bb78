"""The current policy, and what is prepared once for many requests under it.

The questions that requests ask of the counters, and the upstream of each route; every cache is bounded, and none
outlives the policy that it was made from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from sidecar.core.http.request import Request
from sidecar.core.identity import Identity
from sidecar.core.limits import Checks, checks_for
from sidecar.core.policy import Policy, Route, Tap, Terms
from sidecar.gateway.routing import RoutedRequest
from sidecar.ports import Upstream

CHECKS_CACHED: Final = 50_000
VARIED_CACHED: Final = 512  # where a body or header decides the costs: calls repeat, estimates of tokens hardly
Question = tuple[Identity, Terms, tuple[int, ...]]


class PolicyCaches:
    """`upstream_of(route)` yields the pool of a route."""

    def __init__(self, policy: Policy, upstream_of: Callable[[Route], Upstream]) -> None:
        self._upstream_of = upstream_of
        self.apply(policy)

    def apply(self, policy: Policy) -> None:
        """Swap the policy in whole, or raise and change nothing.

        Exchanges under way keep their terms; counters go by limit id, so none resets.
        """
        self.swap_in(policy, {route.id: self._upstream_of(route) for route in policy.routes})

    def swap_in(self, policy: Policy, upstreams: Mapping[str, Upstream]) -> None:
        """As `apply`, with the upstream of each route by its id. Nothing here can fail."""
        self.policy = policy
        self._checks: dict[Question, Checks] = {}
        self._varied: dict[Question, Checks] = {}
        self._upstreams = upstreams

    def upstream(self, route: Route) -> Upstream:
        """The pool of a route; that of a route of an earlier policy is looked up anew."""
        return self._upstreams.get(route.id) or self._upstream_of(route)

    def checks(self, routed: RoutedRequest, request: Request, now_us: int, tap: Tap | None = None) -> Checks:
        """The limits that this request asks for; the same object for all of a window. `tap`: of its body."""
        terms, identity, checks = routed.terms, routed.identity, routed.checks
        assert terms is not None  # noqa: S101 - asked only for callers with terms
        assert identity is not None  # noqa: S101
        costs = terms.fixed_costs or terms.costs(request, tap)
        if tap is not None:
            return self._varying((identity, terms, costs), now_us)
        if checks is None or now_us >= checks.until_us or checks.costs != costs:
            question = (identity, terms, costs)
            checks = self._varying(question, now_us) if terms.varies else self._fixed(question, now_us)
            routed.checks = checks
        return checks

    def _fixed(self, question: Question, now_us: int) -> Checks:
        checks = self._checks.get(question)
        if checks is None or now_us >= checks.until_us:
            if len(self._checks) >= CHECKS_CACHED:
                self._checks.clear()
            identity, terms, costs = question
            checks = self._checks[question] = checks_for(terms.limits, costs, identity, now_us)
        return checks

    def _varying(self, question: Question, now_us: int) -> Checks:
        """As `_fixed`, where nearly each request asks for other costs: few are cached, and they share the rest."""
        checks = self._varied.get(question)
        if checks is None or now_us >= checks.until_us:
            if len(self._varied) >= VARIED_CACHED:
                self._varied.clear()
            identity, terms, costs = question
            alike = self._fixed((identity, terms, (0,) * len(costs)), now_us)
            checks = self._varied[question] = alike.with_costs(costs)
        return checks
