"""Balances: a customer's wallet, which pays for the priced limits before it in the list.

A wallet has no amount of its own: what is left is what grants have put in. core/decision/wallet_charges.py works out
what it is charged, core/price/wallet.py in which order its grants are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from sidecar.core.identity import Identity
from sidecar.core.limits.base import (
    NO_WINDOW,
    WALLET,
    Check,
    Denial,
    Evaluation,
    Evaluator,
    HeaderItem,
    Kind,
    State,
    Words,
    Write,
    Written,
)
from sidecar.core.limits.bounds import COUNT_MAX, DAY_US, NEVER_US, SECOND_US
from sidecar.core.limits.concurrency import SLOT_EXPIRY_US
from sidecar.core.limits.keys import wallet_keys, wallet_name
from sidecar.core.limits.leasing import Leasing
from sidecar.core.limits.limit import Limit
from sidecar.core.limits.pace import OutageTime
from sidecar.core.price import AMOUNT_MAX, charged
from sidecar.core.price.decimals import DIGITS
from sidecar.core.window import Window

_EXHAUSTED: Final = Denial(
    402, "balance-exhausted", "Balance exhausted", "the balance {id} is used up: top it up to go on"
)
_UNKNOWN: Final = Denial(
    503,
    "balance-unknown",
    "Balance cannot be looked at now",
    "the balance {id} cannot be asked for now: nothing was charged, try again",
)


class BalanceKind(Kind):
    """`balance: usd`."""

    name = "balance"
    code = "b"
    stored_as = WALLET
    written_as = "unit"
    example = "usd"
    options = frozenset({"expiry_us", "alert", "offline"})
    default_scope = "customer"
    is_metered = False
    fixed_cost = 0
    cost_max = COUNT_MAX
    is_protective = False
    is_priced = False
    leasing: Leasing | None = None

    def bounds_fault(self, limit: Limit) -> str | None:
        if limit.amount:
            return "a balance limit has no amount"
        if not limit.unit:
            return "a balance needs a unit"
        if not 0 <= limit.digits <= DIGITS:
            return f"a unit has 0 to {DIGITS} digits, not {limit.digits}"
        if not 0 <= limit.offline <= AMOUNT_MAX:
            return f"offline {limit.offline} must be from 0 to {AMOUNT_MAX}"
        if not SECOND_US <= limit.period_us <= DAY_US:
            return f"a hold on a balance ends after {limit.period_us} µs: from a second to a day"
        return None

    def figures(self, written: Written) -> dict[str, Any]:
        return {
            "amount": 0,
            "period_us": written.expiry_us or SLOT_EXPIRY_US,
            "unit": written.unit,
            "digits": written.digits,
            "offline": written.offline,
            "on_store_failure": "allow" if written.offline or written.over == "allow" else "deny",
        }

    def same_counter(self, limit: Limit) -> dict[str, object]:
        return {}

    def describe(self, limit: Limit) -> str:
        return ""

    def window(self, limit: Limit, identity: Identity, now_us: int) -> Window:
        return NO_WINDOW

    def keys(self, limit: Limit, identity: Identity, window: Window) -> tuple[str, ...]:
        return wallet_keys(identity.customer, wallet_name(limit.unit, limit.digits), identity.account)[:4]

    def expiry_us(self, limit: Limit, window: Window) -> int:
        return NEVER_US

    def evaluator(self, check: Check, *, forced: bool) -> Evaluator:
        """It depends on the charges of the limits before it, so core/decision/wallet_charges.py evaluates it."""

        def evaluate(state: State, now_us: int) -> Evaluation:
            del state, now_us
            return False, 0, 0, 0, 0, None, 0

        return evaluate

    def correction(self, state: State, check: Check, id_: bytes, actual: int, age_us: int, now_us: int) -> Write | None:
        """As for its evaluation."""
        return None

    def must_settle(self, cost: int) -> bool:
        return True

    def hold_set(self, check: Check) -> tuple[str, str] | None:
        return "holds", check.keys[2]

    def extension(self, state: State, check: Check, id_: bytes, until_us: int, *, is_open: bool) -> Write | None:
        """A hold that was released is not taken again: its settle charges the actual amount in full."""
        hold = state.get(check.keys[3], {}).get(id_)
        return None if hold is None else (check.keys[3], id_, hold._replace(expires_us=until_us), NEVER_US)

    def excess(self, checks: Sequence[Check], index: int, actual: Sequence[int], remaining: Sequence[int]) -> int:
        """The amount, of all that it pays for."""
        more = 0
        for paid, check in enumerate(checks):
            price = check.limit.price
            if check.payer == index and price is not None:
                before = -remaining[paid]
                after = max(0, min(before + actual[paid] - check.cost, COUNT_MAX))
                more += charged(price, after) - charged(price, before)
        return more

    def repeats_denial(self, limits: Sequence[Limit]) -> bool:
        """Not where more may cost less: at a volume price."""
        return not any(limit.price is not None and limit.price.kind == "volume" for limit in limits)

    def first_alert(self, limit: Limit) -> int:
        """Its alerts are percents of what was granted, which its wallet knows."""
        return COUNT_MAX

    def share(self, limit: Limit, workers: int) -> Limit:
        """Its part of the offline allowance, by which an empty wallet may go below zero."""
        return replace(limit, amount=limit.offline // workers)

    def refuses_alone(self, limit: Limit, workers: int) -> bool:
        return limit.offline < workers

    def over_admission(self, limit: Limit, workers: int) -> int:
        """For each customer and outage."""
        return limit.offline // workers * workers

    def share_unknown(self, check: Check, unknown_us: int, now_us: int, *, is_lent_unknown: bool) -> bool:
        return is_lent_unknown

    def local_expiry_us(self, check: Check, value: Any) -> int:
        return NEVER_US

    def outage_time(self, limit: Limit, workers: int) -> OutageTime | None:
        return None

    def loss_ends_us(self, limit: Limit, window: Window, lost_us: int) -> int:
        return lost_us + limit.period_us

    def loss_ends_latest_us(self, limit: Limit, lost_us: int) -> int:
        return lost_us + limit.period_us

    def header_item(self, limit: Limit, window: Window) -> HeaderItem | None:
        """Money is spoken of in its own answers alone."""
        return None

    def denial(self, mode: str) -> Denial:
        """While the wallet cannot be read it may have funds, so its owner is not asked to buy more."""
        return _UNKNOWN if mode == "degraded" else _EXHAUSTED

    def record_item(self, check: Check) -> tuple[tuple[str, str | int | None], ...]:
        digits = check.limit.digits
        scale = () if digits == DIGITS else (("digits", digits),)
        return ("id", check.limit.id), ("unit", check.limit.unit), *scale, ("balance", None)

    def record_figure(self, limit: Limit, remaining: int) -> int:
        return remaining

    def reserve_words(self, check: Check, wallet: int) -> tuple[str, Words]:
        return "balance", (check.limit.period_us, wallet)

    def settle_words(self, check: Check, actual: int, age_us: int, wallet: int) -> tuple[str, Words]:
        return "balance", ()
