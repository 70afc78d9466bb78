"""The records of a wallet's ledger: what each posting of a store says on the stream, and the id that it has there.

A store posts more than the stream needs. While an exchange is open its estimate is taken (`reserve`), and it comes back
if nobody settles it (`release`). The stream has one posting of an exchange, when it is settled, with all that it cost;
and one of a release only if the tiers of its price have changed, so that less or more came back. So the sum of a
wallet's postings on the stream is its balance, and what open exchanges hold of it.

    the ledger of the store                       on the stream
      grant   g1   +100  balance 100                grant   +100, grant g1
      reserve x     -30  balance  70                -
      settle  x     +10  balance  80, tokens 5 20   settle   -20, charges [{tokens, 5 units, 20}], about exchange x
      expire  g1    -80  balance   0                expiry   -80, grant g1

A posting's id is made of the wallet, its kind and the grant or exchange, so two readers of a ledger write one record.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sidecar.core.limits import id_us, scale_of, wallet_of
from sidecar.core.limits.keys import account_of
from sidecar.core.price.book import Posted
from sidecar.core.price.wallet import Grant
from sidecar.core.record.ids import derived_id
from sidecar.core.record.statements import Posting, statement_record

_CHANGES: Final = {"grant": "grant", "void": "void", "expire": "expiry", "rollover": "rollover", "lost": "expiry"}
_CHARGED: Final = {"settle", "release"}


class WalletPosting(NamedTuple):
    """A record to be written: its id, what it says, and the id of the exchange that led to it, or b""."""

    id: bytes
    posting: Posting
    cause: bytes


def wallet_posting(key: str, posted: Posted, given: Grant | None, at_us: int) -> WalletPosting | None:
    """The record of a posting in the ledger of the wallet at `key`; None: the stream has none of it.

    `given`: the grant as it was made, of a posting of kind `grant`, if it is known. `at_us`: a time that is the same
    whenever this posting is read; of a settle that of its exchange is used.
    """
    customer, name = wallet_of(key)
    unit, digits = scale_of(name)
    charges = _charges(posted.charges) if posted.kind in _CHARGED else None
    if not (posted.kind in _CHANGES or charges) or (posted.kind == "expire" and not posted.delta):
        return None
    of_exchange = charges is not None or posted.kind == "lost"
    delta = posted.delta if charges is None else -sum(each["amount"] for each in charges)
    posting = Posting(
        customer, account_of(key), unit, digits, _CHANGES.get(posted.kind, posted.kind), delta, posted.balance,
        grant=None if of_exchange else posted.id, charges=charges if posted.kind == "settle" else None,
    )  # fmt: skip
    if given is not None:
        posting = posting._replace(
            priority=given.priority, starts_us=given.starts_us or None, expires_us=given.expires_us or None
        )
    cause = posted.id.encode() if of_exchange else b""
    id_ = derived_id(f"{key}:{posted.kind}:{posted.id}", id_us(cause) if of_exchange else at_us)
    return WalletPosting(id_, posting, cause)


def posting_record(posting: WalletPosting, time_us: int, source: str, sequence: int) -> bytes:
    """The record of a posting that is written at `time_us`."""
    return statement_record(posting.posting, posting.id, (time_us, source, sequence), cause=posting.cause)


def _charges(text: str) -> list[dict[str, Any]]:
    words = text.split(" ") if text else []
    return [
        {"meter": meter, "units": int(units), "amount": int(amount)}
        for meter, units, amount in zip(words[::3], words[1::3], words[2::3], strict=True)
    ]
