"""Exclusions from the bill. An exclusion matches only where that is certain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sidecar.core.identity import Identity
from sidecar.core.policy import Excluded, Facts, Tap
from sidecar.core.usage.conditions import (
    body_tests,
    chosen,
    field_of_facts,
    head_tests,
    headers_of,
    judge,
    sides,
    status_tests,
)
from sidecar.core.usage.rules import ALWAYS, When

IDEMPOTENCY_KEY: Final = b"idempotency-key"


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Exchanges that match `when`, `customers` and `test_keys` are recorded and not billed, for the reason `id`.

    With `retries_us`, those that repeat an `Idempotency-Key` of the same customer within that time of a billed one.
    A batch of JSON-RPC calls is excluded where all of its calls match.
    """

    id: str
    when: When = ALWAYS
    customers: frozenset[str] = frozenset()
    test_keys: bool = False
    retries_us: int = 0

    def on(self, route_id: str) -> Excluded | None:
        """The exclusion on one route; None where it can never apply there."""
        when = self.when
        if when.routes is not None and route_id not in when.routes:
            return None
        headers = headers_of(when) | ({IDEMPOTENCY_KEY} if self.retries_us else set())
        return Excluded(self.id, self.retries_us, frozenset(sides(when)), self._matcher(), frozenset(headers))

    def _matcher(self) -> Callable[[Facts, Identity | None], bool]:
        when, customers, test_keys = self.when, self.customers, self.test_keys
        tests = status_tests(when) + head_tests(when, field_of_facts)
        inside = body_tests(when, arriving=False)
        if when.json_rpc:
            inside.append(_all_calls(chosen(when.json_rpc)))

        def matches(facts: Facts, identity: Identity | None) -> bool:
            if customers and (identity is None or identity.customer not in customers):
                return False
            if test_keys and (identity is None or not identity.test):
                return False
            return all(test(facts) for test in tests) and (not inside or judge(inside, facts.tap) is True)

        return matches


def _all_calls(matches: Callable[[str], bool]) -> Callable[[Tap], bool | None]:
    return lambda tap: bool(tap.calls) and all(method and matches(method) for method in tap.calls or ())
