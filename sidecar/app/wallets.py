"""Wallets as people fill, read and audit them: amounts and moments in words, the ledger held against the balance.

Amounts are integers in nano-units everywhere but in what a person writes or reads, and neither way loses a digit. The
ledger is the truth of a balance: what a wallet says otherwise is a fault of the wallet.
"""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sidecar.app.stores import redis_tls
from sidecar.core.counter import COUNT_MAX, NEVER_US
from sidecar.core.price.wallet import (
    LEDGER_MAX,
    LEDGER_TRIMMED,
    Wallet,
    add,
    available,
    balance,
    burn,
    in_burn_order,
    is_live,
    move,
    sweep,
    void,
)
from sidecar.edge.redis_keys import connect, disconnect
from sidecar.edge.redis_wallet import RedisWallet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sidecar.config.sections import Redis
    from sidecar.edge.redis_wallet import Book, Posted

NEVER_TRIMMED: Final = LEDGER_MAX - LEDGER_TRIMMED  # postings: a ledger is never this short again once it was trimmed
DEBT: Final = "the debt"  # no grant is named so: their ids hold no space
TIMEOUT_S: Final = 5.0  # a person waits; the gateway's 50 ms are for requests
_DIGITS: Final = 9
_NANOS: Final = 10**_DIGITS
_AMOUNT: Final = re.compile(r"([0-9]{1,16})(?:\.([0-9]+))?")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOVES: Final = frozenset({"reserve", "settle", "release"})
_ENDINGS: Final = frozenset({"expire", "rollover"})
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")


@asynccontextmanager
async def opened(redis: Redis, customer: str, unit: str) -> AsyncIterator[RedisWallet]:
    """The wallet of a customer, on a connection of its own."""
    client = connect(redis.endpoint, TIMEOUT_S, redis_tls(redis))
    try:
        yield RedisWallet(client, customer, unit)
    finally:
        await disconnect(client)


# --- Words -----------------------------------------------------------------------------------------------------------


def nanos_of(text: str) -> int:
    """A decimal amount above zero, as nano-units. ValueError says what would be right."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' is not an amount: write digits, and a point where needed, as in 50 or 12.50")
    whole, fraction = match[1], (match[2] or "").rstrip("0")
    if len(fraction) > _DIGITS:
        raise ValueError(f"'{text}' is finer than a nano-unit: write at most {_DIGITS} digits after the point")
    nanos = int(whole + fraction.ljust(_DIGITS, "0"))
    if not 0 < nanos < COUNT_MAX:
        raise ValueError(f"'{text}' is out of range: write more than 0 and less than {decimal_of(COUNT_MAX)}")
    return nanos


def decimal_of(nanos: int) -> str:
    """Nano-units as a decimal amount with no digit lost and none too many."""
    whole, fraction = divmod(abs(nanos), _NANOS)
    digits = f"{fraction:0{_DIGITS}}".rstrip("0")
    return f"{'-' * (nanos < 0)}{whole}{'.' * bool(digits)}{digits}"


def moment_us(text: str) -> int:
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


def told_us(moment_us: int) -> str:
    """A moment in words; "" for 0, which is never or always."""
    return f"{_EPOCH + timedelta(microseconds=moment_us):%Y-%m-%dT%H:%M:%SZ}" if moment_us else ""


def told(book: Book) -> dict[str, Any]:
    """A wallet as it is shown: what has expired is not there any more, as for the next request."""
    wallet, now_us = sweep(book.wallet, book.now_us)[0], book.now_us
    return {
        "balance": decimal_of(balance(wallet)),
        "available": decimal_of(available(wallet, now_us)),
        "debt": decimal_of(wallet.debt),
        "held": decimal_of(sum(book.held.values())),
        "holds": len(book.held),
        "grants": [
            {
                "grant": grant.id,
                "left": decimal_of(grant.remaining),
                "amount": decimal_of(grant.amount),
                "priority": grant.priority,
                "starts": told_us(grant.starts_us),
                "expires": told_us(grant.expires_us),
                "rollover_max": decimal_of(grant.rollover_max) if grant.rollover_max else "",
                "rollover_until": told_us(grant.rollover_until_us),
                "state": "live" if is_live(grant, now_us) else "waiting",
            }
            for grant in in_burn_order(wallet.grants)
        ],
        "postings": [
            {
                "at": told_us(posted.at_ms * 1000),
                "kind": posted.kind,
                "id": posted.id,
                "delta": decimal_of(posted.delta),
                "balance": decimal_of(posted.balance),
            }
            for posted in book.postings
        ],
    }


# --- The ledger ------------------------------------------------------------------------------------------------------


class Audit(NamedTuple):
    """A wallet held against its ledger, in nano-units. `broken`: postings whose balance is not the sum up to them."""

    balance: int
    ledger: int
    postings: int
    broken: tuple[Posted, ...]

    @property
    def whole(self) -> bool:
        """Whether the ledger is right in itself, and the wallet what the ledger says."""
        return self.balance == self.ledger and not self.broken


def audit(book: Book) -> Audit:
    """Sum the ledger up. `book` has every posting."""
    total, broken = book.wallet.carried, []
    for posted in book.postings:
        total += posted.delta
        if total != posted.balance:
            broken.append(posted)
    return Audit(balance(book.wallet), total, len(book.postings), tuple(broken))


class Rebuilt(NamedTuple):
    """A wallet made anew from its ledger, as it was when the last posting was written.

    `exact`: every posting was played again from the first. Otherwise the beginning is trimmed, and the sum is spread
    over the grants as if all had burned in the order that holds now.
    """

    wallet: Wallet
    exact: bool


def rebuilt(book: Book) -> Rebuilt:
    """What the wallet is by its ledger, whatever it says itself. `book` has every posting that the ledger keeps."""
    postings = book.postings
    if not postings:
        return Rebuilt(Wallet(carried=book.wallet.carried), exact=not book.wallet.carried)
    carried = postings[0].balance - postings[0].delta  # which also stands where the wallet itself is lost
    total = carried + sum(posted.delta for posted in postings)
    given = {posted.id for posted in postings if posted.kind == "grant"}
    if len(postings) < NEVER_TRIMMED and given <= book.granted.keys():
        played = _played(book)
        if balance(played) == total:
            return Rebuilt(played, exact=True)
    return Rebuilt(_spread(book, total)._replace(carried=carried), exact=False)


def differences(book: Book, made: Wallet) -> list[tuple[str, int, int]]:
    """Where a wallet is not what was made of its ledger: (grant or `DEBT`, what is left of it, what would be)."""
    stands, would = (
        {grant.id: grant.remaining for grant in wallet.grants} | {DEBT: wallet.debt}
        for wallet in (sweep(book.wallet, book.now_us)[0], sweep(made, book.now_us)[0])
    )
    found = [(name, stands.get(name, 0), would.get(name, 0)) for name in sorted(stands.keys() | would.keys())]
    return [row for row in found if row[1] != row[2]]


def _played(book: Book) -> Wallet:
    """Every posting again, by the rule that made it."""
    wallet = Wallet()
    for posted in book.postings:
        now_us = _instant(posted, wallet)
        wallet, _ = sweep(wallet, now_us)
        if posted.kind == "grant":
            wallet, _ = add(wallet, book.granted[posted.id], now_us)
        elif posted.kind in {"void", "expire"}:  # also of what was used up and had to make room
            wallet, _ = void(wallet, posted.id)
        elif posted.kind in _MOVES:
            wallet, _ = move(wallet, posted.kind, posted.id, -posted.delta, now_us)
    return wallet


def _instant(posted: Posted, wallet: Wallet) -> int:
    """The time that a posting was decided by, in µs, closely enough to tell what had expired by then.

    Redis stamps it a little after the script has read the clock: what would have been told as expired, and is not, had
    not expired. What expires in silence has nothing left, or all of it lives on.
    """
    now_us = posted.at_ms * 1000
    if posted.kind in _ENDINGS and any(grant.id == posted.id for grant in wallet.grants):
        return now_us
    ended = [grant for grant in wallet.grants if 0 < grant.expires_us <= now_us]
    return min([now_us, *(grant.expires_us - 1 for grant in ended if sweep(Wallet((grant,)), now_us)[1])])


def _spread(book: Book, total: int) -> Wallet:
    """The grants with what is left of them such that all hold `total`; what they cannot hold is left out."""
    now_us = book.postings[-1].at_ms * 1000
    gone = {posted.id for posted in book.postings if posted.kind in {"void", "expire"}}
    known = book.wallet.grants or [grant for name, grant in book.granted.items() if name not in gone]
    full = Wallet(tuple(grant._replace(remaining=grant.amount) for grant in known))
    return burn(full, max(0, balance(full) - total), now_us)
