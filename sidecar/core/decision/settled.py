"""Remaining units after settlement. Actual usage, not just the estimate, can cross an alert threshold.

A settle has no reply. Units that others have used since the decision are in their own decisions and settles.
"""

from __future__ import annotations

from sidecar.core.decision.answer import Decision


def settled(decision: Decision, actual: tuple[int, ...]) -> Decision | None:
    """The decision with what is left when `actual[i]` units replace `costs[i]`, of limits with alerts.

    None where none of them has less left than before. For exchanges that were let through.
    """
    entries, before = decision.checks.entries, decision.remaining
    remaining = list(before)
    for index, _ in decision.checks.alerting:
        remaining[index] -= max(0, entries[index].kind.excess(entries, index, actual, before))
    if remaining == list(before):
        return None
    return Decision(decision.checks, decision.now_us, remaining, decision.reset_us, decision.verdict, decision.mode)
