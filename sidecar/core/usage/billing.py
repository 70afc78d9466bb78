"""Decide whether an exchange is billed, and the reason in its record, from its outcome and the policy's exclusions."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from sidecar.core.errors import UpstreamReason


def billing(plan: str, *, status: int, test: bool = False, outcome: str = "ok", excluded: str = "") -> tuple[bool, str]:
    """Whether an exchange is billable, and the reason. `plan` is its id, "": unattributed; `status` the answer's.

    `excluded` is the id of the exclusion that applies, and then the reason. An exchange that failed at the upstream
    (`UpstreamReason`) or in the gateway, or was open at a crash, is not billed, and the outcome is the reason; an
    answer that its client did not wait for (`client_gone`) was consumed all the same.
    """
    if plan and outcome == "ok" and status < 500 and not test and not excluded:
        return _billed(plan)
    reasons = (
        (not plan, "unattributed"),
        (excluded, excluded),
        (test, "test_key"),
        (outcome in _UNBILLED, outcome),
        (status >= 500, "upstream_5xx"),
    )
    return next(((False, reason) for applies, reason in reasons if applies), _billed(plan))


_UNBILLED: Final = frozenset({"aborted", "crashed", "internal_error"}) | {reason.outcome for reason in UpstreamReason}


@lru_cache(maxsize=4096)
def _billed(plan: str) -> tuple[bool, str]:
    return True, f"plan:{plan}"
