"""The charges of a wallet: what the priced limits of a request cost it, and what exchanges under way hold of it.

A wallet is a customer's credit in one unit, in its scale, with a ledger of every change. The priced limits that it
pays for keep running totals per period, and prices have tiers, so a charge is the difference of two prices of a total:

    charge = R(total + units) - R(total)

Added up, all charges of a period are R(total), whatever the order and size of the requests. So at any time what was
granted less the sum of all R(total) is what is available less the debt.

A request charges its estimate and keeps a hold: the counters, the units and the prices, which is all that it takes to
give the charge back, whatever the policy says by then. The settle replaces the units by the actual ones and charges or
returns the difference. A hold that nobody settles is released when it expires. Each change has its posting in the
ledger, written in the same step.

    price: the first 1,000 tokens at 2, then 1, in the unit's scale; 900 tokens counted, 500 available
      reserve 200   R(1,100) - R(900) = 2,100 - 1,800 = 300; available 200; hold {200 units, 300}
      settle 50     R(950) - R(1,100) = 1,900 - 2,100 = -200; available 400; the counter is 950
      the same, but the hold had expired: its 300 were released and the counter is 900, so the settle charges all 50:
                    R(950) - R(900) = 100; available 400 as well
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sidecar.core.limits import COUNT_MAX, NEVER_US, Check, Limit
from sidecar.core.limits.base import Evaluation, Write
from sidecar.core.price import Price, charged
from sidecar.core.price import wallet as wallets
from sidecar.core.price.wallet import Posting, Wallet

PLACES = 4096  # for the postings of one millisecond
RELEASED_MAX = 8  # holds whose time has come, given back by one reserve
_EMPTY = Wallet()


class Part(NamedTuple):
    """The part of a hold for one priced counter. `charge` was its price, for when the counter has gone."""

    key: str
    units: int
    charge: int
    price: Price


class Hold(NamedTuple):
    """The part of a wallet that an exchange holds until `expires_us`."""

    expires_us: int
    charge: int
    parts: tuple[Part, ...]


class WalletState(NamedTuple):
    """A wallet as it is read at `now_us`, with what led there: postings, counters after releases, holds released."""

    keys: tuple[str, ...]
    was: Wallet
    wallet: Wallet
    postings: list[Posting]
    counters: dict[str, int]
    released: list[bytes]
    now_us: int


def load(state: Mapping[str, Any], keys: tuple[str, ...], now_us: int, *, releasing: bool) -> WalletState:
    """The wallet without what has expired and, where `releasing`, with what holds give back whose time has come."""
    was = state.get(keys[0], _EMPTY)
    wallet, postings = wallets.expire_grants(was, now_us)
    counters: dict[str, int] = {}
    released = []
    for id_, hold in _due(state.get(keys[3], {}), now_us) if releasing else ():
        back = sum(_released(state, counters, part) for part in hold.parts)
        wallet, moved = wallets.move(wallet, "release", id_.decode(), -back, now_us)
        rest = hold.charge - back  # its tier had changed
        postings += _explained(moved, "release", id_, f"* 0 {rest}" if rest else "")
        released.append(id_)
    return WalletState(keys, was, wallet, postings, counters, released, now_us)


def charge(loaded: WalletState, limit: Limit, id_: bytes, due: int, now_us: int) -> tuple[Evaluation, WalletState]:
    """The evaluation of a balance that is charged `due`, and the wallet after it."""
    wallet, moved = wallets.move(loaded.wallet, "reserve", id_.decode(), due, now_us)
    left = wallets.available(loaded.wallet, now_us) + limit.amount
    after = wallets.available(wallet, now_us) + limit.amount
    paid = loaded._replace(wallet=wallet, postings=[*loaded.postings, *moved])
    return (0 < due > left, left, 0, after, 0, None, 0), paid


def settled(loaded: WalletState, id_: bytes, due: int, charges: str, now_us: int) -> WalletState:
    """The wallet after a hold is replaced by the actual amount, `due` more. `charges` are all of the exchange.

    There is a posting with the charges although the estimate may have been right: it is the proof of what was charged.
    """
    wallet, moved = wallets.move(loaded.wallet, "settle", id_.decode(), due, now_us)
    return loaded._replace(wallet=wallet, postings=[*loaded.postings, *_explained(moved, "settle", id_, charges)])


def _explained(moved: list[Posting], kind: str, id_: bytes, charges: str) -> list[Posting]:
    """The postings with the charges in the one that moved the balance; there is one although nothing may have moved."""
    if not charges:
        return moved
    delta = moved[0].delta if moved and moved[0].kind == kind else 0
    return [Posting(kind, id_.decode(), delta, charges), *(each for each in moved if each.kind != kind)]


def parts_of(entries: Sequence[Check], evaluations: Sequence[Evaluation], payer: int) -> tuple[Part, ...]:
    """The parts of a hold: of each priced counter that the balance at `payer` pays for."""
    return tuple(
        Part(
            check.keys[0],
            check.cost,
            _added(check.limit, -evaluations[index][1], evaluations[index][5]),
            check.limit.price,
        )
        for index, check in enumerate(entries)
        if check.payer == payer and check.cost and check.limit.price is not None
    )


def corrected(limit: Limit, total: int, owed: int) -> tuple[int, int]:
    """A priced counter moved by `owed` units, and what that adds to the charge."""
    after = max(0, min(total + owed, COUNT_MAX))
    return after, _added(limit, total, after)


def writes_of(state: Mapping[str, Any], loaded: WalletState) -> list[Write]:
    """The changes to store. A wallet and its ledger never expire."""
    keys = loaded.keys
    writes: list[Write] = [(key, None, total, 0) for key, total in loaded.counters.items()]
    writes += [(keys[3], id_, None, 0) for id_ in loaded.released]
    carried, posted = _posted(state.get(keys[1], {}), loaded)
    wallet = loaded.wallet._replace(carried=loaded.was.carried + carried)
    if wallet != loaded.was:
        writes.append((keys[0], None, wallet, NEVER_US))
    return writes + posted


def hold_write(loaded: WalletState, id_: bytes, hold: Hold) -> Write:
    """The hold as it is stored."""
    return loaded.keys[3], id_, hold, NEVER_US


def _due(holds: Mapping[bytes, Hold], now_us: int) -> Iterable[tuple[bytes, Hold]]:
    due = sorted((hold.expires_us, id_) for id_, hold in holds.items() if hold.expires_us <= now_us)
    return [(id_, holds[id_]) for _, id_ in due[:RELEASED_MAX]]


def _released(state: Mapping[str, Any], counters: dict[str, int], part: Part) -> int:
    """The counter less the units of a hold, and the amount that this takes off the charge."""
    total = counters.get(part.key, state.get(part.key))
    if total is None:  # its window is long over
        return part.charge
    counters[part.key] = left = max(0, total - part.units)
    return charged(part.price, total) - charged(part.price, left)


def _added(limit: Limit, total: int, after: int) -> int:
    price = limit.price
    return charged(price, after) - charged(price, total) if price is not None else 0


def _posted(ledger: Mapping[int, Any], loaded: WalletState) -> tuple[int, list[Write]]:
    """The postings as (kind, id, delta, balance after it, charges if any), and the sum of those that go to make room.

    A posting's number is its millisecond and its place in it (`PLACES`), and above all numbers before it.
    """
    number = next(reversed(ledger), 0) if ledger else 0  # a dict, in order
    number = max(number, loaded.now_us // 1000 * PLACES - 1)
    balance, writes = wallets.balance(loaded.was), []
    for posting in loaded.postings:
        number, balance = number + 1, balance + posting.delta
        more = (posting.charges,) if posting.charges else ()
        writes.append((loaded.keys[1], number, (*posting[:3], balance, *more), NEVER_US))
    if not writes or len(ledger) + len(writes) < wallets.LEDGER_MAX:
        return 0, writes
    oldest = [*ledger.items(), *((each[1], each[2]) for each in writes)][: wallets.LEDGER_TRIMMED]
    carried = sum(posting[2] for _, posting in oldest)
    return carried, [*writes, *((loaded.keys[1], each, None, 0) for each, _ in oldest)]
