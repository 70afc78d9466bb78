"""How people write and read wallets: amounts, moments, and a wallet as it is shown.

Everywhere else an amount is an integer in the scale of its unit (`digits`), and neither way loses a digit.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sidecar.core.limits import NEVER_US
from sidecar.core.price.decimals import AMOUNT_MAX, amount_of, decimal_of
from sidecar.core.price.wallet import available, balance, expire_grants, in_burn_order, is_live

if TYPE_CHECKING:
    from sidecar.core.price.book import WalletSnapshot

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")


def parse_amount(text: str, digits: int) -> int:
    """A decimal above zero, as an amount of a unit with so many digits. ValueError says what would be right."""
    amount = amount_of(text, digits)
    if not amount:
        raise ValueError(f"'{text}' is out of range: write more than 0 and at most {decimal_of(AMOUNT_MAX, digits)}")
    return amount


def parse_moment_us(text: str) -> int:
    """A day (its midnight, UTC) or a moment with its offset, in µs since the epoch. ValueError: what would be right.

    Whole seconds, so that a posting's time, in milliseconds, says whether it came before or after.
    """
    try:
        moment = datetime.fromisoformat(f"{text}T00:00:00Z" if _DAY.fullmatch(text) else text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or moment.microsecond:
        raise ValueError(f"'{text}' is not a moment: write 2027-01-01, or 2027-01-01T12:00:00Z with its offset")
    us = (moment - _EPOCH) // timedelta(microseconds=1)
    if not 0 < us < NEVER_US:
        raise ValueError(f"'{text}' is out of range: write a moment from 1970 to 2255")
    return us


def format_moment(moment_us: int) -> str:
    """A moment in words; "" for 0, which is never or always."""
    return f"{_EPOCH + timedelta(microseconds=moment_us):%Y-%m-%dT%H:%M:%SZ}" if moment_us else ""


def describe_wallet(book: WalletSnapshot, digits: int) -> dict[str, Any]:
    """A wallet as it is shown: what has expired is not there any more, as for the next request."""
    wallet, now_us = expire_grants(book.wallet, book.now_us)[0], book.now_us

    def text(amount: int) -> str:
        return decimal_of(amount, digits)

    return {
        "balance": text(balance(wallet)),
        "available": text(available(wallet, now_us)),
        "debt": text(wallet.debt),
        "held": text(sum(book.held.values())),
        "holds": len(book.held),
        "grants": [
            {
                "grant": grant.id,
                "left": text(grant.remaining),
                "amount": text(grant.amount),
                "priority": grant.priority,
                "starts": format_moment(grant.starts_us),
                "expires": format_moment(grant.expires_us),
                "rollover_max": text(grant.rollover_max) if grant.rollover_max else "",
                "rollover_until": format_moment(grant.rollover_until_us),
                "state": "live" if is_live(grant, now_us) else "waiting",
            }
            for grant in in_burn_order(wallet.grants)
        ],
        "postings": [
            {
                "at": format_moment(posted.at_ms * 1000),
                "kind": posted.kind,
                "id": posted.id,
                "delta": text(posted.delta),
                "balance": text(posted.balance),
            }
            for posted in book.postings
        ],
    }
