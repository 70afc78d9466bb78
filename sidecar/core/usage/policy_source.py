"""The source of a compiled policy: the values that its documents define.

They can be sent to another process and compile to the same policy there, so one process reads and validates the
documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sidecar.core.limits import KINDS
from sidecar.core.limits.base import WALLET
from sidecar.core.policy import NO_HASHES, Hashes, Plan, Policy, Route
from sidecar.core.usage.exclusions import Exclusion
from sidecar.core.usage.meters import meters_for
from sidecar.core.usage.rules import MeterRule


class PolicySource(NamedTuple):
    """All parts of a policy, as in `Policy`; `rules` are its meters by id, `customers` plans of single customers."""

    version: str
    routes: tuple[Route, ...]
    plans: tuple[Plan, ...]
    rules: Mapping[str, MeterRule]
    exclusions: tuple[Exclusion, ...]
    customers: Mapping[str, Plan]
    hashes: Hashes = NO_HASHES

    def scales(self) -> dict[str, int]:
        """The digits of each unit in which a balance pays."""
        plans = (*self.plans, *self.customers.values())
        limits = [limit for plan in plans for limit in plan.limits if KINDS[limit.kind].stored_as == WALLET]
        return {limit.unit: limit.digits for limit in limits}

    def policy(self) -> Policy:
        """Compile the policy that the data path reads."""
        policy = Policy(
            self.version,
            self.routes,
            self.plans,
            lambda route: meters_for(self.rules.values(), route.id, route.usage),
            exclusions=self.exclusions,
            customers=self.customers,
        )
        policy.hashes = self.hashes
        policy.has_balances = bool(self.scales())
        return policy
