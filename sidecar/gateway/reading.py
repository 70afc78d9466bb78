"""The further steps of an exchange whose bodies are read, or that may be a retry. A plain route knows nothing of them.

    identify → gather → gate → retry? → reserve → … → exchange → read the answer → close

The request's body is held, up to its route's bound, until it has been decided about; a longer one goes on unread. A
retry is the same body under the same key, so a body that was not read is none. The answer is passed on as it comes and
read as it passes. An AI answer is read on for a while when its client has left: it is made and paid for all the same.
"""

from __future__ import annotations

from hashlib import sha256
from urllib.parse import unquote

from sidecar.core.errors import StoreError, UpstreamError
from sidecar.core.http.body import chunk
from sidecar.core.http.problem import Problem
from sidecar.core.http.request import Request
from sidecar.core.http.response import ResponseHead
from sidecar.core.policy import Terms
from sidecar.core.usage.tap import Tap
from sidecar.gateway.arrival import Arrival
from sidecar.gateway.exchange import CLIENT_GONE, CONTINUE, RequestExchange
from sidecar.ports import Client, House

READ_ON_BYTES = 16 * 1024 * 1024  # of an answer whose client has left
# Fields that vouch for the body's bytes: with others it would be refused.
_SEALS = frozenset({b"content-digest", b"digest", b"content-md5", b"signature"})


class ReadingExchange(RequestExchange):
    """An exchange that is looked into: `tap` is what was read of its bodies.

    `rewritten` is the size of the body that goes up where it is not the client's, else 0; `due_us` until when (by the
    clock that never steps) an answer is read on without its client.
    """

    __slots__ = (
        "tap", "_read", "dims", "gathering", "continued", "rewritten",  # the bodies
        "repeated", "_retry_key", "_claims",  # the Idempotency-Key
        "due_us", "_read_on",  # after the client has left
    )  # fmt: skip

    _read: Tap  # the same, as what it is

    def __init__(self, house: House, request: Request, client: Client) -> None:
        super().__init__(house, request, client)
        self.dims: dict[str, str] = {}
        self.rewritten = self.due_us = self._read_on = 0
        self._retry_key = b""
        self.gathering = self.continued = self.repeated = self._claims = self.billable = False

    # Hold the body until it is known.

    def _agree(self, terms: Terms | None) -> None:
        if terms is None or not terms.entitled:
            return super()._agree(terms)
        if self.gone:
            return self._withdraw()
        self.terms = terms
        way, request = self.way, self.request
        self.tap = self._read = Tap(way)
        wanted = "request" in way.reads or (self.arrival.retry_key and self.identity is not None)
        if not wanted or max(request.length, self.bytes_in) > way.body_bytes:
            return self._look(None)
        if self.body_ended:
            return self._gathered()
        self.gathering = True
        if request.expect:
            self.continued = True
            self.client.interim(CONTINUE)
        return self.client.resume_reading()  # more than a retry needs may have come before the key was found

    def on_body(self, data: bytes) -> None:
        super().on_body(data)
        if not self.gathering:
            return
        if self.bytes_in > self.way.body_bytes:
            self.gathering = False
            self._look(None)
        else:
            self.client.resume_reading()

    def on_body_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        super().on_body_end(trailers)
        if self.gathering:
            self._gathered()

    def on_body_broken(self, problem: Problem) -> None:
        self.gathering = False
        super().on_body_broken(problem)

    def _gathered(self) -> None:
        self.gathering = False
        self._look(b"".join(self.body or ()))

    # Judge what it asks for.

    def _look(self, body: bytes | None) -> None:
        """All of the body, or None where it is not read: it is too long, or nobody asked."""
        request = self.request
        size = max(request.length, self.bytes_in)
        sent = self._read.request(unquote(request.path), body, size, rewrite=_SEALS.isdisjoint(request.fields))
        if sent is not None and self.body:
            self.body = [sent]
            self.rewritten = len(sent) if sent is not body else 0
        lacking = self.terms.lacks(self._read.model)
        if lacking:
            return self._answer(self._lacking(lacking))
        key, identity = self.arrival.retry_key, self.identity
        if not key or identity is None or body is None:
            return self._ask()
        # Else one key for all that a customer ever asks would be paid for once.
        self._retry_key = b"%b %b" % (sha256(body).digest(), key)
        return self.house.retries.first(identity, self._retry_key, self.terms.retries_us, self.id, self.counted)

    def counted(self, first: bool | StoreError) -> None:
        """Whether it is the first attempt; a store that is away takes it for one."""
        self._claims = first is True
        self.repeated = first is False
        if self.ended:
            return self._unclaim()
        return self._ask()

    def _ask(self) -> None:
        super()._agree(self.terms)
        self._read.rest()

    # Read the answer as it passes.

    def on_response(self, head: ResponseHead) -> None:
        self._read.answer(head)
        super().on_response(head)

    def on_response_body(self, data: bytes, done: bool) -> None:
        if not self.tunnelled:
            size = len(data)
            data = self._read.feed(data)
            if done:
                data += self._read.end(complete=True)
            if self.gone:
                return self._go_on(size, done)
        return super().on_response_body(data, done)

    def on_upstream_failed(self, error: UpstreamError) -> None:
        if self.gone:
            return self.on_overdue()
        held = self._read.end(complete=False)
        if held:
            self.client.write(chunk(held) if self.chunked else held)
        return super().on_upstream_failed(error)

    # Read on without the client.

    def on_client_gone(self) -> None:
        if self.gathering:
            self.gone = True
            self.gathering = False
            return self._withdraw()
        leg = self.leg
        if leg is None or self.gone or self.tunnelled or not (self.body_ended and self.way.usage and self.way.drain_ms):
            return super().on_client_gone()
        self.gone = self.client_disconnected = True
        self.due_us = self.house.clock.mono_us() + self.way.drain_ms * 1000
        self.house.unheard.add(self)
        return leg.resume_reading()  # nobody is slow any more

    def _go_on(self, size: int, done: bool) -> None:
        """What comes now is read, and reaches nobody."""
        self._read_on += size
        if done:
            self.leg = None
        if done or self._read_on > READ_ON_BYTES:
            self._stop()

    def on_overdue(self) -> None:
        """It was read on long enough."""
        if not self.ended:
            self._stop()

    def _stop(self) -> None:
        if self.leg is not None:
            self._drop_leg()
        self.upstream_us = self.house.clock.mono_us() - self.sent_us
        self._fail(self.status or CLIENT_GONE, "client_gone")

    # The bill, and the claim to be the first attempt.

    def _close(self, now_us: int = 0) -> None:
        if self.ended:
            return
        tap = self._read
        tap.end(complete=False)
        self.dims = tap.dims
        self.quality = tap.quality or self.quality
        if self.attempts and self.terms.missing(self):
            self.quality = "partial"
        super()._close(now_us)

    def released(self, written: bool) -> None:
        self.house.unheard.discard(self)
        super().released(written)
        if not (written and self.billable):
            self._unclaim()

    def _answer(self, problem: Problem) -> None:
        super()._answer(problem)
        self._unclaim()

    def _withdraw(self) -> None:
        super()._withdraw()
        self._unclaim()

    def _unclaim(self) -> None:
        """It came to nothing that is billed, so whoever tries again is no retry."""
        if self._claims and self.identity is not None:
            self.house.retries.forget(self.identity, self._retry_key, self.id)


def serve(house: House, request: Request, client: Client) -> RequestExchange:
    """Begin the life of a request; the listener drives what is returned."""
    arrival = request.prepared
    if arrival is None or arrival.policy is not house.policy:
        arrival = request.prepared = Arrival(house, request)
    exchange = (ReadingExchange if arrival.reads else RequestExchange)(house, request, client)
    house.started()
    exchange.arrive(arrival)
    return exchange
