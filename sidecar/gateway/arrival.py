"""Who is calling, and where to: what a request's head says, judged by the policy in force.

Nothing here waits and nothing here decides on usage: it finds the route and the credential, or the refusal.
"""

from __future__ import annotations

from sidecar.core.counter import Checks
from sidecar.core.http.forward import trace
from sidecar.core.http.problem import BAD_KEY, LOOP, NO_KEY, NO_ROUTE, Problem, too_large
from sidecar.core.http.request import Request
from sidecar.core.identity import Identity, Source, digest, looks_made, strip_credential
from sidecar.core.policy import NOWHERE, Route, Terms
from sidecar.core.record import Voice
from sidecar.ports import House


class Arrival:
    """What one head means under one policy: worked out once, and kept with the head for when it comes again.

    `refusal` is the answer where it goes no further. `digest` is b"" for a caller without credential, who may pass.
    `identity`, `terms`, `checks`, `voice` are the last that this head led to; `up` the rebuilt head, but for the id.
    `reads`: it is looked into more closely (reading.py). `retry_key` is what a later request's head has in common with
    this one where it is its retry, b"" where none is: their bodies have to be the same as well.
    """

    __slots__ = (
        "checks", "digest", "identity", "policy", "reads", "refusal", "retry_key", "source", "terms", "traceparent",
        "up", "voice", "way",
    )  # fmt: skip

    def __init__(self, house: House, request: Request) -> None:
        self.policy = house.policy
        self.identity: Identity | None = None
        self.terms: Terms | None = None
        self.checks: Checks | None = None
        self.voice: Voice | None = None
        self.source: Source | None = None
        self.digest = self.up = b""
        self.traceparent = ""
        way = self.policy.match(request.method, request.path)
        self.way: Route = way if way is not None else NOWHERE
        self.refusal = NO_ROUTE if way is None else self._refusal(house, request)
        self.retry_key = self._retry_key(request) if self.policy.exclusions and way is not None else b""
        self.reads = bool(self.way.reads or self.retry_key)

    def _retry_key(self, request: Request) -> bytes:
        """A key says "the same again" of one method and target (draft-ietf-httpapi-idempotency-key-header-07 §2.2).

        The credential is no part of it: who has a new one may still try again.
        """
        named = request.fields.get(b"idempotency-key")
        terms = self.policy.terms("", self.way)  # exclusions are the same for every plan
        if not named or terms is None or not terms.retries_us:
            return b""
        query = strip_credential(request, self.source)[1] if self.source is not None else request.query
        return b"%b %b?%b %b" % (request.method.encode(), request.path.encode(), query.encode(), named)

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
