"""Priced limits: counts of what a wallet pays for. They deny nothing; the wallet of the same unit does.

Nobody writes them: each price of a plan with a balance in its unit becomes one. core/decision/wallet_charges.py works
out what the count adds to the charge, and corrects the count with the wallet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sidecar.core.limits.base import Check, Evaluation, Evaluator, HeaderItem, State, Words, Write, Written
from sidecar.core.limits.counted import evaluate_count
from sidecar.core.limits.leasing import Leasing
from sidecar.core.limits.limit import Limit
from sidecar.core.limits.quota import CalendarCounted
from sidecar.core.price import Price, highest_unit_price, price_fault
from sidecar.core.window import Window

_PRICES = {"per_unit": "g", "graduated": "g", "volume": "v", "package": "k"}


class PricedKind(CalendarCounted):
    """Made of a plan's `prices`."""

    name = "priced"
    written_as = ""
    example = ""
    options = frozenset[str]()
    default_scope = "customer"
    is_protective = False
    is_priced = True
    leasing: Leasing | None = None

    def bounds_fault(self, limit: Limit) -> str | None:
        if limit.amount:
            return "a priced limit has no amount"
        return price_fault(limit.price, limit.digits) if limit.price is not None else "a priced limit needs a price"

    def figures(self, written: Written) -> dict[str, Any]:
        return {}

    def describe(self, limit: Limit) -> str:
        return ""

    def evaluator(self, check: Check, *, forced: bool) -> Evaluator:
        count = evaluate_count(check)

        def evaluate(state: State, now_us: int) -> Evaluation:
            _, remaining, reset_us, left, left_us, after, expire_us = count(state, now_us)
            return False, remaining, reset_us, left, left_us, after, expire_us

        return evaluate

    def correction(self, state: State, check: Check, id_: bytes, actual: int, age_us: int, now_us: int) -> Write | None:
        """Where a wallet pays, the count is corrected with it."""
        return None if check.payer >= 0 else super().correction(state, check, id_, actual, age_us, now_us)

    def repeats_denial(self, limits: Sequence[Limit]) -> bool:
        return False

    def share(self, limit: Limit, workers: int) -> Limit:
        """It costs the most that it can, since how far the customer is in its tiers is not known."""
        return limit if limit.price is None else replace(limit, price=highest_unit_price(limit.price))

    def over_admission(self, limit: Limit, workers: int) -> int:
        return 0

    def share_unknown(self, check: Check, unknown_us: int, now_us: int, *, is_lent_unknown: bool) -> bool:
        return False

    def header_item(self, limit: Limit, window: Window) -> HeaderItem | None:
        return None

    def record_item(self, check: Check) -> tuple[tuple[str, str | int | None], ...]:
        return ()

    def reserve_words(self, check: Check, wallet: int) -> tuple[str, Words]:
        arm, words = super().reserve_words(check, wallet)
        return ("priced", (*words, price_word(check.limit.price), wallet)) if wallet else (arm, words)

    def settle_words(self, check: Check, actual: int, age_us: int, wallet: int) -> tuple[str, Words]:
        arm, words = super().settle_words(check, actual, age_us, wallet)
        if not wallet:
            return arm, words
        return "priced", (*words, check.cost, price_word(check.limit.price), wallet, check.limit.meter)


def price_word(price: Price | None) -> str:
    """A price as the scripts read it: kind, included, per, then up_to (0: open) and price of each tier."""
    if price is None:
        return "g,0,1,0,0"
    tiers = [(tier.up_to or 0, tier.amount) for tier in price.tiers] or [(0, price.amount)]
    figures = [price.included, price.per, *[figure for tier in tiers for figure in tier]]
    return ",".join([_PRICES[price.kind], *map(str, figures)])
