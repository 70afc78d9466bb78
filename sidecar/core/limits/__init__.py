"""Limits: what each kind of them means, and what a request asks of their counters.

`base` has the questions that every kind answers, one module a kind has the answers, `registry` has the kinds by name.
`checks` makes of limits, identity and costs the question to the counters. A counter is a limit x scope x window: the
stored number; `keys` names it.
"""

from sidecar.core.limits.base import Check
from sidecar.core.limits.bounds import COUNT_MAX, LIMITS_MAX, MINUTE_US, NEVER_US, left_at
from sidecar.core.limits.checks import Checks, Derived, bounds_fault, check_for, checks_for, checks_of
from sidecar.core.limits.keys import (
    account_stem,
    current_key,
    escaped,
    id_us,
    marks_stem_beside,
    scale_of,
    wallet_keys,
    wallet_name,
    wallet_of,
)
from sidecar.core.limits.limit import Limit
from sidecar.core.limits.registry import KINDS

__all__ = [
    "COUNT_MAX", "KINDS", "LIMITS_MAX", "MINUTE_US", "NEVER_US", "Check", "Checks", "Derived", "Limit",
    "account_stem", "bounds_fault", "check_for", "checks_for", "checks_of", "current_key", "escaped", "id_us",
    "left_at", "marks_stem_beside", "scale_of", "wallet_keys", "wallet_name",
    "wallet_of",
]  # fmt: skip
