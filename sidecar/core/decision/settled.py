"""What is left once an exchange is settled, as far as it changed that itself: a threshold may be passed by the truth.

A settle has no reply. What others have used since the decision, their own decisions and settles tell.
"""

from __future__ import annotations

from sidecar.core.counter import COUNT_MAX
from sidecar.core.decision.answer import Decision
from sidecar.core.price import charged


def settled(decision: Decision, truth: tuple[int, ...]) -> Decision | None:
    """The decision with what is left when `truth[i]` units take the place of `costs[i]`, of limits with alerts.

    None where none of them has less left than was said. For exchanges that were let through.
    """
    remaining = list(decision.remaining)
    for index, _ in decision.checks.alerting:
        remaining[index] -= max(0, _more(decision, truth, index))
    if remaining == list(decision.remaining):
        return None
    return Decision(
        decision.checks, decision.now_us, remaining, decision.reset_us, shadowed=decision.shadowed, mode=decision.mode
    )


def _more(decision: Decision, truth: tuple[int, ...], index: int) -> int:
    """Units of the limit at `index` beyond what was held; of a balance nano-units, for all that it pays for."""
    checks = decision.checks
    if checks.limits[index].kind != "balance":
        return min(truth[index], COUNT_MAX) - checks.costs[index]
    more = 0
    for paid, payer in enumerate(checks.payers):
        price = checks.limits[paid].price
        if payer == index and price is not None:
            held = -decision.remaining[paid]
            after = max(0, min(held + truth[paid] - checks.costs[paid], COUNT_MAX))
            more += charged(price, after) - charged(price, held)
    return more
