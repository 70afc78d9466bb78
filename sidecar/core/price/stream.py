"""A wallet made of its postings on the stream, where the store that had it is lost.

The stream has what the store's ledger has, but for the amounts that open exchanges held: of an exchange it has one
settle with all that it cost. So a grant can expire on the stream with less than is left of it here, because a part was
held. That part is set aside, and pays for the settles that follow. The rest that nobody settled is left out at the
end. At any time the balance and what is set aside are the sum of the postings, to the last digit.

    grant g1 +100    g1 has 100
    expiry g1 -70    30 were held by an exchange: set aside 30
    settle x  -20    set aside 10
    expiry x  -10    what x gave back was lost with g1: set aside 0, balance 0
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from sidecar.core.price.wallet import Grant, Wallet, add, available, balance, burn, give_back, in_burn_order

GRANTS_MAX: Final = 64  # in one wallet
REMEMBERED_MAX: Final = 1_000  # grants whose ids are known, so that each is granted once


class StreamPosting(NamedTuple):
    """A posting of the stream. `at_us`: when the grant was made, or the exchange arrived; else when it was recorded.

    `grant`: the id, of a change of one; "" of an exchange. Times of a grant are µs since 1970, 0: never.
    """

    change: str
    delta: int
    at_us: int
    grant: str = ""
    priority: int = 0
    starts_us: int = 0
    expires_us: int = 0


class Remade(NamedTuple):
    """A wallet from the stream. `granted`: its last 1,000 grants, as they were made.

    `total`: the sum of all postings. `left_out`: the part of it that exchanges held of grants that have ended, so that
    no grant has it. `rolled_over`: grants that go on after their expiry, until a time that is not on the stream.
    """

    wallet: Wallet
    granted: tuple[Grant, ...]
    total: int
    left_out: int
    rolled_over: tuple[str, ...]


def remade(postings: Iterable[StreamPosting]) -> Remade:
    """The wallet of these postings, which are all of one wallet, each once, in order of time."""
    replay = _Replay()
    for posting in postings:
        replay.apply(posting)
    return replay.result()


class _Replay:
    def __init__(self) -> None:
        self._wallet = Wallet()
        self._aside = self._total = 0
        self._granted: dict[str, Grant] = {}
        self._rolled_over: list[str] = []

    def apply(self, posting: StreamPosting) -> None:
        self._total += posting.delta
        if posting.change == "grant":
            self._grant(posting)
        elif posting.grant and posting.change == "rollover":
            self._roll_over(posting)
        elif posting.grant:  # void, expiry
            self._end(posting)
        elif posting.delta < 0:
            self._pay(-posting.delta, posting.at_us)
        elif posting.delta:
            live, now_us = self._unexpired(posting.at_us)
            self._wallet, rest = give_back(live, posting.delta, now_us)
            self._aside += rest  # the store has lost it: its posting follows

    def result(self) -> Remade:
        granted = tuple(self._granted.values())[-REMEMBERED_MAX:]
        return Remade(self._wallet, granted, self._total, self._aside, tuple(self._rolled_over))

    def _grant(self, posting: StreamPosting) -> None:
        grant = Grant(
            posting.grant, posting.priority, posting.starts_us, posting.expires_us, posting.delta, posting.delta,
            made_us=posting.at_us,
        )  # fmt: skip
        self._granted[grant.id] = grant
        self._wallet, _ = add(self._wallet, grant, posting.at_us)
        if len(self._wallet.grants) > GRANTS_MAX:
            self._wallet = self._wallet._replace(grants=_bounded(self._wallet.grants))
        if grant.starts_us <= posting.at_us:
            topped = posting.at_us, max(0, available(self._wallet, posting.at_us)), grant.id
            self._wallet = self._wallet._replace(topped=topped)

    def _end(self, posting: StreamPosting) -> None:
        left = self._remaining(posting.grant) + posting.delta
        self._wallet = self._wallet._replace(grants=self._without(posting.grant))
        self._set_aside(left, posting.at_us)

    def _roll_over(self, posting: StreamPosting) -> None:
        grant = next((each for each in self._wallet.grants if each.id == posting.grant), None)
        left = self._remaining(posting.grant) + posting.delta
        if grant is not None:
            left = min(left, 0)
            goes_on = grant.remaining + posting.delta - left
            rest = grant._replace(expires_us=0, amount=goes_on, remaining=goes_on)
            self._wallet = self._wallet._replace(grants=(*self._without(grant.id), rest))
            self._rolled_over.append(grant.id)
        self._set_aside(left, posting.at_us)

    def _set_aside(self, left: int, at_us: int) -> None:
        """Of a grant that has ended: what is still held of it; below 0: others have paid more than here."""
        self._aside += max(left, 0)
        if left < 0:
            self._pay(-left, at_us)

    def _pay(self, amount: int, at_us: int) -> None:
        held = min(amount, self._aside)
        self._aside -= held
        live, now_us = self._unexpired(at_us)
        self._wallet = burn(live, amount - held, now_us)

    def _unexpired(self, at_us: int) -> tuple[Wallet, int]:
        """The wallet, and the last instant up to `at_us` at which no grant had expired: each expiry has a posting."""
        return self._wallet, min([at_us, *(each.expires_us - 1 for each in self._wallet.grants if each.expires_us)])

    def _remaining(self, id_: str) -> int:
        return next((each.remaining for each in self._wallet.grants if each.id == id_), 0)

    def _without(self, id_: str) -> tuple[Grant, ...]:
        return tuple(each for each in self._wallet.grants if each.id != id_)


def _bounded(grants: Iterable[Grant]) -> tuple[Grant, ...]:
    """At most 64 grants: used-up ones are left out, the first in the order of use first."""
    ordered = in_burn_order(grants)
    too_many = len(ordered) - GRANTS_MAX
    used_up = [each.id for each in ordered if not each.remaining][: max(too_many, 0)]
    return tuple(each for each in ordered if each.id not in used_up)


def is_whole(made: Remade) -> bool:
    """Whether the balance is the sum of the postings, but for what is left out."""
    return balance(made.wallet) + made.left_out == made.total
