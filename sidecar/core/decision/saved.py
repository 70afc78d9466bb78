"""The contents of a store in memory as rows of plain JSON, and back, so that a node keeps them through a restart.

A row is [kind, key, expiry in µs, value …]. Slots and marks have none: the exchanges that they belong to end with their
process, and ids of another process never come again.

    ["count", "sc:{acme}:q=monthly:cacme:2026-11", 1764633600000000, 41]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from sidecar.core.decision.wallet_charges import Hold, Part
from sidecar.core.limits import NEVER_US, current_key
from sidecar.core.limits.base import Write
from sidecar.core.price import Price, Tier
from sidecar.core.price.wallet import Grant, Wallet

ROW_POSTINGS: Final = 2_000  # in one row, so that it stays far below the bound of a frame

Row = list[Any]


def rows_of(key: str, value: Any, expire_us: int) -> Iterator[Row]:
    """The rows of one stored value."""
    if type(value) is int:
        yield ["count", key, expire_us, value]
    elif type(value) is dict:
        yield from _members(key, value)
    elif type(value) is Wallet:
        yield ["wallet", key, NEVER_US, value.debt, value.carried, value.topped, [tuple(each) for each in value.grants]]
    else:
        yield ["time", key, expire_us, *value]


def writes_of(row: Row) -> Iterable[Write]:
    """The changes to store for a row, also of version 0.1. KeyError, ValueError, TypeError: it is not one of ours."""
    kind, key, expire_us, *values = row
    return _READERS[kind](current_key(key), expire_us, values)


def _members(key: str, members: dict[Any, Any]) -> Iterator[Row]:
    first = next(iter(members.values()), None)
    if type(first) is Hold:
        for id_, hold in members.items():
            parts = [[part.key, part.units, part.charge, pack_price(part.price)] for part in hold.parts]
            yield ["hold", key, NEVER_US, id_.decode(), hold.expires_us, hold.charge, parts]
    elif type(first) is Grant:
        yield ["granted", key, NEVER_US, [tuple(each) for each in members.values()]]
    elif type(first) is tuple:
        postings = [[number, *posting] for number, posting in members.items()]
        for start in range(0, len(postings), ROW_POSTINGS):
            yield ["ledger", key, NEVER_US, postings[start : start + ROW_POSTINGS]]


def pack_price(price: Price) -> list[Any]:
    """A price as JSON values, from which `unpack_price` makes it again."""
    return [price.kind, price.amount, price.per, [[tier.up_to, tier.amount] for tier in price.tiers], price.included]


def _read_wallet(key: str, expire_us: int, values: list[Any]) -> list[Write]:
    debt, carried, topped, grants = values
    made_us, amount, grant = topped
    wallet = Wallet(tuple(Grant(*each) for each in grants), debt, carried, (made_us, amount, grant))
    return [(key, None, wallet, expire_us)]


def _read_hold(key: str, expire_us: int, values: list[Any]) -> list[Write]:
    id_, expires_us, charge, parts = values
    held = tuple(Part(current_key(name), units, cost, unpack_price(price)) for name, units, cost, price in parts)
    return [(key, id_.encode(), Hold(expires_us, charge, held), expire_us)]


def unpack_price(packed: list[Any]) -> Price:
    """The price of these values. ValueError, TypeError: they are not of a price."""
    kind, amount, per, tiers, included = packed
    return Price(kind, amount, per, tuple(Tier(*tier) for tier in tiers), included)


_READERS: Final[dict[str, Callable[[str, int, list[Any]], list[Write]]]] = {
    "count": lambda key, expire_us, values: [(key, None, values[0], expire_us)],
    "time": lambda key, expire_us, values: [(key, None, (values[0], values[1]), expire_us)],
    "wallet": _read_wallet,
    "hold": _read_hold,
    "granted": lambda key, expire_us, values: [(key, each[0].encode(), Grant(*each), expire_us) for each in values[0]],
    "ledger": lambda key, expire_us, values: [
        (key, number, tuple(posting), expire_us) for number, *posting in values[0]
    ],
}
KINDS: Final = frozenset(_READERS)
