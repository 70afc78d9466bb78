"""Who is calling, and where to: what a request's head says, judged by the policy in force.

Nothing here waits and nothing here decides on usage: it finds the route and the credential, or the refusal.
"""

from __future__ import annotations

from sidecar.core.counter import Checks
from sidecar.core.http.forward import trace
from sidecar.core.http.problem import BAD_KEY, LOOP, NO_KEY, NO_ROUTE, Problem, too_large
from sidecar.core.http.request import Request
from sidecar.core.identity import Identity, Source, digest, looks_made
from sidecar.core.policy import NOWHERE, Route, Terms
from sidecar.ports import House


class Arrival:
    """What one head means under one policy: worked out once, and kept with the head for when it comes again.

    `refusal` is the answer where it goes no further. `digest` is b"" for a caller without credential, who may pass.
    `identity`, `terms` and `checks` are the last ones that this head led to; `up` the rebuilt head, but for the id.
    """

    __slots__ = ("checks", "digest", "identity", "policy", "refusal", "source", "terms", "traceparent", "up", "way")

    def __init__(self, house: House, request: Request) -> None:
        self.policy = house.policy
        self.identity: Identity | None = None
        self.terms: Terms | None = None
        self.checks: Checks | None = None
        self.source: Source | None = None
        self.digest = self.up = b""
        self.traceparent = ""
        way = self.policy.match(request.method, request.path)
        self.way: Route = way if way is not None else NOWHERE
        self.refusal = NO_ROUTE if way is None else self._refusal(house, request)

    def _refusal(self, house: House, request: Request) -> Problem | None:
        way = self.way
        if b"via" in request.fields and house.is_loop(request):
            return LOOP
        if way.max_body_bytes and request.length > way.max_body_bytes:
            return too_large(way.max_body_bytes)
        if b"traceparent" in request.fields:
            self.traceparent = trace(request)
        for source in way.sources:
            credential = source.read(source, request)
            if isinstance(credential, bytes):
                self.source = source
                self.digest = digest(credential, house.pepper)
                return BAD_KEY if looks_made(credential) is False else None
            if credential is not None:
                return credential
        return None if way.unattributed == "allow" else NO_KEY
