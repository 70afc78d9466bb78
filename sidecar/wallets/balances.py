"""Reports the prices that balances pay, and how far below zero a balance can go, before anything runs.

A balance goes below zero only by what is known too late: what an exchange under way used beyond what was held for it.
The figure holds for exchanges that end before their hold expires and that use no more than a `ceiling` that is set.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from sidecar.config import plans
from sidecar.config.compile import Loaded
from sidecar.config.plans import Offer
from sidecar.config.prices import PriceDoc, describe, price_of
from sidecar.config.settings import Settings
from sidecar.config.wallet_units import digits_of
from sidecar.core.limits import KINDS, Limit
from sidecar.core.limits.base import SLOTS, WALLET
from sidecar.core.policy import Route, Terms
from sidecar.core.price import Price, highest_unit_price, rate
from sidecar.core.price.decimals import decimal_of
from sidecar.core.usage import Measured, MeterRule, Usage
from sidecar.core.usage.ai import SUMS

_ANSWER: Final = frozenset({"output_total", *SUMS["output_total"]})

_ESTIMATED: Final = frozenset({"output", "output_total"})  # from what the request allows, else from its route


class Shortfall(NamedTuple):
    """The most that exchanges under way can owe; None where that has no bound, because of `meters`."""

    amount: int | None
    meters: tuple[str, ...] = ()


def prices(loaded: Loaded) -> list[dict[str, Any]]:
    """Every price as people read it, and what pays for it: a balance, or "", where it is rated downstream."""
    return [
        {
            "plan": plan,
            "customer": customer,
            "meter": meter,
            "price": _described(offer, price),
            "period": offer.plan.prices_period,
            "paid_by": next(
                (limit.id for _, limit in offer.limits if limit.balance == plans.unit_of(offer, price)), ""
            ),
        }
        for (customer, plan), offer in loaded.offers.items()
        for meter, (at, price) in offer.prices.items()
        if not customer or at.loc[0] == "customers"
    ]


def _described(offer: Offer, price: PriceDoc) -> str:
    unit = plans.unit_of(offer, price)
    digits = digits_of(offer.units, unit)
    return describe(price_of(price, digits), unit, digits)


def balances(loaded: Loaded, settings: Settings) -> list[dict[str, Any]]:
    """Every balance of every plan, and of every customer's own terms."""
    return [
        _balance(loaded, settings, Held(customer, plan, offer, limit))
        for (customer, plan), offer in loaded.offers.items()
        for _, limit in offer.compiled_limits
        if KINDS[limit.kind].stored_as == WALLET
    ]


class Held(NamedTuple):
    """A balance in a plan, or in a customer's own terms."""

    customer: str
    plan: str
    offer: Offer
    limit: Limit


def _balance(loaded: Loaded, settings: Settings, held: Held) -> dict[str, Any]:
    limit = held.limit
    refuses = limit.over == "deny" and limit.stage == "enforce"
    each = shortfall(loaded, settings, held) if refuses else Shortfall(None)
    at_once = _at_once(loaded, held)
    total = None if each.amount is None or at_once is None else each.amount * at_once
    return {
        "plan": held.plan,
        "customer": held.customer,
        "id": limit.id,
        "unit": limit.unit,
        "digits": limit.digits,
        "over": limit.over,
        "stage": limit.stage,
        "routes": sorted(limit.routes) or ["all"],
        "hold_expires_us": limit.period_us,
        "below_zero_per_exchange": None if each.amount is None else decimal_of(each.amount, limit.digits, 2),
        "below_zero_in_total": None if total is None else decimal_of(total, limit.digits, 2),
        "at_once": at_once,
        "unbounded_by": list(each.meters),
        "while_redis_is_away": decimal_of(limit.offline, limit.digits, 2) if refuses else None,
        "link": limit.link,
    }


def shortfall(loaded: Loaded, settings: Settings, held: Held) -> Shortfall:
    """By how much one exchange may turn out dearer than what was held for it, on the most expensive route."""
    routes = [_on_route(loaded, settings, held, terms) for terms in _terms(loaded, held)]
    unbounded = sorted({meter for each in routes for meter in each.meters})
    if unbounded:
        return Shortfall(None, tuple(unbounded))
    return Shortfall(max((each.amount or 0 for each in routes), default=0))


def _terms(loaded: Loaded, held: Held) -> Iterator[Terms]:
    """The terms of the routes on which the balance pays."""
    for route in loaded.policy.routes:
        terms = loaded.policy.terms(held.plan, route, held.customer)
        if terms is not None and held.limit in terms.limits:
            yield terms


def _on_route(loaded: Loaded, settings: Settings, held: Held, terms: Terms) -> Shortfall:
    total, unbounded = 0, []
    known = {meter.id for meter in terms.meters if meter.known}
    for limit in terms.limits:
        if limit.price is None or limit.unit != held.limit.unit:
            continue
        _, price = held.offer.prices[limit.meter]
        most = price.ceiling or _most(loaded.rules[limit.meter], terms.route, settings)
        if limit.meter in known:
            total += _charge(limit.price, 0)
        elif most is None:
            unbounded.append(f"{limit.meter} on {terms.route.id}")
        else:
            total += _charge(limit.price, max(0, most - _held(limit, loaded.rules[limit.meter], terms.route)))
    return Shortfall(None, tuple(unbounded)) if unbounded else Shortfall(total)


def _most(rule: MeterRule, route: Route, settings: Settings) -> int | None:
    """The most units that one exchange can use of what is not known on arrival; None: that is not bounded."""
    value = rule.value
    if isinstance(value, Usage) and value.kind in _ANSWER:
        return route.ceiling
    if isinstance(value, Measured) and value.source == "request.bytes":
        return route.max_body_bytes or settings.http.body_max_bytes or None
    return None


def _held(limit: Limit, rule: MeterRule, route: Route) -> int:
    """The fewest units that are held for what is not known on arrival, where it is not known to be less."""
    estimated = isinstance(rule.value, Usage) and rule.value.kind in _ESTIMATED
    return min(route.default_output, route.ceiling) if estimated else limit.reserve


def _charge(price: Price, units: int) -> int:
    """At most what `units` more add to a charge, whatever it is before; so also what giving units back can add."""
    # A whole charge is rounded once, so a part of it may be one more; and a volume price has steps in both ways.
    tiers = zip(price.tiers, price.tiers[1:], strict=False)
    steps = sum(-(-abs(after.amount - tier.amount) * (tier.up_to or 0) // price.per) for tier, after in tiers)
    rounding = int(price.per > 1 and price.kind != "package" and units > 0)
    return rate(highest_unit_price(price), units) + rounding + (steps if price.kind == "volume" else 0)


def _at_once(loaded: Loaded, held: Held) -> int | None:
    """How many exchanges of one customer can be under way on the balance's routes; None where no limit bounds them."""
    chosen: dict[str, int] = {}
    for terms in _terms(loaded, held):
        slots = [limit for limit in terms.limits if KINDS[limit.kind].stored_as == SLOTS and _bounds_customer(limit)]
        if not slots:
            return None
        least = min(slots, key=lambda limit: limit.amount)
        chosen[least.id] = least.amount
    return sum(chosen.values())


def _bounds_customer(limit: Limit) -> bool:
    return limit.scope == "customer" and limit.over == "deny" and limit.stage == "enforce"
