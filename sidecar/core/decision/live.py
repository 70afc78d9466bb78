"""Live limits: what each limit and balance of a caller is now, for people, and which limit binds.

A rate's used units are those of its burst that have not come back; a sliding window's are weighted, rounded up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sidecar.core.decision.peek import Peeked
from sidecar.core.identity import Identity
from sidecar.core.instants import instant
from sidecar.core.limits import Limit
from sidecar.core.limits.base import WALLET
from sidecar.core.policy import Policy
from sidecar.core.price.decimals import decimal_of


@dataclass(frozen=True, slots=True)
class LiveLimit:
    """A limit of `holder`, the value of its scope. Units are the meter's.

    `used` contains units that open exchanges and leases have taken. `window` is its id, such as 2026-11; "": none.
    `resets_us`: when all units, of a rate the whole burst, are there again; 0: unknown. `is_binding`: of the limits
    that deny it is the nearest to its end; none is where a balance denies already.
    """

    limit: Limit
    plan: str
    holder: str
    used: int
    remaining: int
    window: str
    resets_us: int
    is_binding: bool = False


@dataclass(frozen=True, slots=True)
class LiveBalance:
    """A customer's balance in `unit`: amounts in 10^-`digits`. `available` is what requests can use now.

    `held`: what open exchanges hold, which is not available. `expiring` of it is lost at `expires_us` (0: never).
    `is_binding`: nothing is left, so that it denies.
    """

    unit: str
    digits: int
    available: int
    held: int
    expiring: int
    expires_us: int
    is_binding: bool = False


class Live(NamedTuple):
    """The figures of a caller now. `priced` are the units that its balances pay for, by meter, in their windows."""

    limits: list[LiveLimit]
    balances: list[LiveBalance]
    priced: list[LiveLimit]

    def for_client(self, *, only_own: bool) -> Live:
        """Those that a client may see: no limit in stage shadow; `only_own`: nothing of the whole customer."""
        limits = [each for each in self.limits if each.limit.stage != "shadow"]
        if only_own:
            return Live(_with_binding([each for each in limits if each.limit.scope != "customer"]), [], [])
        return Live(limits, self.balances, self.priced)


def limits_of(policy: Policy, identity: Identity) -> list[tuple[Limit, ...]]:
    """Every limit of a caller's plan, on any route that it may use: those of as few routes as have them all."""
    chosen: list[tuple[Limit, ...]] = []
    known: set[str] = set()
    for route in policy.routes:
        terms = policy.terms(identity.plan, route, identity.customer)
        if terms is not None and terms.entitled and not known.issuperset(limit.id for limit in terms.limits):
            chosen.append(terms.limits)
            known.update(limit.id for limit in terms.limits)
    return chosen


def live(peeked: Iterable[Peeked]) -> Live:
    """The figures of the questions of one customer, each limit of each holder once."""
    limits: dict[tuple[str, ...], LiveLimit] = {}
    priced: dict[tuple[str, ...], LiveLimit] = {}
    balances: dict[tuple[str, int], LiveBalance] = {}
    for each in peeked:
        for index, check in enumerate(each.checks.entries):
            limit, identity, left = check.limit, each.checks.identity, each.remaining[index]
            if check.kind.stored_as == WALLET:
                is_binding = left <= 0 and _denies(limit)
                balances[limit.unit, limit.digits] = LiveBalance(
                    limit.unit, limit.digits, left - limit.amount, *each.wallets[index], is_binding
                )
                continue
            resets_us = each.now_us + each.reset_us[index] if each.reset_us[index] else 0
            shown = LiveLimit(
                limit, identity.plan, holder_of(limit, identity), limit.amount - left, left, check.window.id, resets_us
            )
            (priced if check.kind.is_priced else limits)[limit.id, shown.plan, shown.holder] = shown
    is_paid = not any(each.is_binding for each in balances.values())
    every = list(limits.values())
    return Live(_with_binding(every) if is_paid else every, list(balances.values()), list(priced.values()))


def as_document(figures: Live) -> dict[str, Any]:
    """The figures as JSON: units are integers, amounts decimals, times RFC 3339 or None."""
    return {
        "limits": [_limit_document(each) for each in figures.limits],
        "balances": [
            {
                "unit": each.unit,
                "available": decimal_of(each.available, each.digits),
                "held": decimal_of(each.held, each.digits),
                "expiring": decimal_of(each.expiring, each.digits),
                "expires": _moment(each.expires_us),
                "binding": each.is_binding,
            }
            for each in figures.balances
        ],
        "priced": [
            {"meter": each.limit.meter, "used": each.used, "period": each.window, "resets": _moment(each.resets_us)}
            for each in figures.priced
        ],
    }


def usage_document(identity: Identity, plan: str, figures: Live, now_us: int) -> dict[str, Any]:
    """The answer to a caller with a `plan` (its label) at `now_us`, with the link of the limit that binds."""
    links = [each.limit.link for each in figures.limits if each.is_binding and each.limit.link]
    who = {"customer": identity.customer, "subject": identity.subject, "key": identity.key_id, "plan": plan}
    return who | {"as_of": instant(now_us)} | as_document(figures) | ({"link": links[0]} if links else {})


def _limit_document(each: LiveLimit) -> dict[str, Any]:
    limit = each.limit
    return {
        "id": limit.id,
        "meter": limit.meter,
        "scope": limit.scope,
        "holder": each.holder,
        "plan": each.plan,
        "used": each.used,
        "limit": limit.amount,
        "remaining": each.remaining,
        "period": each.window,
        "resets": _moment(each.resets_us),
        "over": limit.over,
        "stage": limit.stage,
        "binding": each.is_binding,
    }


def _moment(time_us: int) -> str | None:
    return instant(time_us) if time_us else None


def holder_of(limit: Limit, identity: Identity) -> str:
    """The value of a limit's scope."""
    return {"key": identity.key_id, "subject": identity.subject}.get(limit.scope, identity.customer)


def _denies(limit: Limit) -> bool:
    return limit.over == "deny" and limit.stage == "enforce"


def _with_binding(limits: Sequence[LiveLimit]) -> list[LiveLimit]:
    """The limits, with the one that has the smallest part of its amount left among those that deny."""
    denying = [each for each in limits if _denies(each.limit)]
    if not denying:
        return list(limits)
    binding = min(denying, key=lambda each: each.remaining / max(each.limit.amount, 1))
    return [replace(each, is_binding=each is binding) for each in limits]
