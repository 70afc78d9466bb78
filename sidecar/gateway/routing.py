"""The route and the credential of a request's head under the current policy, or the refusal.

Nothing here waits and nothing here decides on usage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.core.http.cors import NO_FIELDS, Field, origin_of, preflighted_method
from sidecar.core.http.forward import MALFORMED, UpstreamHead, max_forwards, trace, upstream_target
from sidecar.core.http.problem import (
    BAD_KEY,
    BAD_MAX_FORWARDS,
    LOOP,
    NO_ROUTE,
    OPTIONS_ANSWER,
    Problem,
    no_key,
    too_large,
)
from sidecar.core.http.request import Request
from sidecar.core.http.response import id_text
from sidecar.core.identity import Identity, Source, digest, has_valid_checksum
from sidecar.core.limits import Checks
from sidecar.core.policy import NOWHERE, PRESERVE, Route, Terms, path_problem
from sidecar.core.record import RecordTemplates
from sidecar.core.stripping import strip_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.gateway.context import WorkerContext


class RoutedRequest:
    """One head under one policy: made once, and kept with the head (`Request.prepared`) for when it is sent again.

    `refusal` is the answer where it goes no further. `digest` is b"" for a caller without credential, who may pass.
    `identity`, `terms`, `checks` and `templates` are those of the last exchange with this head, `upstream_head` the one
    that goes up. `is_inspected`: bodies are read, or it may be a retry (inspection.py). `retry_key` is the part of a
    head that a retry repeats, b"" where there are no retries; the body has to be the same as well. `client_request_id`
    is that of a trusted proxy. `shows_usage`: it asks at the usage path (usage.py). `cors`: the fields that the answer
    gets for browsers. `origin` is that of a page that calls a route without `cors`, where the upstream decides.
    """

    __slots__ = (
        "checks", "client_request_id", "cors", "digest", "identity", "is_inspected", "origin", "policy", "refusal",
        "retry_key", "route", "shows_usage", "source", "terms", "templates", "traceparent", "upstream_head",
    )  # fmt: skip

    def __init__(self, context: WorkerContext, request: Request, peer: str) -> None:
        self.policy = context.policies.policy
        self.identity: Identity | None = None
        self.terms: Terms | None = None
        self.checks: Checks | None = None
        self.templates: RecordTemplates | None = None
        self.source: Source | None = None
        self.digest = b""
        self.upstream_head: UpstreamHead | None = None
        self.traceparent = ""
        passed_on = request.fields.get(b"x-request-id")
        self.client_request_id = id_text(passed_on) if passed_on and context.heads.trusts(peer) else ""
        self.shows_usage = request.path == context.options.usage_path and request.method == "GET"
        route = self.policy.match(request.method, request.path, request.host, request.fields)
        if self.shows_usage:
            route = self.policy.usage_route
        announced = self._announced_route(request) if request.method == "OPTIONS" else None
        self.route: Route = announced or route or NOWHERE
        cors = self.route.cors
        self.cors: Sequence[Field] = NO_FIELDS if cors is None or announced else cors.answer_fields(request)
        self.origin = origin_of(request) if cors is None else b""
        self.refusal: Problem | None
        ambiguous = None if request.is_normal else path_problem(self.policy, self.route, request)
        if ambiguous is not None:
            self.refusal = ambiguous
        elif announced is not None and cors is not None:
            self.refusal = cors.preflight(request)
        else:
            self.refusal = NO_ROUTE if route is None else self._refusal(context, request)
        has_retries = self.policy.exclusions and route is not None and not self.shows_usage
        self.retry_key = self._retry_key(request) if has_retries else b""
        self.is_inspected = bool(self.route.reads or self.retry_key)

    def _announced_route(self, request: Request) -> Route | None:
        """The route of the request that a preflight announces; None where the preflight is not ours to answer."""
        method = preflighted_method(request)
        route = self.policy.match(method, request.path, request.host, request.fields) if method else None
        return route if route is not None and route.cors is not None else None

    def _retry_key(self, request: Request) -> bytes:
        """A key says "the same again" of one method and target (draft-ietf-httpapi-idempotency-key-header-07 §2.2).

        The credential is not a part of it: a caller with a new one may still try again.
        """
        named = request.fields.get(b"idempotency-key")
        terms = self.policy.terms("", self.route)  # exclusions are the same for every plan
        if not named or terms is None or not terms.retries_us:
            return b""
        query = strip_keys(request, self.source, self.route.sources, _nobody).query
        target = upstream_target(request, query, preserve=self.route.paths == PRESERVE)
        return b"%b %b %b" % (request.method.encode(), target.encode(), named)

    def _refusal(self, context: WorkerContext, request: Request) -> Problem | None:
        route = self.route
        if b"max-forwards" in request.fields:
            hops = max_forwards(request)
            if hops in {0, MALFORMED}:
                return OPTIONS_ANSWER if hops == 0 else BAD_MAX_FORWARDS
        if b"via" in request.fields and context.heads.is_loop(request):
            return LOOP
        if route.max_body_bytes and request.length > route.max_body_bytes:
            return too_large(route.max_body_bytes)
        if b"traceparent" in request.fields:
            self.traceparent = trace(request)
        for source in route.sources:
            credential = source.read(source, request)
            if isinstance(credential, bytes):
                self.source = source
                self.digest = digest(credential, context.options.pepper)
                return BAD_KEY if has_valid_checksum(credential) is False else None
            if credential is not None:
                return credential
        return None if route.unattributed == "allow" else no_key(tuple([source.place for source in route.sources]))


def _nobody(_credential: bytes) -> bool:
    """The keys of others must not change whether a request is a retry."""
    return False
