"""The records of policies: what a node applied, with the hashes of its documents and terms, and what it refused.

With the hashes a consumer can prove that a plan label meant the same on all nodes, and for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sidecar.core.policy import Policy
from sidecar.core.record.statements import PolicyState

LABELS: Final = 5_000  # in one record: with labels of 64 characters 700 kB
FAULTS: Final = 50
_FAULT_CHARS: Final = 2_000


def applied(policy: Policy) -> Iterator[PolicyState]:
    """The statements that `policy` is applied: one, or several where it has more than LABELS plans."""
    files, plans = dict(policy.hashes.files), list(policy.hashes.plans.items())
    for start in range(0, max(len(plans), 1), LABELS):
        yield PolicyState(policy.version, "applied", files, dict(plans[start : start + LABELS]))


def refused(policy: Policy, faults: list[str]) -> PolicyState:
    """The statement that an edit was refused for its `faults`, so that `policy` stays."""
    shown = [fault[:_FAULT_CHARS] for fault in faults[:FAULTS]]
    more = [f"and {len(faults) - FAULTS} more"] if len(faults) > FAULTS else []
    return PolicyState(policy.version, "refused", {}, {}, [*shown, *more])
