"""The evaluation of all limits of one request: each by its kind, prepared once for all requests with the same checks.

An evaluation says how a limit is now and how it would be if the request were charged. Nothing is charged before all
are evaluated: a request that one limit denies costs nothing at the others.

    limits: burst 10/s, monthly 1,000 (999 used)
      1 unit of each   burst: passes, 9 left if charged   monthly: passes, 0 left if charged
                       allowed, and both are charged
      2 units of each  burst: passes, 8 left if charged   monthly: denies, 1 left
                       denied by monthly, verdict 2; nothing is charged, and the answer has what is left now: 10 and 1
      2 units, monthly in stage shadow
                       allowed, and both are charged; verdict 64 x 2^1 = 128: monthly would have denied

A verdict is one number: 0, or 1 + the place of the first limit that denied, and above that 64 x a bit for each that
only would have denied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sidecar.core.limits import Checks, Derived
from sidecar.core.limits.base import SLOTS, WALLET, Evaluator


class Steps(NamedTuple):
    """The evaluators of one `Checks`, `forced` those of what is charged without asking, and the role of each.

    `charges`: index, key and whether it is a slot, of those that are charged by themselves: of all but wallets.
    """

    evaluators: tuple[Evaluator, ...]
    forced: tuple[Evaluator, ...]
    roles: tuple[int, ...]
    charges: tuple[tuple[int, str, bool], ...]


def _steps_of(checks: Checks) -> Steps:
    entries = checks.entries
    return Steps(
        tuple(check.kind.evaluator(check, forced=False) for check in entries),
        tuple(check.kind.evaluator(check, forced=True) for check in entries),
        tuple(check.role for check in entries),
        tuple(
            (index, check.keys[0], check.kind.stored_as == SLOTS)
            for index, check in enumerate(entries)
            if check.cost and check.kind.stored_as != WALLET
        ),
    )


STEPS = Derived(_steps_of, by_costs=True)


def verdict_of(roles: Sequence[int], denies: Sequence[bool]) -> int:
    """The verdict on a request, of the role and the evaluation of each of its limits."""
    violated = mask = 0
    for index, denied in enumerate(denies):
        if not denied or roles[index] == 1:
            continue
        if roles[index]:
            mask += 1 << index
        else:
            violated = violated or index + 1
    return violated + 64 * mask
