"""Routes in policy documents, their faults, faults between two, and the route of the core that each compiles to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from sidecar.config.cors import CorsDoc, cors_of
from sidecar.config.cors import faults_of as cors_faults
from sidecar.config.credentials import DEFAULT, Credentials, source_of
from sidecar.config.credentials import faults_of as credential_faults
from sidecar.config.document import did_you_mean
from sidecar.config.models import Model
from sidecar.config.names import At, Names, unknown
from sidecar.config.patterns import HeaderName, Name
from sidecar.config.values import Amount, Glob, HeaderValues, Methods, RouteHost, Units, header_values
from sidecar.core.errors import Fault
from sidecar.core.http.forward import OURS_UP
from sidecar.core.http.path import NoNormalForm, normal_path
from sidecar.core.policy import ANY, REST, Route, Timeouts, segments, ties
from sidecar.core.usage.ai import ADAPTERS
from sidecar.core.usage.conditions import EXCEPT

DEFAULT_ROUTE: Final = Route("default")
BODY_MAX_BYTES: Final = 64 << 20
DRAIN_MAX_MS: Final = 600_000


class MatchDoc(Model):
    """`path` is a glob: `*` one segment, `**` any number. No `methods`: all of them.

    `host` is a name, or `*.example.com` for all names below it. `headers` must all be there, with one of their values;
    `"*"` is any.
    """

    path: str
    methods: Methods | None = None
    host: RouteHost | None = None
    headers: Annotated[dict[HeaderName, HeaderValues], Field(min_length=1)] | None = None


class TimeoutsDoc(Model):
    """A route's own timeouts; omitted ones are the upstream's. `total` 0: unbounded."""

    connect_ms: Amount | None = None
    first_byte_ms: Amount | None = None
    between_bytes_ms: Amount | None = None
    total_ms: Units | None = None


class EstimateDoc(Model):
    """The assumed tokens of an answer until it is read: the bound of the request, else `output`.

    Never more than `ceiling`.
    """

    output: Amount = DEFAULT_ROUTE.default_output
    ceiling: Amount = DEFAULT_ROUTE.ceiling


class RouteDoc(Model):
    """Which requests go where, how their caller is identified, and which of their bodies are read.

    `body` is how much of a JSON body is buffered to read it; `unread: allow` lets a request pass of whose body a meter
    cannot read what it needs; `half_close: allow` keeps the answer for a client that has closed its side; `drain`: how
    long an AI answer is read after its client has disconnected. `paths`: a path that is not in normal form is forwarded
    in it, or as it was written (`preserve`), or refused.
    `models`: the feature that a plan needs for the models that match.
    """

    id: Name
    match: MatchDoc
    upstream: Name = "default"
    credentials: Credentials = DEFAULT
    keep_credential: bool = False
    unattributed: Literal["deny", "allow"] = "deny"
    identity_headers: bool = False
    feature: Name | None = None
    timeouts: TimeoutsDoc = TimeoutsDoc()
    max_body_bytes: Units = 0
    unread: Literal["deny", "allow"] = "deny"
    half_close: Literal["deny", "allow"] = "deny"
    paths: Literal["normalise", "preserve", "refuse"] = "normalise"
    cors: CorsDoc | None = None
    usage: str | None = None
    estimate: EstimateDoc | None = None
    models: Annotated[dict[Glob, Name], Field(min_length=1)] | None = None
    body_bytes: Annotated[int, Field(ge=1024, le=BODY_MAX_BYTES)] = DEFAULT_ROUTE.body_bytes
    drain_ms: Annotated[int, Field(ge=0, le=DRAIN_MAX_MS)] | None = None


def faults_of(at: At, route: RouteDoc, names: Names) -> Iterator[Fault]:
    """All faults of a route by itself."""
    yield from unknown(at, route.upstream, names.upstreams, "upstream")
    what = _pattern_fault(route.match.path)
    if what:
        yield at.fault(f"'{route.match.path}' {what}", "match", "path")
    yield from _header_faults(at.at("match", "headers"), route.match.headers or {})
    yield from credential_faults(at, route.credentials)
    if route.feature is not None:
        yield from unknown(at, route.feature, names.features, "feature")
    for models, feature in (route.models or {}).items():
        if models.startswith(EXCEPT):
            yield at.fault(
                "makes no exception here: write the globs of the models that need a feature", "models", models
            )
        yield from unknown(at, feature, names.features, "models", models)
    if route.cors is not None:
        yield from cors_faults(at, route.cors)
    yield from _usage_faults(at, route)


def _header_faults(at: At, headers: Iterable[str]) -> Iterator[Fault]:
    seen: set[str] = set()
    for name in headers:
        lower = name.lower()
        if lower == "host":
            yield at.fault("is matched by `host: a` beside `path`", name)
        elif lower.encode() in OURS_UP - {b"upgrade"}:
            yield at.fault("is set or removed by the sidecar, so the API would not see it", name)
        elif lower in seen:
            yield at.fault("is there twice: give all values in one list", name)
        seen.add(lower)


def _usage_faults(at: At, route: RouteDoc) -> Iterator[Fault]:
    if route.usage is not None and route.usage not in ADAPTERS:
        yield at.fault(f"unknown AI API '{route.usage}'; {did_you_mean(route.usage, ADAPTERS)}", "usage")
    for field in ("estimate", "models", "drain_ms"):
        if route.usage is None and getattr(route, field) is not None:
            yield at.fault("needs `usage: openai` or another beside it, so that AI requests are read", field)
    if route.estimate is not None and route.estimate.ceiling < route.estimate.output:
        order = f"{route.estimate.ceiling} is below output, {route.estimate.output}"
        yield at.fault(f"{order}: the ceiling is the most that is held for one answer", "estimate", "ceiling")


def tie_faults(routes: Iterable[tuple[At, RouteDoc]]) -> Iterator[Fault]:
    """Faults of pairs of routes of which neither wins."""
    valid = {doc.id: (at, doc) for at, doc in routes if not _pattern_fault(doc.match.path)}
    for one, other in ties(Route(name, **_match(doc.match)) for name, (_, doc) in valid.items()):
        what = f"is as specific as '{one.id}' at {valid[one.id][0]}, and some requests match both"
        yield valid[other.id][0].fault(f"{what}: make one path, its methods, host or headers more specific", "match")


def _pattern_fault(pattern: str) -> str:
    """The reason why a glob matches no normal form of a path; "" where it does."""
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
        return f"is not a path: {error}"
    return "" if normal == pattern else f"is not in normal form: write '{normal}'"


def route_of(doc: RouteDoc) -> Route:
    """The route, of a document without faults."""
    estimate = doc.estimate or EstimateDoc()
    sources = tuple(map(source_of, doc.credentials))
    return Route(
        id=doc.id,
        **_match(doc.match),
        upstream=doc.upstream,
        sources=sources,
        keep_credential=doc.keep_credential,
        unattributed=doc.unattributed,
        identity_headers=doc.identity_headers,
        feature=doc.feature or "",
        timeouts=Timeouts(**doc.timeouts.model_dump()),
        max_body_bytes=doc.max_body_bytes,
        unread=doc.unread,
        half_close=doc.half_close,
        paths=doc.paths,
        cors=None if doc.cors is None else cors_of(doc.cors, sources),
        usage=doc.usage or "",
        default_output=estimate.output,
        ceiling=estimate.ceiling,
        body_bytes=doc.body_bytes,
        models=tuple((doc.models or {}).items()),
        drain_ms=DEFAULT_ROUTE.drain_ms if doc.drain_ms is None else doc.drain_ms,
    )


def _match(doc: MatchDoc) -> dict[str, Any]:
    """The fields of a route that say which requests it is for."""
    return {
        "pattern": doc.path,
        "methods": frozenset(doc.methods or ()),
        "host": (doc.host or "").lower(),
        "headers": header_values(doc.headers or {}),
    }
