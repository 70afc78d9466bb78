"""What can be wrong between the parts of a policy: unknown names, impossible patterns, counters that mean two things.

Each check yields its faults and goes on, so that one load tells everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from sidecar.config import limits
from sidecar.config.document import Document, Loc, did_you_mean
from sidecar.config.policies import LimitDoc, LookupDoc, MeterDoc, PlanDoc, RouteDoc
from sidecar.core.errors import Fault
from sidecar.core.http.path import NoNormalForm, normal_path
from sidecar.core.policy import ANY, REST, Limit, Route, segments, ties
from sidecar.core.usage import QUANTITIES, REQUESTS

DEFAULT_ROUTE: Final = Route("default")
HEADER_SOURCE: Final = re.compile(r"(request|response)\.header\.([A-Za-z0-9!#$%&'*+.^_`|~-]+)")
_DIMS: Final = ("method", "route", "region", "header.<name>")
_STATUS: Final = re.compile(r"([1-5])xx|([1-5][0-9][0-9])")


class At(NamedTuple):
    """Where a definition stands."""

    document: Document
    loc: Loc

    def fault(self, what: str, *inside: str | int) -> Fault:
        """`what` is wrong here, or at a field inside."""
        return self.document.fault((*self.loc, *inside), what)

    def __str__(self) -> str:
        file, line = self.document.place(self.loc)
        return f"{file}:{line}"


class Names(NamedTuple):
    """What a policy may refer to."""

    upstreams: set[str]
    routes: dict[str, tuple[At, RouteDoc]]
    meters: dict[str, tuple[At, MeterDoc]]
    plans: dict[str, tuple[At, PlanDoc]]
    region: str


def faults_of(names: Names, path: Path) -> Iterator[Fault]:
    """Everything that is wrong with a policy whose documents are each well formed. `path` is what was loaded."""
    for at, meter in names.meters.values():
        yield from _meter_faults(at, meter, names)
    for at, route in names.routes.values():
        yield from _route_faults(at, route, names)
    if not names.routes and "default" not in names.upstreams:
        what = f"has no routes, so all goes to the upstream 'default'; {did_you_mean('default', names.upstreams)}"
        yield Fault(str(path), 0, "", what)
    yield from _tie_faults(names)
    for at, plan in names.plans.values():
        for index, limit in enumerate(plan.limits):
            yield from _limit_faults(At(at.document, (*at.loc, "limits", index)), limit, names)
        yield from _doubled_limits(at, plan)
    yield from _shared_limits(names)


def _unknown(at: At, name: str, known: Iterable[str], *inside: str | int) -> Iterator[Fault]:
    known = list(known)
    if name not in known:
        yield at.fault(f"'{name}' is not defined; {did_you_mean(name, known)}", *inside)


def _meter_faults(at: At, meter: MeterDoc, names: Names) -> Iterator[Fault]:
    if meter.count is not None and meter.value is not None:
        yield at.fault("has both count and value: keep one (a table's numbers can hold the product)")
    if isinstance(meter.value, LookupDoc):
        yield from _lookup_faults(at, meter.value, names)
    elif meter.value is not None and meter.value not in QUANTITIES and not HEADER_SOURCE.fullmatch(meter.value):
        later = "not available yet: usage read from answers comes with a later version; " * meter.value.startswith(
            "usage."
        )
        known = [*QUANTITIES, "request.header.<name>", "response.header.<name>"]
        yield at.fault(f"{later}'{meter.value}' is no quantity; {did_you_mean(meter.value, known)}", "value")
    for index, status in enumerate(meter.when.status or ()):
        if not _STATUS.fullmatch(str(status)):
            yield at.fault(f"'{status}' is no status: write 2xx or 404", "when", "status", index)
    for index, route in enumerate(meter.when.route or ()):
        yield from _unknown(at, route, names.routes or [DEFAULT_ROUTE.id], "when", "route", index)


def _lookup_faults(at: At, lookup: LookupDoc, names: Names) -> Iterator[Fault]:
    dim, inside = lookup.lookup, ("value", "lookup")
    table, has_default = lookup.table, lookup.default is not None
    routes = names.routes or [DEFAULT_ROUTE.id]
    if dim not in ("method", "route", "region") and not re.fullmatch(r"header\..+", dim):
        yield at.fault(f"'{dim}' cannot be looked up; {did_you_mean(dim, _DIMS)}", *inside)
    elif dim == "route":
        for name in table:
            yield from _unknown(at, name, routes, "value", "table", name)
        missing = sorted(set(routes) - set(table))
        if missing and not has_default:
            yield at.fault(f"has no entry for {', '.join(missing)}, and no default: add one", "value", "table")
    elif dim == "region" and names.region not in table and not has_default:
        what = f"has no entry for '{names.region}', which is this sidecar's `region`, and no default: add one"
        yield at.fault(what, "value", "table")
    elif dim != "region" and not has_default:
        yield at.fault("needs a default: a request can hold a value that is not in the table", "value", "table")


def _route_faults(at: At, route: RouteDoc, names: Names) -> Iterator[Fault]:
    yield from _unknown(at, route.upstream, names.upstreams, "upstream")
    what = _pattern_fault(route.match.path)
    if what:
        yield at.fault(f"'{route.match.path}' {what}", "match", "path")
    for index, credential in enumerate(route.credentials):
        if sum(map(bool, (credential.header, credential.query, credential.bearer, credential.basic))) != 1:
            yield at.fault("names one place: header, query, bearer or basic", "credentials", index)
    if route.feature is not None:
        offered = {feature for _, plan in names.plans.values() for feature in plan.features}
        yield from _unknown(at, route.feature, offered, "feature")


def _pattern_fault(pattern: str) -> str:
    """What keeps a glob from matching the normal form of a path; "" where nothing does."""
    if not pattern.startswith("/"):
        return "does not begin with a slash"
    if "?" in pattern:
        return "has a query: only the path is matched"
    parts = segments(pattern)
    if any("*" in part and part not in (ANY, REST) for part in parts):
        return "has a star inside a segment: `*` is one whole segment, `**` any number of them"
    if any(pair == (REST, REST) for pair in pairwise(parts)):
        return "has `**` twice in a row: once is enough"
    try:
        normal = normal_path(pattern.encode())
    except NoNormalForm as error:
        return f"is no path: {error}"
    return "" if normal == pattern else f"is never seen in that spelling: write '{normal}'"


def _tie_faults(names: Names) -> Iterator[Fault]:
    valid = [route for _, route in names.routes.values() if not _pattern_fault(route.match.path)]
    for one, other in ties(Route(doc.id, doc.match.path, frozenset(doc.match.methods or ())) for doc in valid):
        at = names.routes[other.id][0]
        what = f"is as specific as '{one.id}' at {names.routes[one.id][0]}, and some requests match both"
        yield at.fault(f"{what}: make one path or its methods more specific", "match")


def _limit_faults(at: At, limit: LimitDoc, names: Names) -> Iterator[Fault]:
    meter = limit.meter or "requests"
    if limit.concurrency is None and meter != REQUESTS.id:
        yield from _unknown(at, meter, [*names.meters, REQUESTS.id], "meter")
    value = names.meters[meter][1].value if meter in names.meters else None
    wrong = list(limits.faults_of(limit, sized=isinstance(value, str) and value.endswith("bytes")))
    for field, what in wrong or limits.inexact(limit):
        yield at.fault(what, *((field,) if field else ()))
    for index, route in enumerate(limit.routes or ()):
        yield from _unknown(at, route, names.routes or [DEFAULT_ROUTE.id], "routes", index)


def _doubled_limits(at: At, plan: PlanDoc) -> Iterator[Fault]:
    seen: dict[str, int] = {}
    for index, limit in enumerate(plan.limits):
        first = seen.setdefault(limit.id, index)
        if first != index:
            place = At(at.document, (*at.loc, "limits", first))
            yield at.fault(f"'{limit.id}' is already a limit of this plan, at {place}", "limits", index, "id")


def _shared_limits(names: Names) -> Iterator[Fault]:
    """One id is one counter, so that a change of plan keeps it; then it must count the same thing in the same way."""
    first: dict[str, tuple[At, Limit]] = {}
    for at, plan in names.plans.values():
        for index, doc in enumerate(plan.limits):
            here = At(at.document, (*at.loc, "limits", index))
            if any(True for _ in limits.faults_of(doc, sized=True)):
                continue
            limit = limits.compiled(doc)
            there, other = first.setdefault(limit.id, (here, limit))
            ours, theirs = limits.identity_of(limit), limits.identity_of(other)
            unlike = [
                f"{name} {ours[name]} here, {theirs.get(name)} there" for name in ours if ours[name] != theirs.get(name)
            ]
            if unlike:
                what = f"'{limit.id}' is the counter of {there} too, but differs ({'; '.join(unlike)})"
                yield here.fault(f"{what}: make them alike, or give one another id", "id")
