"""Reads how much of every limit is left, for people: the decision on a request of no units, which is not stored.

So a limit is shown by the rule that enforces it: in the windows that are open now, after what has expired. Units of
open exchanges and of leases are in the counters, so they are used; the amount that a balance holds is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sidecar.core.decision import wallet_charges
from sidecar.core.decision.rule import reserve
from sidecar.core.limits import Checks
from sidecar.core.limits.base import WALLET
from sidecar.core.price.wallet import is_live

ID: Final = b"0" * 26  # of no exchange


class WalletFigures(NamedTuple):
    """Amounts in the scale of the unit: what open exchanges hold, and what is left of the live grants that expire next.

    `expires_us`: when they do; 0: none of them expires.
    """

    held: int = 0
    expiring: int = 0
    expires_us: int = 0


class Peeked(NamedTuple):
    """The figures of every limit of `checks` at `now_us`, as in a `Decision`; `wallets` by the index of its limit."""

    checks: Checks
    now_us: int
    remaining: tuple[int, ...]
    reset_us: tuple[int, ...]
    wallets: Mapping[int, WalletFigures]


def peek(state: Mapping[str, Any], checks: Checks, now_us: int) -> Peeked | None:
    """The figures of `checks`, whose costs are 0; None where a window of them is not that of `now_us`."""
    decision, _ = reserve(state, ID, checks, now_us)
    if decision is None:
        return None
    wallets = {
        index: _figures(state, check.keys, now_us)
        for index, check in enumerate(checks.entries)
        if check.kind.stored_as == WALLET
    }
    return Peeked(checks, now_us, tuple(decision.remaining), tuple(decision.reset_us), wallets)


def _figures(state: Mapping[str, Any], keys: tuple[str, ...], now_us: int) -> WalletFigures:
    loaded = wallet_charges.load(state, keys, now_us, releasing=True)
    held = sum(hold.charge for id_, hold in state.get(keys[3], {}).items() if id_ not in loaded.released)
    live = [each for each in loaded.wallet.grants if each.remaining and each.expires_us and is_live(each, now_us)]
    if not live:
        return WalletFigures(held)
    next_us = min(grant.expires_us for grant in live)
    return WalletFigures(held, sum(grant.remaining for grant in live if grant.expires_us == next_us), next_us)
