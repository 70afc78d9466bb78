"""The wallets of the ledger, and the postings of each, as `core.price.stream` replays them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from sidecar.core.limits import id_us
from sidecar.core.price.stream import StreamPosting
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.schema import text
from sidecar.edge.ledger.views import posting_columns

_EXCHANGE: Final = ("settle", "release")
_NAME: Final = "customer, account, unit, digits"


class StreamWallet(NamedTuple):
    """A wallet that has postings."""

    customer: str
    account: str
    unit: str
    digits: int


def choose_postings(engine: Engine, customer: str = "", more: str = "") -> None:
    """Make the relation `posted`: the postings of the ledger and of `more`, of one customer or ("") of all."""
    where = f"kind = 'posting' AND NOT \"copy\"{f' AND customer = {text(customer)}' if customer else ''}"
    also = f"UNION ALL BY NAME SELECT * FROM {more} WHERE {where}" if more else ""
    engine.run(
        f"CREATE OR REPLACE TEMP TABLE posted AS SELECT id, cause, time_us, source, sequence, customer, account, "
        f"{posting_columns()} FROM (SELECT * FROM ledger WHERE {where} {also})"
    )


def wallets(engine: Engine) -> list[StreamWallet]:
    """All wallets that have postings."""
    return [StreamWallet(*row) for row in engine.run(f"SELECT DISTINCT {_NAME} FROM posted ORDER BY ALL")]


def postings_of(engine: Engine, wallet: StreamWallet) -> Iterator[StreamPosting]:
    """The postings of a wallet in the order in which they were recorded.

    A reader records those of one instant in their order, so its numbers decide among them.
    """
    _, cursor = engine.stream(
        """SELECT change, delta, time_us, id, cause, coalesce("grant", ''), coalesce(priority, 0),
            coalesce(epoch_us(TRY_CAST(starts AS TIMESTAMP)), 0), coalesce(epoch_us(TRY_CAST(expires AS TIMESTAMP)), 0)
        FROM posted WHERE customer = ? AND account = ? AND unit = ? AND digits = ?
        ORDER BY time_us, source, sequence""",
        list(wallet),
    )
    while rows := cursor.fetchmany(10_000):
        for change, delta, time_us, id_, cause, *grant in rows:
            at_us = id_us(cause.encode()) if cause else id_us(id_.encode()) if change == "grant" else time_us
            yield StreamPosting(change, delta, at_us, *grant)
