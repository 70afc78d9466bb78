"""Audits a wallet against its ledger, and rebuilds it from the ledger.

The ledger decides what a balance is: a difference is a fault of the wallet. Amounts are in the unit's scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sidecar.core.price.wallet import LEDGER_MAX, LEDGER_TRIMMED, Wallet, add, balance, burn, expire_grants, move, void

if TYPE_CHECKING:
    from sidecar.core.price.book import Posted, WalletSnapshot

NEVER_TRIMMED: Final = LEDGER_MAX - LEDGER_TRIMMED  # postings: a ledger is never this short again once it was trimmed
DEBT: Final = "the debt"  # no grant is named so: their ids hold no space
RESTORED: Final = "rebuild"  # the first posting of a wallet that was made from the stream
_MOVES: Final = frozenset({"reserve", "settle", "release"})
_ENDINGS: Final = frozenset({"expire", "rollover"})


class Audit(NamedTuple):
    """A wallet held against its ledger. `broken`: postings whose balance is not the sum up to them."""

    balance: int
    ledger: int
    postings: int
    broken: tuple[Posted, ...]

    @property
    def whole(self) -> bool:
        """Whether the ledger is right in itself, and the wallet what the ledger says."""
        return self.balance == self.ledger and not self.broken


def audit(book: WalletSnapshot) -> Audit:
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
    over the grants as if all had been used in the present order.
    """

    wallet: Wallet
    exact: bool


def rebuilt(book: WalletSnapshot) -> Rebuilt:
    """The wallet by its ledger alone. `book` has every posting that the ledger still has."""
    postings = book.postings
    if not postings:
        return Rebuilt(Wallet(carried=book.wallet.carried), exact=not book.wallet.carried)
    carried = postings[0].balance - postings[0].delta  # which is known even if the wallet itself is lost
    total = carried + sum(posted.delta for posted in postings)
    given = {posted.id for posted in postings if posted.kind == "grant"}
    is_first = postings[0].kind != RESTORED
    if is_first and len(postings) < NEVER_TRIMMED and given <= book.granted.keys():
        played = _played(book)
        if balance(played) == total:
            return Rebuilt(played, exact=True)
    return Rebuilt(_spread(book, total)._replace(carried=carried), exact=False)


def differences(book: WalletSnapshot, made: Wallet) -> list[tuple[str, int, int]]:
    """Where a wallet is not what was made of its ledger: (grant or `DEBT`, what is left of it, what would be)."""
    current, from_ledger = (
        {grant.id: grant.remaining for grant in wallet.grants} | {DEBT: wallet.debt}
        for wallet in (expire_grants(book.wallet, book.now_us)[0], expire_grants(made, book.now_us)[0])
    )
    rows = [
        (name, current.get(name, 0), from_ledger.get(name, 0)) for name in sorted(current.keys() | from_ledger.keys())
    ]
    return [row for row in rows if row[1] != row[2]]


def _played(book: WalletSnapshot) -> Wallet:
    """Every posting again, by the rule that made it."""
    wallet = Wallet()
    for posted in book.postings:
        now_us = _instant(posted, wallet)
        wallet, _ = expire_grants(wallet, now_us)
        if posted.kind == "grant":
            wallet, _ = add(wallet, book.granted[posted.id], now_us)
        elif posted.kind in {"void", "expire"}:  # also of what was used up and had to make room
            wallet, _ = void(wallet, posted.id)
        elif posted.kind in _MOVES:
            wallet, _ = move(wallet, posted.kind, posted.id, -posted.delta, now_us)
    return wallet


def _instant(posted: Posted, wallet: Wallet) -> int:
    """The time that a posting was decided by, in µs, closely enough to tell what had expired by then.

    Redis stamps it a little after the script has read the clock: a grant whose expiry would be
    posted, and is not, had not expired. A grant that expires without a posting has nothing left, or rolls over whole.
    """
    now_us = posted.at_ms * 1000
    if posted.kind in _ENDINGS and any(grant.id == posted.id for grant in wallet.grants):
        return now_us
    ended = [grant for grant in wallet.grants if 0 < grant.expires_us <= now_us]
    return min([now_us, *(grant.expires_us - 1 for grant in ended if expire_grants(Wallet((grant,)), now_us)[1])])


def _spread(book: WalletSnapshot, total: int) -> Wallet:
    """The grants with what is left of them such that all hold `total`; an excess is left out."""
    now_us = book.postings[-1].at_ms * 1000
    gone = {posted.id for posted in book.postings if posted.kind in {"void", "expire"}}
    known = book.wallet.grants or [grant for name, grant in book.granted.items() if name not in gone]
    full = Wallet(tuple(grant._replace(remaining=grant.amount) for grant in known))
    return burn(full, max(0, balance(full) - total), now_us)
