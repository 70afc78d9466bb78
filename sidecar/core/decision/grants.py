"""Changes of a wallet by an operator: grant, void, and the expiry of grants. The same as wallet_change.lua.

As the rule, these functions change nothing: they return the values to store. The last 1,000 grants are remembered by
their ids, so that a repeated command adds a grant once.

    a wallet with a debt of 30; grant g1 of 100: debt 0, g1 has 70 left, postings for both; the same again: "there"
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sidecar.core.decision.wallet_charges import WalletState, load, writes_of
from sidecar.core.limits import COUNT_MAX, NEVER_US
from sidecar.core.limits.base import Write
from sidecar.core.price import wallet as wallets
from sidecar.core.price.wallet import Grant, Posting, Wallet, in_burn_order

GRANTS_MAX, REMEMBERED, FORGOTTEN = 64, 1_000, 100


class Changed(NamedTuple):
    """The result `done`, the amount `moved`, the wallet after it, and the values to store.

    done: made, there (made before with the same figures), other (made before with other figures), past (it has
    expired), many (64 grants are not used up), full (all grants together would exceed AMOUNT_MAX); void, gone (used
    up, expired or void before), unknown; swept (only expired grants were removed).
    """

    done: str
    moved: int
    wallet: Wallet
    writes: list[Write]


def grant(state: Mapping[str, Any], keys: tuple[str, ...], wanted: Grant, now_us: int) -> Changed:
    """Add `wanted`, which pays the debt first. Its `remaining` and `made_us` are set here."""
    loaded = load(state, keys[:4], now_us, releasing=True)
    made = wanted._replace(remaining=wanted.amount, made_us=now_us)
    known: Mapping[bytes, Grant] = state.get(keys[4], {})
    given = known.get(made.id.encode())
    if given is not None:
        return _changed(state, loaded, "there" if _figures(given) == _figures(made) else "other")
    if 0 < made.expires_us <= now_us:
        return _changed(state, loaded, "past")
    loaded, refusal = _with_room(loaded, made.amount)
    if refusal:
        return _changed(state, loaded, refusal)
    wallet, postings = wallets.add(loaded.wallet, made, now_us)
    if made.starts_us <= now_us:
        wallet = wallet._replace(topped=(now_us, max(wallets.available(wallet, now_us), 0), made.id))
    loaded = loaded._replace(wallet=wallet, postings=[*loaded.postings, *postings])
    changed = _changed(state, loaded, "made", made.amount)
    return changed._replace(writes=[*changed.writes, *_remembered(known, keys[4], made, wallet)])


def void(state: Mapping[str, Any], keys: tuple[str, ...], id_: str, now_us: int) -> Changed:
    """Remove the rest of the grant `id_`."""
    loaded = load(state, keys[:4], now_us, releasing=True)
    match = next((each for each in loaded.wallet.grants if each.id == id_), None)
    if match is None:
        return _changed(state, loaded, "gone" if id_.encode() in state.get(keys[4], {}) else "unknown")
    return _changed(state, _without(loaded, match, "void"), "void", match.remaining)


def expire_grants(state: Mapping[str, Any], keys: tuple[str, ...], now_us: int) -> Changed:
    """Remove expired grants and release overdue holds, as every other change does first."""
    return _changed(state, load(state, keys[:4], now_us, releasing=True), "swept")


def _changed(state: Mapping[str, Any], loaded: WalletState, done: str, moved: int = 0) -> Changed:
    writes = writes_of(state, loaded)
    stored = next((value for key, member, value, _ in writes if key == loaded.keys[0] and member is None), loaded.was)
    return Changed(done, moved, stored, writes)


def _with_room(loaded: WalletState, amount: int) -> tuple[WalletState, str]:
    """The wallet with room for `amount` more, without some used-up grants; or the reason to refuse."""
    grants = in_burn_order(loaded.wallet.grants)
    total = amount + sum(each.amount for each in grants)
    going: list[Grant] = []
    for each in grants:
        if len(grants) - len(going) < GRANTS_MAX and total <= COUNT_MAX:
            break
        if not each.remaining:
            going.append(each)
            total -= each.amount
    if len(grants) - len(going) >= GRANTS_MAX:
        return loaded, "many"
    if total > COUNT_MAX:
        return loaded, "full"
    for each in going:
        loaded = _without(loaded, each, "expire")
    return loaded, ""


def _without(loaded: WalletState, gone: Grant, kind: str) -> WalletState:
    """The wallet without a grant. The removal has a posting, even of 0, so that the ledger can be replayed."""
    others = tuple(each for each in loaded.wallet.grants if each.id != gone.id)
    posting = Posting(kind, gone.id, -gone.remaining)
    return loaded._replace(wallet=loaded.wallet._replace(grants=others), postings=[*loaded.postings, posting])


def _remembered(known: Mapping[bytes, Grant], key: str, made: Grant, wallet: Wallet) -> list[Write]:
    """The writes that remember the grant. Beyond REMEMBERED, the oldest that are not in the wallet are forgotten."""
    writes: list[Write] = [(key, made.id.encode(), made, NEVER_US)]
    if len(known) + 1 > REMEMBERED:
        here = {each.id.encode() for each in wallet.grants}
        old = sorted((each.made_us, id_) for id_, each in known.items() if id_ not in here)
        writes += [(key, id_, None, 0) for _, id_ in old[:FORGOTTEN]]
    return writes


def _figures(given: Grant) -> tuple[int, ...]:
    """The figures of a grant in a command, beside its id."""
    return given[1:5] + given[6:8]
