"""Checks between the parts of a policy: unknown names, routes that tie, one counter id for two different limits.

Each check yields its faults and continues, so that one load reports all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sidecar.config import exclusions, limits, meters, plans, routes
from sidecar.config.document import did_you_mean
from sidecar.config.exclusions import ExclusionDoc
from sidecar.config.meters import MeterDoc
from sidecar.config.names import At, Names
from sidecar.config.plans import CustomerDoc, Offer, PlanDoc
from sidecar.config.routes import DEFAULT_ROUTE, RouteDoc
from sidecar.config.wallet_units import UnitDoc, unused_faults
from sidecar.core.errors import Fault
from sidecar.core.policy import Limit
from sidecar.core.usage import REQUESTS

Offers = dict[tuple[str, str], Offer]
"""By (customer, plan); those of plans themselves have the customer ""."""


class Parts(NamedTuple):
    """The definitions of all documents of a policy, by name, with their locations."""

    meters: dict[str, tuple[At, MeterDoc]]
    routes: dict[str, tuple[At, RouteDoc]]
    exclusions: dict[str, tuple[At, ExclusionDoc]]
    plans: dict[str, tuple[At, PlanDoc]]
    customers: dict[str, tuple[At, CustomerDoc]]
    units: dict[str, tuple[At, UnitDoc]]


def names_of(parts: Parts, upstreams: set[str], *, region: str) -> Names:
    """The names that the parts may refer to."""
    return Names(
        upstreams=frozenset(upstreams),
        region=region,
        routes=frozenset(parts.routes.keys() or {DEFAULT_ROUTE.id}),
        meters=frozenset({*parts.meters, REQUESTS.id}),
        gauges={name: doc.aggregate for name, (_, doc) in parts.meters.items() if doc.aggregate not in meters.ADDITIVE},
        sized=frozenset(
            name
            for name, (_, doc) in parts.meters.items()
            if isinstance(doc.value, str) and doc.value.endswith("bytes")
        ),
        plans=frozenset(parts.plans),
        features=frozenset(feature for _, doc in _sold(parts) for feature in doc.features),
        adapters=frozenset(doc.usage for _, doc in parts.routes.values() if doc.usage is not None),
        currencies={name: doc.currency or "" for name, (_, doc) in parts.plans.items()},
        units=parts.units,
    )


def faults_of(parts: Parts, offers: Offers, names: Names, path: Path) -> Iterator[Fault]:
    """All faults of a policy whose documents are each well formed. `path` is the file or directory that was loaded."""
    for at, meter in parts.meters.values():
        yield from meters.faults_of(at, meter, names)
    yield from meters.sum_faults(parts.meters)
    for at, route in parts.routes.values():
        yield from routes.faults_of(at, route, names)
    if not parts.routes and "default" not in names.upstreams:
        what = f"has no routes, so all goes to the upstream 'default'; {did_you_mean('default', names.upstreams)}"
        yield Fault(str(path), 0, "", what)
    yield from routes.tie_faults(parts.routes.values())
    for at, exclusion in parts.exclusions.values():
        yield from exclusions.faults_of(at, exclusion, names)
    yield from unused_faults(parts.units, [unit for offer in offers.values() for unit in plans.units_of(offer)])
    wrong: set[tuple[str | int, ...]] = set()
    for at, doc in _sold(parts):
        for fault in plans.faults_of(at, doc, names):
            wrong.add(at.loc)
            yield fault
    # An offer can only be checked where each of its parts is valid.
    right = [offer for offer in offers.values() if not wrong & {offer.at.loc, offer.base.loc}]
    for offer in right:
        yield from plans.offer_faults(offer, names)
    yield from _shared_limits(right)


def _sold(parts: Parts) -> list[tuple[At, PlanDoc | CustomerDoc]]:
    return [*parts.plans.values(), *parts.customers.values()]


def offers_of(parts: Parts) -> Offers:
    """The offer of every plan, under ("", its id), and of every customer with its own terms, under (customer, plan)."""
    made = {("", name): plans.offer_of(at, doc, parts.units) for name, (at, doc) in parts.plans.items()}
    for name, (at, doc) in parts.customers.items():
        if ("", doc.plan) in made:
            made[name, doc.plan] = plans.customised(made["", doc.plan], at, doc)
    return made


def _shared_limits(offers: list[Offer]) -> Iterator[Fault]:
    """Faults of ids with unlike limits: an id is one counter, also after a change of plan, so its limits must agree."""
    first: dict[str, tuple[At, Limit]] = {}
    for offer in offers:
        for here, limit in offer.compiled_limits:
            there, other = first.setdefault(limit.id, (here, limit))
            ours, theirs = limits.identity_of(limit), limits.identity_of(other)
            unlike = [
                f"{name} {ours[name]} here, {theirs.get(name)} there" for name in ours if ours[name] != theirs.get(name)
            ]
            if unlike:
                what = f"'{limit.id}' is the counter of {there} too, but differs ({'; '.join(unlike)})"
                yield here.fault(f"{what}: make them alike, or give one another id", "id")
