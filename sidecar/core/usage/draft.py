"""What a policy says, as values: what its documents come to, and what the compiled policy is worked out from.

Values can be handed from one process to another, and what is worked out from them is the same there; so documents are
read and judged once, and by one process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sidecar.core.policy import Plan, Policy, Route
from sidecar.core.usage.exclusions import Exclusion
from sidecar.core.usage.meters import meter_for
from sidecar.core.usage.rules import MeterRule


class Draft(NamedTuple):
    """All of a policy, by the names of `Policy`; `rules` are its meters by id, `customers` have terms of their own."""

    version: str
    routes: tuple[Route, ...]
    plans: tuple[Plan, ...]
    rules: Mapping[str, MeterRule]
    exclusions: tuple[Exclusion, ...]
    customers: Mapping[str, Plan]

    def policy(self) -> Policy:
        """Work it out: what the hot path reads."""
        return Policy(
            self.version,
            self.routes,
            self.plans,
            lambda route: [
                meter for rule in self.rules.values() if (meter := meter_for(rule, route.id, route.usage)) is not None
            ],
            exclusions=self.exclusions,
            customers=self.customers,
        )
