"""What a balance pays: a customer's wallet in one unit, its ledger, and what exchanges under way hold of it.

A charge is the difference of two charges of a running total, R(total + units) - R(total), so that at any time what was
granted less the sum of all R(total) is what is available less the debt. A hold keeps what it takes to give it back: the
counters, the units and the prices, whatever the policy says by then. Each change has its posting, in the same step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sidecar.core.counter import COUNT_MAX, NEVER_US, Checks
from sidecar.core.decision.looks import Look
from sidecar.core.policy import Limit
from sidecar.core.price import Price, charged
from sidecar.core.price import wallet as wallets
from sidecar.core.price.wallet import Posting, Wallet

RELEASED_MAX = 8  # holds whose time has come, given back by one reserve
_EMPTY = Wallet()

Write = tuple[str, bytes | int | None, Any, int]


class Part(NamedTuple):
    """What an exchange holds of one priced counter. `charge` is what that came to, for when the counter has gone."""

    key: str
    units: int
    charge: int
    price: Price


class Hold(NamedTuple):
    """What an exchange holds of a balance, until `expires_us`."""

    expires_us: int
    charge: int
    parts: tuple[Part, ...]


class Purse(NamedTuple):
    """A wallet as it is read at one instant, with what led there: postings, counters after releases, holds released."""

    keys: tuple[str, ...]
    was: Wallet
    wallet: Wallet
    postings: list[Posting]
    counters: dict[str, int]
    released: list[bytes]


def opened(state: Mapping[str, Any], keys: tuple[str, ...], now_us: int, *, releasing: bool) -> Purse:
    """The wallet without what has expired and, where `releasing`, with what holds give back whose time has come."""
    was = state.get(keys[0], _EMPTY)
    wallet, postings = wallets.sweep(was, now_us)
    counters: dict[str, int] = {}
    released = []
    for id_, hold in _due(state.get(keys[3], {}), now_us) if releasing else ():
        back = sum(_released(state, counters, part) for part in hold.parts)
        wallet, told = wallets.move(wallet, "release", id_.decode(), -back, now_us)
        postings += told
        released.append(id_)
    return Purse(keys, was, wallet, postings, counters, released)


def asked(purse: Purse, limit: Limit, id_: bytes, due: int, now_us: int) -> tuple[Look, Purse]:
    """What a balance says to a charge of `due` nano-units, and the purse after it."""
    wallet, told = wallets.move(purse.wallet, "reserve", id_.decode(), due, now_us)
    left = wallets.available(purse.wallet, now_us) + limit.amount
    after = wallets.available(wallet, now_us) + limit.amount
    paid = purse._replace(wallet=wallet, postings=[*purse.postings, *told])
    return (0 < due > left, left, 0, after, 0, None, 0), paid


def settled(purse: Purse, id_: bytes, due: int, now_us: int) -> Purse:
    """The purse after what an exchange held of it is replaced by the truth, `due` nano-units more."""
    wallet, told = wallets.move(purse.wallet, "settle", id_.decode(), due, now_us)
    return purse._replace(wallet=wallet, postings=[*purse.postings, *told])


def parts_of(checks: Checks, looks: list[Look], payer: int) -> tuple[Part, ...]:
    """What an exchange would hold of each priced counter that the balance at `payer` pays for."""
    return tuple(
        Part(checks.keys[index][0], checks.costs[index], _charge(limit, -looks[index][1], looks[index][5]), limit.price)
        for index, limit in enumerate(checks.limits)
        if checks.payers[index] == payer and checks.costs[index] and limit.price is not None
    )


def corrected(limit: Limit, total: int, owed: int) -> tuple[int, int]:
    """A priced counter moved by `owed` units, and what that adds to the charge."""
    after = max(0, min(total + owed, COUNT_MAX))
    return after, _charge(limit, total, after)


def writes_of(state: Mapping[str, Any], purse: Purse) -> list[Write]:
    """What to store of a purse. The wallet and its ledger are kept until the end of time."""
    keys = purse.keys
    writes: list[Write] = [(key, None, total, 0) for key, total in purse.counters.items()]
    writes += [(keys[3], id_, None, 0) for id_ in purse.released]
    carried, posted = _posted(state.get(keys[1], {}), purse)
    wallet = purse.wallet._replace(carried=purse.was.carried + carried)
    if wallet != purse.was:
        writes.append((keys[0], None, wallet, NEVER_US))
    return writes + posted


def held(purse: Purse, id_: bytes, hold: Hold) -> Write:
    """The hold as it is stored."""
    return purse.keys[3], id_, hold, NEVER_US


def _due(holds: Mapping[bytes, Hold], now_us: int) -> Iterable[tuple[bytes, Hold]]:
    due = sorted((hold.expires_us, id_) for id_, hold in holds.items() if hold.expires_us <= now_us)
    return [(id_, holds[id_]) for _, id_ in due[:RELEASED_MAX]]


def _released(state: Mapping[str, Any], counters: dict[str, int], part: Part) -> int:
    """The counter less the units of a hold, and the nano-units that this takes off the charge."""
    total = counters.get(part.key, state.get(part.key))
    if total is None:  # its window is long over
        return part.charge
    counters[part.key] = left = max(0, total - part.units)
    return charged(part.price, total) - charged(part.price, left)


def _charge(limit: Limit, total: int, after: int) -> int:
    price = limit.price
    return charged(price, after) - charged(price, total) if price is not None else 0


def _posted(ledger: Mapping[int, Any], purse: Purse) -> tuple[int, list[Write]]:
    """The postings as (kind, id, delta, balance after it), and the sum of those that go to make room."""
    number = next(reversed(ledger), 0) if ledger else 0  # a dict, in order
    balance, writes = wallets.balance(purse.was), []
    for posting in purse.postings:
        number, balance = number + 1, balance + posting.delta
        writes.append((purse.keys[1], number, (*posting, balance), NEVER_US))
    if not writes or len(ledger) + len(writes) < wallets.LEDGER_MAX:
        return 0, writes
    oldest = [*ledger.items(), *((each[1], each[2]) for each in writes)][: wallets.LEDGER_TRIMMED]
    carried = sum(posting[2] for _, posting in oldest)
    return carried, [*writes, *((purse.keys[1], each, None, 0) for each, _ in oldest)]
