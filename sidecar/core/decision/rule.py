"""The rule: first every limit is evaluated, then all are charged or none.

An id has one verdict and is charged once, however often it is sent; a settle is final. Both are kept in the *mark* of
an id, under the customer's key for the time in which the id was made. Nothing is changed here: the changes to store are
returned with the decision. evaluate.py and wallet_charges.py have examples in figures.

Values that a state holds: a count (window, quota, priced), (µs, 1/n µs) of the theoretical arrival time (rate), id ->
expiry in µs of its slot (concurrency), id -> verdict (marks); of a balance the `Wallet`, its ledger (number -> posting
and balance) and id -> `Hold`.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from typing import Any

from sidecar.core.decision import wallet_charges
from sidecar.core.decision.answer import Decision
from sidecar.core.decision.evaluate import STEPS, Steps, verdict_of
from sidecar.core.decision.wallet_charges import Hold, WalletState
from sidecar.core.limits import COUNT_MAX, Checks
from sidecar.core.limits.base import WALLET, Evaluation, Write

MARK_LIFE_US = 180_000_000  # how long a mark outlives the last write to its bucket

_NO_EVALUATIONS: Any = ((),) * 7

__all__ = ["MARK_LIFE_US", "Write", "changes_nothing", "reserve", "settle"]


def reserve(
    state: Mapping[str, Any], id_: bytes, checks: Checks, now_us: int, *, force: bool = False
) -> tuple[Decision | None, list[Write]]:
    """Ask all of `checks` for the exchange `id_` (26 bytes): the decision, and the changes to store.

    None where a window of `checks` is not that of `now_us`. `force` charges without asking: counts what was let
    through while the store was away, in the windows given; takes no slot, and fills a rate beyond its burst.
    """
    if not force and not checks.from_us <= now_us < checks.until_us:
        return None, []
    steps = STEPS.of(checks)
    bucket = checks.marks + id_[:7].decode()
    marks = state.get(bucket)
    mark = marks.get(id_) if marks else None
    if checks.has_wallet:
        wallets = _load(state, checks, now_us)
        evaluations = _evaluated(state, steps, wallets, now_us, force=force)
        charged = _charge(checks, wallets, evaluations, id_, now_us)
        if mark is None and _is_holding(state, wallets, id_):
            mark = "0"  # its mark has gone, its hold has not
    else:
        evaluations = [evaluate(state, now_us) for evaluate in (steps.forced if force else steps.evaluators)]
    denies, remaining, reset_us, left, left_us, values, expiries = (
        zip(*evaluations, strict=True) if evaluations else _NO_EVALUATIONS
    )
    if mark is not None and not (force and _is_denied(mark)):
        verdict = int(mark.lstrip("s"))
        return Decision(checks, now_us, remaining, reset_us, verdict), []
    verdict = verdict_of(steps.roles, denies) if True in denies and not force else 0
    if verdict % 64:
        writes = _expired(state, wallets) if checks.has_wallet else []
        decision = Decision(checks, now_us, remaining, reset_us, verdict)
    else:
        writes = _paid(state, checks, evaluations, charged, id_, now_us) if checks.has_wallet else []
        for index, key, is_slot in steps.charges:
            if not is_slot:
                writes.append((key, None, values[index], expiries[index]))
            elif not force:
                writes.append((key, id_, values[index], expiries[index]))
        decision = Decision(checks, now_us, left, left_us, verdict)
    writes.append((bucket, id_, str(verdict) if verdict else "0", now_us + MARK_LIFE_US))
    return decision, writes


def settle(
    state: Mapping[str, Any], id_: bytes, checks: Checks, actual: Sequence[int], now_us: int, age_us: int
) -> list[Write]:
    """Replace what the exchange `id_`, made `age_us` ago, reserved by `actual[i]` units: the changes to store.

    Without a reservation nothing is charged, and one that comes later charges nothing. A mark that has gone by its age
    is taken as reserved: only its own exchange knows the id. Where `costs` are 0 there is nothing to reserve, and no
    mark is needed: that is how a leased exchange is settled. A hold that is no longer there was released, so what a
    balance pays for is charged in full.
    """
    bucket = checks.bucket(id_)
    mark = state.get(bucket, {}).get(id_)
    if mark is not None and mark[0] == "s":
        return []
    final = (bucket, id_, f"s{mark or 0}", now_us + MARK_LIFE_US)
    if (age_us <= MARK_LIFE_US and any(checks.costs)) if mark is None else _is_denied(mark):
        return [final]
    corrections = [
        check.kind.correction(state, check, id_, units, age_us, now_us)
        for check, units in zip(checks.entries, actual, strict=True)
    ]
    writes = [write for write in corrections if write is not None]
    if checks.has_wallet:
        writes += _settled(state, id_, checks, actual, now_us)
    return [*writes, final]


def changes_nothing(checks: Checks, actual: Sequence[int]) -> bool:
    """Whether a settle need not be sent: what was reserved was used, and no slot or money is held."""
    return not checks.must_settle and tuple(actual) == checks.costs


def _is_denied(mark: str) -> bool:
    return mark[0] != "s" and int(mark) % 64 > 0


# Wallets, where there are any.

_Wallets = dict[int, WalletState]


def _load(state: Mapping[str, Any], checks: Checks, now_us: int) -> _Wallets:
    return {
        index: wallet_charges.load(state, check.keys, now_us, releasing=True)
        for index, check in enumerate(checks.entries)
        if check.kind.stored_as == WALLET
    }


def _evaluated(
    state: Mapping[str, Any], steps: Steps, wallets: _Wallets, now_us: int, *, force: bool
) -> list[Evaluation]:
    """The evaluation of each limit but a balance, with the counters as they are after releases."""
    seen = ChainMap({}, *(wallet.counters for wallet in wallets.values()), state)  # type: ignore[arg-type] # only read
    return [evaluate(seen, now_us) for evaluate in (steps.forced if force else steps.evaluators)]


def _is_holding(state: Mapping[str, Any], wallets: _Wallets, id_: bytes) -> bool:
    return any(id_ in state.get(wallet.keys[3], ()) and id_ not in wallet.released for wallet in wallets.values())


def _charge(checks: Checks, wallets: _Wallets, evaluations: list[Evaluation], id_: bytes, now_us: int) -> _Wallets:
    """The wallets if all is charged. The evaluation of each balance replaces its place in `evaluations`."""
    charged = {}
    for index, wallet in wallets.items():
        due = sum(part.charge for part in wallet_charges.parts_of(checks.entries, evaluations, index))
        limit = checks.entries[index].limit
        evaluations[index], charged[index] = wallet_charges.charge(wallet, limit, id_, due, now_us)
    return charged


def _expired(state: Mapping[str, Any], wallets: _Wallets) -> list[Write]:
    """The changes on a denial: nothing is charged, but grants and holds may have expired."""
    return [write for wallet in wallets.values() for write in wallet_charges.writes_of(state, wallet)]


def _paid(
    state: Mapping[str, Any],
    checks: Checks,
    evaluations: list[Evaluation],
    charged: _Wallets,
    id_: bytes,
    now_us: int,
) -> list[Write]:
    writes = []
    for index, wallet in charged.items():
        writes += wallet_charges.writes_of(state, wallet)
        parts = wallet_charges.parts_of(checks.entries, evaluations, index)
        if parts:
            expires_us = now_us + checks.entries[index].limit.period_us
            hold = Hold(expires_us, sum(part.charge for part in parts), parts)
            writes.append(wallet_charges.hold_write(wallet, id_, hold))
    return writes


def _settled(state: Mapping[str, Any], id_: bytes, checks: Checks, actual: Sequence[int], now_us: int) -> list[Write]:
    """Priced counters and their wallets, moved from what is held to the actual amount."""
    writes: list[Write] = []
    for payer in sorted({check.payer for check in checks.entries} - {-1}):
        keys, due = checks.entries[payer].keys, 0
        hold: Hold | None = state.get(keys[3], {}).get(id_)
        held = {part.key: part.charge for part in hold.parts} if hold is not None else {}
        charges: list[str] = []
        for check, used in zip(checks.entries, actual, strict=True):
            if check.payer != payer:
                continue
            key, base, units = check.keys[0], check.cost if hold is not None else 0, min(used, COUNT_MAX)
            after, more = wallet_charges.corrected(check.limit, state.get(key, base), units - base)
            due += more
            if units != base:
                writes.append((key, None, after, check.kind.expiry_us(check.limit, check.window)))
            amount = held.pop(key, 0) + more
            if units or amount:
                charges.append(f"{check.limit.meter} {units} {amount}")
        if rest := sum(held.values()):
            charges.append(f"* 0 {rest}")  # held by a counter of another window
        wallet = wallet_charges.load(state, keys, now_us, releasing=False)
        paid = wallet_charges.settled(wallet, id_, due, " ".join(charges), now_us)
        writes += wallet_charges.writes_of(state, paid)
        writes.append((keys[3], id_, None, 0))
    return writes
