"""A wallet: what a customer was granted in one unit, in nano-units, and in which order it is used up.

It burns by priority, then by expiry, then by age, and what is given back goes the other way round. What no grant can
pay is debt, and debt is paid before anything else. Every change of the balance has a posting: the postings of a wallet
sum to its balance, always.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sidecar.core.price.rating import NANOS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

LEDGER_MAX = 10_000  # postings in one ledger; where it reaches that,
LEDGER_TRIMMED = 1_000  # so many of the oldest are summed into `carried`
_NEVER_US = 2**53


class Grant(NamedTuple):
    """Credit for one customer, usable while `starts_us <= now < expires_us` (0: it never expires). µs, nano-units.

    Lower `priority` burns first. `remaining` of `amount` is left. When it expires, at most `rollover_max` of that goes
    on until `rollover_until_us`; with either 0 nothing does.
    """

    id: str
    priority: int
    starts_us: int
    expires_us: int
    amount: int
    remaining: int
    rollover_max: int = 0
    rollover_until_us: int = 0
    made_us: int = 0


class Wallet(NamedTuple):
    """Grants in no order, and what was used beyond all of them. `carried`: the sum of postings that were trimmed.

    The amounts of all grants together stay below `NANOS_MAX`, so that their sum is exact in a Lua double.
    """

    grants: tuple[Grant, ...] = ()
    debt: int = 0
    carried: int = 0


class Posting(NamedTuple):
    """One change of a balance. `kind`: grant, void, expire, rollover, reserve, settle or release (a hold ran out).

    `id` is the grant's or the exchange's; `delta` never 0.
    """

    kind: str
    id: str
    delta: int


def balance(wallet: Wallet) -> int:
    """What the ledger sums to: all that is left of the grants, started or not, less the debt."""
    return sum(grant.remaining for grant in wallet.grants) - wallet.debt


def available(wallet: Wallet, now_us: int) -> int:
    """What can be spent now; below zero is debt."""
    return sum(grant.remaining for grant in wallet.grants if is_live(grant, now_us)) - wallet.debt


def is_live(grant: Grant, now_us: int) -> bool:
    """Whether it has started and has not expired."""
    return grant.starts_us <= now_us < (grant.expires_us or _NEVER_US)


def in_burn_order(grants: Iterable[Grant]) -> list[Grant]:
    """The first to burn first: lower priority, sooner expiry (never is last), older, then by id."""
    return sorted(grants, key=lambda grant: (grant.priority, grant.expires_us or _NEVER_US, grant.made_us, grant.id))


def burn(wallet: Wallet, nanos: int, now_us: int) -> Wallet:
    """Take `nanos` (≥ 0) from the live grants; what they cannot pay is debt, which ends at `NANOS_MAX`."""
    taken: dict[str, int] = {}
    for grant in in_burn_order(wallet.grants):
        if is_live(grant, now_us):
            part = min(nanos, grant.remaining)
            taken[grant.id] = part
            nanos -= part
    return _moved(wallet, taken, min(wallet.debt + nanos, NANOS_MAX))


def give_back(wallet: Wallet, nanos: int, now_us: int) -> tuple[Wallet, int]:
    """Put `nanos` (≥ 0) back: to the debt, then to the live grants, last burnt first, up to each one's amount.

    The second is what found no room, because its grant is gone: it has expired with it.
    """
    paid = min(nanos, wallet.debt)
    nanos -= paid
    put: dict[str, int] = {}
    for grant in reversed(in_burn_order(wallet.grants)):
        if is_live(grant, now_us):
            part = min(nanos, grant.amount - grant.remaining)
            put[grant.id] = -part
            nanos -= part
    return _moved(wallet, put, wallet.debt - paid), nanos


def move(wallet: Wallet, kind: str, id: str, nanos: int, now_us: int) -> tuple[Wallet, list[Posting]]:
    """Charge `nanos`, or give back what is below zero: the wallet after it, and the postings of `kind` for `id`."""
    if nanos >= 0:
        after, lost = burn(wallet, nanos, now_us), 0
    else:
        after, lost = give_back(wallet, -nanos, now_us)
    change = balance(after) - balance(wallet)
    return after, _told([Posting(kind, id, change + lost), Posting("expire", id, -lost)])


def sweep(wallet: Wallet, now_us: int) -> tuple[Wallet, list[Posting]]:
    """The wallet as it is to be read at `now_us`: without what has expired, and its debt paid by what has started."""
    kept, postings = [], []
    for grant in sorted(wallet.grants, key=lambda grant: (grant.expires_us, grant.id)):
        if not 0 < grant.expires_us <= now_us:
            kept.append(grant)
            continue
        left = min(grant.remaining, grant.rollover_max)
        if left and grant.rollover_until_us > now_us:
            kept.append(_rolled_over(grant, left))
            postings.append(Posting("rollover", grant.id, left - grant.remaining))
        else:
            postings.append(Posting("expire", grant.id, -grant.remaining))
    return _debt_paid(wallet._replace(grants=tuple(kept)), now_us), _told(postings)


def add(wallet: Wallet, grant: Grant, now_us: int) -> tuple[Wallet, list[Posting]]:
    """The wallet with one more grant, which pays the debt first."""
    more = wallet._replace(grants=(*wallet.grants, grant))
    return _debt_paid(more, now_us), _told([Posting("grant", grant.id, grant.remaining)])


def void(wallet: Wallet, id: str) -> tuple[Wallet, list[Posting]]:
    """The wallet without a grant: what was left of it is gone, what was used of it stays used."""
    gone = [grant for grant in wallet.grants if grant.id == id]
    kept = tuple(grant for grant in wallet.grants if grant.id != id)
    return wallet._replace(grants=kept), _told([Posting("void", id, -grant.remaining) for grant in gone])


def _rolled_over(grant: Grant, left: int) -> Grant:
    """What is given back to it later fills it no further than what may roll over."""
    amount = min(grant.amount, grant.rollover_max)
    return grant._replace(
        expires_us=grant.rollover_until_us, amount=amount, remaining=left, rollover_max=0, rollover_until_us=0
    )


def _debt_paid(wallet: Wallet, now_us: int) -> Wallet:
    paying = min(wallet.debt, sum(grant.remaining for grant in wallet.grants if is_live(grant, now_us)))
    return burn(wallet._replace(debt=wallet.debt - paying), paying, now_us) if paying else wallet


def _moved(wallet: Wallet, taken: dict[str, int], debt: int) -> Wallet:
    grants = tuple(grant._replace(remaining=grant.remaining - taken.get(grant.id, 0)) for grant in wallet.grants)
    return wallet._replace(grants=grants, debt=debt)


def _told(postings: list[Posting]) -> list[Posting]:
    return [posting for posting in postings if posting.delta]
