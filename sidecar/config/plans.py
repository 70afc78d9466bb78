"""Plans in policy documents, a customer's own terms on top of one, and the limits that result.

A balance pays for what is priced in its unit: each price becomes a limit of kind `priced` just before it, with a
counter of its own, so that an edit of a price resets nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from sidecar.config import limits, prices
from sidecar.config.limits import LimitDoc
from sidecar.config.models import PLAIN_DEFAULTS, Model
from sidecar.config.names import At, Names, unknown
from sidecar.config.patterns import Name
from sidecar.config.prices import PriceDoc
from sidecar.config.values import Amount, Calendar, Unit, Version
from sidecar.config.wallet_units import Units, digits_of
from sidecar.core.errors import Fault
from sidecar.core.limits import KINDS, LIMITS_MAX
from sidecar.core.limits.base import WALLET
from sidecar.core.policy import Limit

SEATS_MAX: Final = 1_000_000
_GRANTS: Final = (
    "grants are made with `sidecar wallet grant`; here is only what pays: limits: [{ id: credit, balance: usd }]"
)

Prices = Annotated[dict[Name, PriceDoc], Field(default_factory=dict)]


class PlanDoc(Model):
    """A named bundle of limits, features and prices. `version` is the part of its label after the @; else a short hash.

    `prices` are by meter, in `currency`. `prices_period` is the period in which tiers and included units are counted.
    `anchor` and `zone` apply to the plan's periods: of its prices, and of quotas without their own. `show_usage` is
    what a client sees at the usage path: `own` leaves out limits and balances of the customer.
    """

    model_config = PLAIN_DEFAULTS

    moved_fields: ClassVar = {
        "price": "write prices: { <meter>: { per_unit: … } }",
        "balance": "a balance is a limit: write limits: [{ id: credit, balance: usd }]",
        "wallet": _GRANTS,
        "grants": _GRANTS,
        "seats": "seats are a customer's: write them under customers",
    }

    version: Version | None = None
    limits: tuple[LimitDoc, ...] = ()
    features: tuple[Name, ...] = ()
    currency: Unit | None = None
    prices: Prices
    prices_period: Calendar = "month"
    anchor: Literal["subscription", "calendar"] | None = None
    zone: str | None = None
    show_usage: Literal["all", "own", "off"] = "all"


class CustomerDoc(Model):
    """Terms of one customer on top of a plan: limits replace those of the same id, prices those of the same meter.

    Others are added, and so are features. `seats` multiply the limits that are `per_seat`.
    """

    model_config = PLAIN_DEFAULTS

    moved_fields: ClassVar = {"wallet": _GRANTS, "grants": _GRANTS}

    plan: Name
    version: Version | None = None
    seats: Annotated[Amount, Field(le=SEATS_MAX)] = 1
    limits: tuple[LimitDoc, ...] = ()
    features: tuple[Name, ...] = ()
    prices: Prices


@dataclass(frozen=True)
class Offer:
    """A plan, or a customer's own terms merged into it; each part with its location.

    `base` is the location of the plan, `at` that of the customer, or again of the plan. `units` have a scale of
    their own.
    """

    at: At
    base: At
    plan: PlanDoc
    limits: tuple[tuple[At, LimitDoc], ...]
    prices: Mapping[str, tuple[At, PriceDoc]]
    features: frozenset[str]
    units: Units
    seats: int = 1

    @cached_property
    def compiled_limits(self) -> tuple[tuple[At, Limit], ...]:
        """The limits in their order, each balance after the prices that it pays for. All parts must be valid.

        Compiled on first use, and once: checks, the policy and its report read the same limits.
        """
        return tuple(_compiled(self))


def offer_of(at: At, plan: PlanDoc, units: Units) -> Offer:
    """A plan as it is."""
    return Offer(at, at, plan, _placed(at, plan), _priced(at, plan), frozenset(plan.features), units)


def customised(offer: Offer, at: At, customer: CustomerDoc) -> Offer:
    """A customer's own terms on top of a plan's."""
    own = {doc.id: (place, doc) for place, doc in _placed(at, customer)}
    inherited = tuple(own.pop(doc.id, (place, doc)) for place, doc in offer.limits)
    return Offer(
        at,
        offer.at,
        offer.plan,
        (*inherited, *own.values()),
        {**offer.prices, **_priced(at, customer)},
        offer.features | frozenset(customer.features),
        offer.units,
        customer.seats,
    )


def _placed(at: At, doc: PlanDoc | CustomerDoc) -> tuple[tuple[At, LimitDoc], ...]:
    return tuple((at.at("limits", index), limit) for index, limit in enumerate(doc.limits))


def _priced(at: At, doc: PlanDoc | CustomerDoc) -> dict[str, tuple[At, PriceDoc]]:
    return {meter: (at.at("prices", meter), price) for meter, price in doc.prices.items()}


# --- Faults ----------------------------------------------------------------------------------------------------------


def faults_of(at: At, doc: PlanDoc | CustomerDoc, names: Names) -> Iterator[Fault]:
    """Faults of a plan or a customer by itself: of each of its limits and prices."""
    placed = _placed(at, doc)
    for place, limit in placed:
        yield from _limit_faults(place, limit, names)
    currency = names.currencies.get(doc.plan, "") if isinstance(doc, CustomerDoc) else doc.currency
    for meter, (place, price) in _priced(at, doc).items():
        yield from unknown(place, meter, names.meters)
        yield from prices.faults_of(place, price, digits_of(names.units, price.currency or currency or ""))
    seen: dict[str, At] = {}
    for place, limit in placed:
        first = seen.setdefault(limit.id, place)
        if first != place:
            yield place.fault(f"'{limit.id}' is already a limit of this plan, at {first}", "id")
    if isinstance(doc, CustomerDoc):
        yield from unknown(at, doc.plan, names.plans, "plan")
    elif doc.zone is not None and not limits.is_known_zone(doc.zone):
        yield at.fault(limits.unknown_zone(doc.zone), "zone")


def _limit_faults(at: At, limit: LimitDoc, names: Names) -> Iterator[Fault]:
    meter = limit.meter or "requests"
    if (kind := limits.kind_of(limit)) is not None and KINDS[kind].is_metered:
        yield from unknown(at, meter, names.meters, "meter")
        if meter in names.gauges:
            what = f"'{meter}' is a {names.gauges[meter]}, which only the records of its whole period say"
            yield at.fault(f"{what}: limit a meter that is a sum or a count", "meter")
    digits = digits_of(names.units, limit.balance or "")
    wrong = list(limits.faults_of(limit, sized=meter in names.sized, digits=digits))
    for field, what in wrong or limits.inexact(limit, digits=digits):
        yield at.fault(what, *((field,) if field else ()))
    for index, route in enumerate(limit.routes or ()):
        yield from unknown(at, route, names.routes, "routes", index)


def offer_faults(offer: Offer, names: Names) -> Iterator[Fault]:
    """Faults between the parts of a plan, or of a customer's terms, whose parts are each valid."""
    if offer.seats > 1:
        yield from _seat_faults(offer)
    for at, price in offer.prices.values():
        if not unit_of(offer, price):
            yield at.fault("is in which currency? write for example currency: usd beside the plan's prices")
    paid: dict[str, At] = {}
    for at, limit in offer.limits:
        if limit.balance is not None:
            yield from _balance_faults(offer, at, limit, paid)
            for meter, (place, price) in offer.prices.items():
                if meter in names.gauges and unit_of(offer, price) == limit.balance:
                    what = f"'{meter}' is a {names.gauges[meter]}, so no balance can pay for it while it is used"
                    yield place.fault(f"{what}: give its price another currency than {limit.balance}")
    first_of: dict[str, At] = {}
    counted = offer.compiled_limits
    for at, counter in counted:
        first = first_of.setdefault(counter.id, at)
        if first != at:
            yield at.fault(f"'{counter.id}' is the counter of {first} too: give one another id")
    for route in sorted(names.routes):
        many = sum(not limit.routes or route in limit.routes for _, limit in counted)
        if many > LIMITS_MAX:
            yield offer.at.fault(f"has {many} limits and paid prices on route '{route}': at most {LIMITS_MAX}")


def _seat_faults(offer: Offer) -> Iterator[Fault]:
    seated = [(at, limit) for at, limit in offer.limits if limit.per_seat]
    if not seated:
        yield offer.at.fault("multiply limits that are per_seat: true, and the plan has none", "seats")
    for at, limit in seated:
        for field, what in limits.inexact(limit, seats=offer.seats):
            yield at.fault(f"for {offer.seats} seats: {what}", field)


def _balance_faults(offer: Offer, at: At, limit: LimitDoc, paid: dict[str, At]) -> Iterator[Fault]:
    unit = limit.balance or ""
    units = sorted({unit_of(offer, price) for _, price in offer.prices.values()} - {""})
    first = paid.setdefault(unit, at)
    if first != at:
        yield at.fault(f"'{unit}' is paid for by {first} already: one balance for each unit", "balance")
    if unit not in units:
        others = f"prices in {', '.join(units)}" if units else "no prices"
        what = f"pays for prices in {unit}, but the plan has {others}: write them under its prices"
        yield at.fault(what, "balance")


# --- Compiled limits ------------------------------------------------------------------------------------------------


def _compiled(offer: Offer) -> Iterator[tuple[At, Limit]]:
    for at, doc in offer.limits:
        digits = digits_of(offer.units, doc.balance or "")
        limit = limits.compiled(_with_periods(offer.plan, doc), seats=offer.seats, digits=digits)
        if KINDS[limit.kind].stored_as == WALLET:
            yield from _paid(offer, limit)
        yield at, limit


def _with_periods(plan: PlanDoc, doc: LimitDoc) -> LimitDoc:
    """A quota without an anchor or a zone gets that of the plan."""
    if doc.quota is None or not (plan.anchor or plan.zone):
        return doc
    return doc.model_copy(update={"anchor": doc.anchor or plan.anchor, "zone": doc.zone or plan.zone})


def _paid(offer: Offer, balance: Limit) -> Iterator[tuple[At, Limit]]:
    plan = offer.plan
    for meter, (at, price) in offer.prices.items():
        if unit_of(offer, price) == balance.unit:
            yield (
                at,
                replace(
                    balance,
                    id=f"{balance.id}.{meter}",
                    kind="priced",
                    meter=meter,
                    period_us=0,
                    calendar=plan.prices_period,
                    zone=plan.zone or "UTC",
                    anchored=plan.anchor == "subscription",
                    over="allow",
                    stage="enforce",
                    on_store_failure="allow",
                    reserve=price.reserve or 1,
                    price=prices.price_of(price, balance.digits),
                    alerts=(),
                    offline=0,
                    link="",
                ),
            )


def units_of(offer: Offer) -> list[str]:
    """The units of its prices and balances, each once."""
    priced = [unit_of(offer, price) for _, price in offer.prices.values()]
    return sorted({*priced, *(limit.balance or "" for _, limit in offer.limits)} - {""})


def unit_of(offer: Offer, price: PriceDoc) -> str:
    """The currency, or other unit, of a price; "" where none is given."""
    return price.currency or offer.plan.currency or ""
