"""Whether an exchange is billed, and the reason that its record states. Declared by policies, decided here."""

from __future__ import annotations

from functools import lru_cache
from typing import Final


def billing(plan: str, *, status: int, test: bool = False, outcome: str = "ok", excluded: str = "") -> tuple[bool, str]:
    """Whether an exchange is billable, and why. `plan` is the plan's id, "" for nobody's; `status` what was answered.

    `excluded` is the exclusion that holds, and then the reason. What failed at the upstream (`upstream_…`) or was
    found open after a crash is not billed, and the outcome is the reason; what a client did not wait for
    (`client_gone`) was consumed all the same.
    """
    if plan and outcome == "ok" and status < 500 and not test and not excluded:
        return _billed(plan)
    reasons = (
        (not plan, "unattributed"),
        (excluded, excluded),
        (test, "test_key"),
        (outcome in _UNBILLED or outcome.startswith("upstream_"), outcome),
        (status >= 500, "upstream_5xx"),
    )
    return next(((False, reason) for holds, reason in reasons if holds), _billed(plan))


_UNBILLED: Final = frozenset({"aborted", "crashed", "bad_upstream_answer"})


@lru_cache(maxsize=4096)
def _billed(plan: str) -> tuple[bool, str]:
    return True, f"plan:{plan}"
