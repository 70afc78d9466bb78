"""A wallet: the grants of a customer in one unit, and the order in which they are used up.

Amounts are integers in the unit's scale. Grants are used by priority, then by expiry, then by age; a refund fills them
in the reverse order. A charge that no grant can pay becomes debt, and new credit pays debt first. Every change of the
balance has a posting, and the postings of a wallet always sum to its balance. Example: grants of 5 (expires in May) and
10 (never expires) pay a charge of 18 with 5 + 10 and leave a debt of 3; a grant of 4 then pays the debt and leaves a
balance of 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sidecar.core.price.decimals import AMOUNT_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

LEDGER_MAX = 10_000  # postings in one ledger
LEDGER_TRIMMED = 1_000  # oldest postings that are summed into `carried` when a ledger reaches LEDGER_MAX
_NEVER_US = 2**53


class Grant(NamedTuple):
    """Credit for one customer, usable while `starts_us <= now < expires_us` (0: it never expires), in µs.

    Lower `priority` is used first. `remaining` of `amount` is left. When it expires, at most `rollover_max` of that
    stays usable until `rollover_until_us`; with either 0 nothing rolls over.
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
    """Grants in no order, and the debt beyond them. `carried`: the sum of postings that were trimmed.

    `topped`: of the newest grant that had started when it was made: its time, the available units right after it, its
    id; a store may hold it in another place.
    The amounts of all grants together stay below `AMOUNT_MAX`, so that their sum is exact in a Lua double.
    """

    grants: tuple[Grant, ...] = ()
    debt: int = 0
    carried: int = 0
    topped: tuple[int, int, str] = (0, 0, "")


class Posting(NamedTuple):
    """One change of a balance. `kind`: grant, void, expire, rollover, reserve, settle, release or lost.

    release: a hold ran out; lost: an exchange gave back an amount whose grant had gone.

    `id` is that of the grant or exchange; `delta` is 0 only of a settle whose estimate was right, and of a removed
    grant. `charges` of a settle: meter, units and amount of each priced meter, with spaces: all that the exchange cost.
    Of a release, with the meter *: the amount that does not come back, since the tiers of the price had changed.
    """

    kind: str
    id: str
    delta: int
    charges: str = ""


def balance(wallet: Wallet) -> int:
    """The sum of the ledger: remaining units of all grants, started or not, less the debt."""
    return sum(grant.remaining for grant in wallet.grants) - wallet.debt


def available(wallet: Wallet, now_us: int) -> int:
    """The units that can be spent now; negative: debt."""
    return sum(grant.remaining for grant in wallet.grants if is_live(grant, now_us)) - wallet.debt


def is_live(grant: Grant, now_us: int) -> bool:
    """Whether the grant has started and has not expired."""
    return grant.starts_us <= now_us < (grant.expires_us or _NEVER_US)


def in_burn_order(grants: Iterable[Grant]) -> list[Grant]:
    """Sorted by lower priority, sooner expiry (never is last), age, then id: the first is used first."""
    return sorted(grants, key=lambda grant: (grant.priority, grant.expires_us or _NEVER_US, grant.made_us, grant.id))


def burn(wallet: Wallet, amount: int, now_us: int) -> Wallet:
    """Take `amount` (≥ 0) from the live grants; the unpaid rest is debt, at most `AMOUNT_MAX`."""
    taken: dict[str, int] = {}
    for grant in in_burn_order(wallet.grants):
        if is_live(grant, now_us):
            part = min(amount, grant.remaining)
            taken[grant.id] = part
            amount -= part
    return _moved(wallet, taken, min(wallet.debt + amount, AMOUNT_MAX))


def give_back(wallet: Wallet, amount: int, now_us: int) -> tuple[Wallet, int]:
    """Put `amount` (≥ 0) back: to the debt, then to the live grants, last used first, up to each one's amount.

    The second value is the rest that no grant has room for: its grant has expired, and the rest with it.
    """
    paid = min(amount, wallet.debt)
    amount -= paid
    put: dict[str, int] = {}
    for grant in reversed(in_burn_order(wallet.grants)):
        if is_live(grant, now_us):
            part = min(amount, grant.amount - grant.remaining)
            put[grant.id] = -part
            amount -= part
    return _moved(wallet, put, wallet.debt - paid), amount


def move(wallet: Wallet, kind: str, id: str, amount: int, now_us: int) -> tuple[Wallet, list[Posting]]:
    """Charge `amount`, or refund where negative: the wallet afterwards, and the postings of `kind` for `id`."""
    if amount >= 0:
        after, lost = burn(wallet, amount, now_us), 0
    else:
        after, lost = give_back(wallet, -amount, now_us)
    change = balance(after) - balance(wallet)
    return after, _nonzero([Posting(kind, id, change + lost), Posting("lost", id, -lost)])


def expire_grants(wallet: Wallet, now_us: int) -> tuple[Wallet, list[Posting]]:
    """The wallet as of `now_us`: expired grants removed or rolled over, debt paid; and the postings of that."""
    remaining: list[Grant] = []
    postings: list[Posting] = []
    for grant in sorted(wallet.grants, key=lambda grant: (grant.expires_us, grant.id)):
        if not 0 < grant.expires_us <= now_us:
            remaining.append(grant)
            continue
        left = min(grant.remaining, grant.rollover_max)
        if left and grant.rollover_until_us > now_us:
            remaining.append(_rolled_over(grant, left))
            postings.append(Posting("rollover", grant.id, left - grant.remaining))
        else:
            postings.append(Posting("expire", grant.id, -grant.remaining))
    return _debt_paid(wallet._replace(grants=tuple(remaining)), now_us), _nonzero(postings)


def add(wallet: Wallet, grant: Grant, now_us: int) -> tuple[Wallet, list[Posting]]:
    """The wallet with one more grant, which first pays the debt; and the postings."""
    more = wallet._replace(grants=(*wallet.grants, grant))
    return _debt_paid(more, now_us), _nonzero([Posting("grant", grant.id, grant.remaining)])


def void(wallet: Wallet, id: str) -> tuple[Wallet, list[Posting]]:
    """The wallet without a grant: its remaining units are removed, its used units stay used; and the postings."""
    gone = [grant for grant in wallet.grants if grant.id == id]
    others = tuple(grant for grant in wallet.grants if grant.id != id)
    return wallet._replace(grants=others), _nonzero([Posting("void", id, -grant.remaining) for grant in gone])


def _rolled_over(grant: Grant, left: int) -> Grant:
    """The grant after its expiry. Later refunds fill it up to the amount that may roll over, no further."""
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


def _nonzero(postings: list[Posting]) -> list[Posting]:
    return [posting for posting in postings if posting.delta]
