"""Checks as plain JSON and back, for a process that has to tell a store what another process let through."""

from __future__ import annotations

from typing import Any, Final

from sidecar.core.decision.saved import pack_price, unpack_price
from sidecar.core.identity import Identity
from sidecar.core.limits import KINDS, Check, Checks, Limit, checks_of
from sidecar.core.window import Window

_NOBODY: Final = Identity("", "", "", "")
_FIELDS: Final = ("id", "kind", "amount", "per", "period_us", "fixed", "over", "stage", "unit", "offline")


def pack(checks: Checks) -> list[Any]:
    """All that a store needs of `checks`: the charges, the windows and the names."""
    limits = [
        [[getattr(limit, name) for name in _FIELDS], limit.price and pack_price(limit.price)] for limit in checks.limits
    ]
    windows = [check.window for check in checks.entries]
    return [limits, checks.costs, checks.marks, checks.keys, [window.id for window in windows],
            [window.start_us for window in windows], [window.end_us for window in windows],
            checks.must_settle]  # fmt: skip


def unpack(packed: list[Any]) -> Checks:
    """The same question, of nobody in particular. ValueError, TypeError, KeyError: it is not one of ours."""
    packed_limits, costs, marks, keys, ids, starts_us, ends_us, _ = packed
    windows = [Window(*each) for each in zip(ids, starts_us, ends_us, strict=True)]
    entries = []
    for (fields, price), cost, names, window in zip(packed_limits, costs, keys, windows, strict=True):
        limit = Limit(**dict(zip(_FIELDS, fields, strict=True)), price=price and unpack_price(price))
        entries.append(Check(limit, KINDS[limit.kind], cost, tuple(names), window))
    return checks_of(entries, _NOBODY, marks)
