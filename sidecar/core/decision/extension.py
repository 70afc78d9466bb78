"""Slots and holds expire, so that a killed worker cannot keep them; while their exchange is open they are extended.

A mark lives 180 s, a slot and a hold on a balance live for their limit's `expiry`. All are extended at each third of
the shortest of these, so that one extension may be lost. An extension never takes anything again that a settle has
given back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.core.decision.rule import MARK_LIFE_US, Write
from sidecar.core.limits import Checks

__all__ = ["extend", "is_due"]

TRIES = 3


def is_due(checks: Checks, age_us: int, passed_us: int) -> bool:
    """Whether an exchange of this age has reached another third of the shortest expiry within the last `passed_us`."""
    shortest_us = MARK_LIFE_US
    if checks.must_settle:
        for check in checks.entries:
            if check.kind.hold_set(check) is not None:
                shortest_us = min(shortest_us, check.limit.period_us)
    step_us = max(shortest_us // TRIES, 1)
    return age_us // step_us != (age_us - passed_us) // step_us


def extend(state: Mapping[str, Any], id_: bytes, checks: Checks, now_us: int, age_us: int) -> list[Write]:
    """Put off the expiry of what the open exchange `id_` (26 bytes), made `age_us` ago, holds: what to store.

    A slot that has expired is taken again: the exchange is still there. A hold that was released is not: its settle
    charges the actual units in full.
    """
    bucket = checks.bucket(id_)
    mark = state.get(bucket, {}).get(id_)
    writes: list[Write] = [(bucket, id_, mark, now_us + MARK_LIFE_US)] if mark is not None else []
    is_open = age_us > MARK_LIFE_US  # without a mark, as in a settle: reserved, if its mark has expired
    if mark is not None:
        is_open = mark[0] != "s" and int(mark) % 64 == 0
    extensions = [
        check.kind.extension(state, check, id_, now_us + check.limit.period_us, is_open=is_open)
        for check in checks.entries
    ]
    return writes + [write for write in extensions if write is not None]
