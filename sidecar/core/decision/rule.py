"""The rule: first every limit is looked at, then all are charged or none.

An id has one verdict and is charged once, however often it is sent; a settle is final. Nothing is changed here: what
to store comes back with the decision.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from typing import Any

from sidecar.core.counter import COUNT_MAX, MINUTE_US, Checks, expiry_us, pace_of, shift_of
from sidecar.core.decision import purses
from sidecar.core.decision.answer import Decision, shadowed_of
from sidecar.core.decision.looks import Look, Plan, backlog_of, planned
from sidecar.core.decision.purses import Hold, Purse, Write

MARK_LIFE_US = 180_000_000  # how long a mark outlives the last write to its bucket

_NO_LOOKS: Any = ((),) * 7

__all__ = ["MARK_LIFE_US", "Write", "changes_nothing", "reserve", "settle"]

# A Write is a change of the stored state: (key, member, value, expire_us): a member of the map at a key, or (None) the
# whole value. A value of None removes. Values: a count (window, quota, priced), (µs, 1/n µs) of the theoretical arrival
# time (rate), id → expiry in µs of its slot (concurrency), id → verdict (marks); of a balance the `Wallet`, its ledger
# (number → posting and balance) and id → `Hold`. The expiry is only cleaning; 0 leaves it as it was.


def reserve(
    state: Mapping[str, Any], id_: bytes, checks: Checks, now_us: int, *, force: bool = False
) -> tuple[Decision | None, list[Write]]:
    """Ask all of `checks` for the exchange `id_` (26 bytes): the decision, and what to store.

    None where a window of `checks` is not that of `now_us`. `force` charges without asking: counts what was let
    through while the store was away, in the windows given; takes no slot, and fills a rate no further than full.
    """
    if not force and not checks.from_us <= now_us < checks.until_us:
        return None, []
    plan: Plan = checks.plan or planned(checks)
    bucket = checks.marks + id_[:7].decode()
    marks = state.get(bucket)
    marked = marks.get(id_) if marks else None
    if checks.payers:
        opened = _opened(state, checks, now_us)
        looks = _looked(state, checks, opened, now_us)
        paid = _asked(checks, opened, looks, id_, now_us)
        if marked is None and _holding(state, opened, id_):
            marked = "0"  # its mark has gone, its hold has not
    else:
        looks = [look(state, now_us) for look in plan.looks]
    denies, remaining, reset_us, left, left_us, values, expiries = zip(*looks, strict=True) if looks else _NO_LOOKS
    if marked is not None and not (force and _denied(marked)):
        verdict = int(marked.lstrip("s"))
        return Decision(checks, now_us, remaining, reset_us, verdict % 64 - 1, shadowed_of(verdict // 64)), []
    verdict = _verdict(plan.roles, denies) if True in denies and not force else 0
    if verdict % 64:
        writes = _kept(state, opened) if checks.payers else []
        decision = Decision(checks, now_us, remaining, reset_us, verdict % 64 - 1, shadowed_of(verdict // 64))
    else:
        writes = _paying(state, checks, looks, paid, id_, now_us) if checks.payers else []
        for index, key, is_slot in plan.charges:
            if not is_slot:
                writes.append((key, None, values[index], expiries[index]))
            elif not force:
                writes.append((key, id_, values[index], expiries[index]))
        decision = Decision(checks, now_us, left, left_us, -1, shadowed_of(verdict // 64) if verdict else ())
    writes.append((bucket, id_, str(verdict) if verdict else "0", now_us + MARK_LIFE_US))
    return decision, writes


def settle(
    state: Mapping[str, Any], id_: bytes, checks: Checks, truth: Sequence[int], now_us: int, age_us: int
) -> list[Write]:
    """Replace what the exchange `id_`, made `age_us` ago, reserved by `truth[i]` units: what to store.

    Without a reservation nothing is charged, and one that comes later charges nothing. A mark that has gone by its age
    is taken as reserved: only its own exchange knows the id. A hold that is no longer there was given back, so of what
    a balance pays the truth is charged in full.
    """
    bucket = checks.bucket(id_)
    marked = state.get(bucket, {}).get(id_)
    if marked is not None and marked[0] == "s":
        return []
    final = (bucket, id_, f"s{marked or 0}", now_us + MARK_LIFE_US)
    if (age_us <= MARK_LIFE_US) if marked is None else _denied(marked):
        return [final]
    writes = _corrections(state, id_, checks, truth, now_us, age_us)
    if checks.payers:
        writes += _repaid(state, id_, checks, truth, now_us)
    return [*writes, final]


def changes_nothing(checks: Checks, truth: Sequence[int]) -> bool:
    """Whether a settle need not be sent: the truth is what was reserved, and no slot or money is held."""
    return not checks.slots and tuple(truth) == checks.costs


def _verdict(roles: Sequence[int], denies: Sequence[bool]) -> int:
    """0, or 1 + the index of the first limit that denied; above, 64 x a bit for each that only would have."""
    violated = mask = 0
    for index, denied in enumerate(denies):
        if not denied or roles[index] == 1:
            continue
        if roles[index]:
            mask += 1 << index
        else:
            violated = violated or index + 1
    return violated + 64 * mask


def _denied(marked: str) -> bool:
    return marked[0] != "s" and int(marked) % 64 > 0


def _corrections(
    state: Mapping[str, Any], id_: bytes, checks: Checks, truth: Sequence[int], now_us: int, age_us: int
) -> list[Write]:
    writes: list[Write] = []
    for index, limit in enumerate(checks.limits):
        key, cost = checks.keys[index][0], checks.costs[index]
        owed = min(truth[index], COUNT_MAX) - cost
        if limit.kind == "concurrency":
            writes.append((key, id_, None, 0))
        elif limit.kind == "rate":
            pace, (whole_us, rest) = pace_of(limit, cost), shift_of(limit, cost, owed, age_us)
            if whole_us or rest:
                backlog = backlog_of(state.get(key), limit, now_us) + whole_us * pace.parts + rest
                whole_us, rest = divmod(backlog, pace.parts)
                arrival_us = now_us + min(whole_us, pace.ceiling_us)  # before now it is as good as none
                writes.append((key, None, (arrival_us, rest), arrival_us + MINUTE_US))
        elif owed and not (checks.payers and checks.payers[index] >= 0) and limit.kind != "balance":
            used = max(0, min(state.get(key, 0) + owed, COUNT_MAX))
            writes.append((key, None, used, expiry_us(limit, checks.starts_us[index], checks.ends_us[index])))
    return writes


# Balances, where there are any.

_Purses = dict[int, Purse]


def _opened(state: Mapping[str, Any], checks: Checks, now_us: int) -> _Purses:
    return {
        index: purses.opened(state, checks.keys[index], now_us, releasing=True)
        for index, limit in enumerate(checks.limits)
        if limit.kind == "balance"
    }


def _looked(state: Mapping[str, Any], checks: Checks, opened: _Purses, now_us: int) -> list[Look]:
    """What each limit but a balance says, counters as they are after what was released."""
    seen = ChainMap({}, *(purse.counters for purse in opened.values()), state)  # type: ignore[arg-type] # only read
    return [look(seen, now_us) for look in checks.plan.looks]


def _holding(state: Mapping[str, Any], opened: _Purses, id_: bytes) -> bool:
    return any(id_ in state.get(purse.keys[3], ()) and id_ not in purse.released for purse in opened.values())


def _asked(checks: Checks, opened: _Purses, looks: list[Look], id_: bytes, now_us: int) -> _Purses:
    """The purses if all is charged; what each balance says takes its place among `looks`."""
    paid = {}
    for index, purse in opened.items():
        due = sum(part.charge for part in purses.parts_of(checks, looks, index))
        looks[index], paid[index] = purses.asked(purse, checks.limits[index], id_, due, now_us)
    return paid


def _kept(state: Mapping[str, Any], opened: _Purses) -> list[Write]:
    """A denial charges nothing; what has expired has expired all the same."""
    return [write for purse in opened.values() for write in purses.writes_of(state, purse)]


def _paying(
    state: Mapping[str, Any], checks: Checks, looks: list[Look], paid: _Purses, id_: bytes, now_us: int
) -> list[Write]:
    writes = []
    for index, purse in paid.items():
        writes += purses.writes_of(state, purse)
        parts = purses.parts_of(checks, looks, index)
        if parts:
            hold = Hold(now_us + checks.limits[index].period_us, sum(part.charge for part in parts), parts)
            writes.append(purses.held(purse, id_, hold))
    return writes


def _repaid(state: Mapping[str, Any], id_: bytes, checks: Checks, truth: Sequence[int], now_us: int) -> list[Write]:
    """Priced counters and their balances, moved from what is held to the truth."""
    writes: list[Write] = []
    for payer in range(len(checks.limits)):
        if payer not in checks.payers:
            continue
        keys, due = checks.keys[payer], 0
        is_held = id_ in state.get(keys[3], {})
        for index, limit in enumerate(checks.limits):
            if checks.payers[index] == payer:
                key, base = checks.keys[index][0], checks.costs[index] if is_held else 0
                owed = min(truth[index], COUNT_MAX) - base
                after, more = purses.corrected(limit, state.get(key, base), owed)
                due += more
                if owed:
                    expire_us = expiry_us(limit, checks.starts_us[index], checks.ends_us[index])
                    writes.append((key, None, after, expire_us))
        purse = purses.settled(purses.opened(state, keys, now_us, releasing=False), id_, due, now_us)
        writes += purses.writes_of(state, purse)
        writes.append((keys[3], id_, None, 0))
    return writes
