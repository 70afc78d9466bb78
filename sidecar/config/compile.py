"""Policy documents become the compiled policy of the core: whole or not at all, every fault at its file and line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sidecar.config import checks, limits
from sidecar.config.checks import DEFAULT_ROUTE, HEADER_SOURCE, At, Names
from sidecar.config.document import Document, Loc, read
from sidecar.config.models import validate
from sidecar.config.policies import CredentialDoc, MeterDoc, PlanDoc, PolicyDoc, RouteDoc, WhenDoc
from sidecar.core.errors import Fault, PolicyError
from sidecar.core.identity import Source
from sidecar.core.policy import Meter, Plan, Policy, Route, Timeouts
from sidecar.core.usage import REQUESTS, Count, Lookup, Measured, MeterRule, Value, When, meter_for


def load_policy(path: Path, upstreams: set[str], *, region: str = "local") -> Policy:
    """The policy of a file, or of a directory's *.yaml merged in the order of their names.

    `upstreams` are the names that routes may send to; `region` is where this sidecar runs, for look-ups by region.
    PolicyError carries every fault of every file.
    """
    documents, faults = _read_all(path)
    names, doubles = _merge(documents, upstreams, region)
    faults += doubles
    if not faults:
        faults = sorted(checks.faults_of(names, path), key=lambda fault: (fault.file, fault.line))
    if faults:
        raise PolicyError(faults)
    return _compiled(names)


# --- Reading and merging ---------------------------------------------------------------------------------------------


def _read_all(path: Path) -> tuple[list[tuple[Document, PolicyDoc]], list[Fault]]:
    try:
        files = _files(path)
    except OSError as error:
        return [], [Fault(str(path), 0, "", f"cannot be read: {error.strerror or error}")]
    if not files:
        return [], [Fault(str(path), 0, "", "has no *.yaml file: put a policy there, or name one with `policies:`")]
    found: list[tuple[Document, PolicyDoc]] = []
    faults: list[Fault] = []
    for file in files:
        try:
            document = read(file)
            found.append((document, validate(PolicyDoc, document)))
        except PolicyError as error:
            faults += error.faults
    return found, faults


def _files(path: Path) -> list[Path]:
    """A ConfigMap's `..data` and editors' swap files begin with a dot; sub-directories hold what is not in force."""
    if not path.is_dir():
        return [path]
    return sorted(
        file for file in path.iterdir() if file.suffix in (".yaml", ".yml") and file.name[0] != "." and file.is_file()
    )


def _merge(
    documents: Iterable[tuple[Document, PolicyDoc]], upstreams: set[str], region: str
) -> tuple[Names, list[Fault]]:
    names = Names(upstreams, {}, {}, {}, region)
    faults: list[Fault] = []
    for document, doc in documents:
        items: list[tuple[dict[str, Any], str, Loc, Any]] = [
            *((names.meters, name, ("meters", name), meter) for name, meter in doc.meters.items()),
            *((names.routes, route.id, ("routes", index), route) for index, route in enumerate(doc.routes)),
            *((names.plans, name, ("plans", name), plan) for name, plan in doc.plans.items()),
        ]
        for into, name, loc, item in items:
            at = At(document, loc)
            if name in into:
                faults.append(
                    at.fault(f"'{name}' is already defined at {into[name][0]}: give one of them another name")
                )
            else:
                into[name] = at, item
    return names, faults


# --- Compiling -------------------------------------------------------------------------------------------------------


def _compiled(names: Names) -> Policy:
    rules = {REQUESTS.id: REQUESTS} | {
        name: _rule(name, meter, names.region) for name, (_, meter) in names.meters.items()
    }
    routes = [_route(route) for _, route in names.routes.values()] or [DEFAULT_ROUTE]
    plans = [_plan(name, plan, names.meters) for name, (_, plan) in names.plans.items()]
    return Policy(_short_hash(_content(names)), routes, plans, lambda route: _meters(rules, route))


def _meters(rules: Mapping[str, MeterRule], route: Route) -> list[Meter]:
    found = (meter_for(rule, route.id, route.usage) for rule in rules.values())
    return [meter for meter in found if meter is not None]


def _rule(name: str, meter: MeterDoc, region: str) -> MeterRule:
    return MeterRule(name, _value(meter, region), _when(meter.when))


def _value(meter: MeterDoc, region: str) -> Value:
    if meter.value is None:
        return Count(1 if meter.count is None else meter.count)
    if isinstance(meter.value, str):
        found = HEADER_SOURCE.fullmatch(meter.value)
        return Measured(f"{found[1]}.header.{found[2].lower()}" if found else meter.value)
    lookup, default = meter.value, meter.value.default or 0
    if lookup.lookup == "region":
        return Count(lookup.table.get(region, default))
    dim = lookup.lookup.lower() if lookup.lookup.startswith("header.") else lookup.lookup
    return Lookup(dim, lookup.table, default)


def _when(when: WhenDoc) -> When:
    return When(
        statuses=None
        if when.status is None
        else frozenset(code for status in when.status for code in _codes(str(status))),
        routes=None if when.route is None else frozenset(when.route),
        methods=None if when.method is None else frozenset(when.method),
        headers=tuple(
            (name.lower().encode(), frozenset() if "*" in values else frozenset(value.encode() for value in values))
            for name, values in (when.header or {}).items()
        ),
    )


def _codes(status: str) -> range:
    first = int(status.replace("x", "0"))
    return range(first, first + (100 if status.endswith("xx") else 1))


def _route(route: RouteDoc) -> Route:
    return Route(
        id=route.id,
        pattern=route.match.path,
        methods=frozenset(route.match.methods or ()),
        upstream=route.upstream,
        sources=tuple(map(_source, route.credentials)),
        keep_credential=route.keep_credential,
        unattributed=route.unattributed,
        identity_headers=route.identity_headers,
        feature=route.feature or "",
        timeouts=Timeouts(**route.timeouts.model_dump()),
        max_body_bytes=route.max_body_bytes,
    )


def _source(credential: CredentialDoc) -> Source:
    if credential.header is not None:
        return Source("header", credential.header)
    if credential.query is not None:
        return Source("query", credential.query)
    return Source("bearer" if credential.bearer else "basic")


def _plan(name: str, plan: PlanDoc, meters: Mapping[str, tuple[At, MeterDoc]]) -> Plan:
    compiled = tuple(map(limits.compiled, plan.limits))
    used = {limit.meter: meters[limit.meter][1].model_dump() for limit in compiled if limit.meter in meters}
    version = plan.version or _short_hash([plan.model_dump(), used])
    return Plan(name, f"{name}@{version}", compiled, frozenset(plan.features))


def _content(names: Names) -> list[Any]:
    found = [
        {name: doc.model_dump() for name, (_, doc) in part.items()}
        for part in (names.meters, names.routes, names.plans)
    ]
    return [*found, names.region]


def _short_hash(content: Any) -> str:
    """Eight hex digits of what a document says; its comments and layout do not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
