"""Policy documents become the compiled policy of the core: whole or not at all, every fault at its file and line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sidecar.config import checks
from sidecar.config.checks import Offers, Parts
from sidecar.config.document import Document, Loc, read
from sidecar.config.exclusions import exclusion_of
from sidecar.config.meters import MeterDoc, rule_of
from sidecar.config.models import Model, validate
from sidecar.config.names import At, Names
from sidecar.config.plans import CustomerDoc, Offer
from sidecar.config.policies import PolicyDoc
from sidecar.config.routes import DEFAULT_ROUTE, route_of
from sidecar.config.wallet_units import Units
from sidecar.core.errors import Fault, PolicyError, unreadable
from sidecar.core.policy import Hashes, Plan, Policy
from sidecar.core.price.decimals import DIGITS
from sidecar.core.usage import REQUESTS, Exclusion, MeterRule, PolicySource

SHORT = 8  # hex digits of a version that is made of the content
Meters = Mapping[str, tuple[At, MeterDoc]]


class Loaded(NamedTuple):
    """A compiled policy, its source, and its offers, for commands that explain them.

    `offers` are by (customer, plan); those of plans themselves have the customer "". `units` have a scale of their own.
    `places` are those of the routes, by id; `labels` those of the plans and customers whose version is given, by label.
    """

    policy: Policy
    source: PolicySource
    offers: Mapping[tuple[str, str], Offer]
    units: Units
    places: Mapping[str, At]
    labels: Mapping[str, At]

    @property
    def rules(self) -> Mapping[str, MeterRule]:
        """Its meters, by id."""
        return self.source.rules

    @property
    def exclusions(self) -> tuple[Exclusion, ...]:
        """Its exclusions from the bill."""
        return self.source.exclusions


def load(path: Path, upstreams: set[str], *, region: str = "local") -> Loaded:
    """Load the policy of a file, or of a directory's *.yaml merged in the order of their names.

    `upstreams` are the names that routes may send to; `region` is where this sidecar runs, for look-ups by region.
    PolicyError carries every fault of every file.
    """
    documents, faults = _read_all(path)
    parts, doubles = _merge(documents)
    names = checks.names_of(parts, upstreams, region=region)
    offers = checks.offers_of(parts)
    faults += doubles
    if not faults:
        unique = dict.fromkeys(
            checks.faults_of(parts, offers, names, path)
        )  # customers repeat the faults of their plan
        faults = sorted(unique, key=lambda fault: (fault.file, fault.line))
    if faults:
        raise PolicyError(faults)
    return _compiled(parts, offers, names)


def plan_names(path: Path) -> set[str]:
    """The names of the plans that the documents define; nothing else of them is checked.

    PolicyError: a document is missing or is not YAML.
    """
    names: set[str] = set()
    for file in _policy_files(path):
        data = read(file).data
        plans = data.get("plans") if isinstance(data, dict) else None
        names.update(plans if isinstance(plans, dict) else ())
    return names


# --- Reading and merging ---------------------------------------------------------------------------------------------


def _read_all(path: Path) -> tuple[list[tuple[Document, PolicyDoc]], list[Fault]]:
    documents: list[tuple[Document, PolicyDoc]] = []
    faults: list[Fault] = []
    try:
        files = _policy_files(path)
    except PolicyError as error:
        return [], error.faults
    for file in files:
        try:
            document = read(file)
            documents.append((document, validate(PolicyDoc, document)))
        except PolicyError as error:
            faults += error.faults
    return documents, faults


def _policy_files(path: Path) -> list[Path]:
    """The documents, at least one. A ConfigMap's `..data` and editors' swap files begin with a dot; no sub-directories.

    PolicyError: the directory has no document.
    """
    if not path.is_dir():
        return [path]
    try:
        entries = sorted(path.iterdir())
    except OSError as error:
        raise PolicyError([Fault(str(path), 0, "", unreadable(error))]) from None
    files = [each for each in entries if each.suffix in (".yaml", ".yml") and each.name[0] != "." and each.is_file()]
    if not files:
        what = "has no *.yaml file: put a policy there, or name one with `policies:`"
        raise PolicyError([Fault(str(path), 0, "", what)])
    return files


def _merge(documents: Iterable[tuple[Document, PolicyDoc]]) -> tuple[Parts, list[Fault]]:
    parts = Parts({}, {}, {}, {}, {}, {})
    faults: list[Fault] = []
    for document, doc in documents:
        items: list[tuple[dict[str, Any], str, Loc, Any]] = [
            *((parts.meters, name, ("meters", name), meter) for name, meter in doc.meters.items()),
            *((parts.routes, route.id, ("routes", index), route) for index, route in enumerate(doc.routes)),
            *((parts.exclusions, given.id, ("exclude", index), given) for index, given in enumerate(doc.exclude)),
            *((parts.plans, name, ("plans", name), plan) for name, plan in doc.plans.items()),
            *((parts.customers, name, ("customers", name), own) for name, own in doc.customers.items()),
            *((parts.units, name, ("units", name), unit) for name, unit in doc.units.items()),
        ]
        for into, name, loc, item in items:
            at = At(document, loc)
            if name in into:
                faults.append(
                    at.fault(f"'{name}' is already defined at {into[name][0]}: give one of them another name")
                )
            else:
                into[name] = at, item
    return parts, faults


# --- Compiling -------------------------------------------------------------------------------------------------------


def _compiled(parts: Parts, offers: Offers, names: Names) -> Loaded:
    rules = {REQUESTS.id: REQUESTS} | {
        name: rule_of(name, meter, names.region) for name, (_, meter) in parts.meters.items()
    }
    plans = {name: _plan(offer, parts.meters) for (customer, name), offer in offers.items() if not customer}
    own = {
        customer: _own(plans[name], offer, parts.customers[customer][1], parts.meters)
        for (customer, name), offer in offers.items()
        if customer
    }
    files = {Path(at.document.file).name: at.document.digest for part in parts for at, _ in part.values()}
    labels = {plans[name][0].label: at for name, (at, doc) in parts.plans.items() if doc.version is not None}
    labels |= {own[name][0].label: at for name, (at, doc) in parts.customers.items() if doc.version is not None}
    hashes = {plan.label: digest for plan, digest in (*plans.values(), *own.values())}
    source = PolicySource(
        _digest(_content(parts, names.region))[:SHORT],
        tuple(route_of(route) for _, route in parts.routes.values()) or (DEFAULT_ROUTE,),
        tuple(plan for plan, _ in plans.values()),
        rules,
        exclusions=tuple(exclusion_of(doc) for _, doc in parts.exclusions.values()),
        customers={customer: plan for customer, (plan, _) in own.items()},
        hashes=Hashes(files, hashes, tuple(labels)),
    )
    routes = {name: at for name, (at, _) in parts.routes.items()}
    return Loaded(source.policy(), source, offers, parts.units, routes, labels)


def _plan(offer: Offer, meters: Meters) -> tuple[Plan, str]:
    """A plan, and the SHA-256 of its terms, which its label stands for: the plan, its meters and scales."""
    name, limits = str(offer.at.loc[-1]), tuple(limit for _, limit in offer.compiled_limits)
    used = _used({limit.meter for limit in limits}, meters)
    scales = {limit.unit: limit.digits for limit in limits if limit.digits != DIGITS}
    content = _content_of(offer.plan)
    content.pop("show_usage", None)  # not a part of the terms
    digest = _digest([content, used, scales] if scales else [content, used])
    label = f"{name}@{offer.plan.version or digest[:SHORT]}"
    return Plan(name, label, limits, offer.features, offer.plan.show_usage), digest


def _own(base: tuple[Plan, str], offer: Offer, customer: CustomerDoc, meters: Meters) -> tuple[Plan, str]:
    """A customer's own terms, as a plan of the same id: `pro@3+acme-1` is its label in records; and their SHA-256.

    Seats are not a part of the terms: their number changes without a new version.
    """
    plan, digest = base
    content = _content_of(customer)
    used = _used({limit.meter for limit in customer.limits if limit.meter} | set(customer.prices), meters)
    version = customer.version or _digest([content, used] if used else content)[:SHORT]
    limits = tuple(limit for _, limit in offer.compiled_limits)
    terms = {name: value for name, value in content.items() if name != "seats"}
    label = f"{plan.label}+{version}"
    return Plan(plan.id, label, limits, offer.features, plan.show_usage), _digest([digest, terms, used])


def _used(names: set[str], meters: Meters) -> dict[str, Any]:
    return {name: _content_of(meters[name][1]) for name in names if name in meters}


def _content(parts: Parts, region: str) -> list[Any]:
    return [*({name: _content_of(doc) for name, (_, doc) in part.items()} for part in parts), region]


def _content_of(doc: Model) -> dict[str, Any]:
    """The fields of a document that differ from their defaults, whatever their spelling."""
    return doc.model_dump(exclude_defaults=True)


def _digest(content: Any) -> str:
    """The SHA-256 of a document's content, in hex; its comments and layout do not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
