"""The part of an exchange that reads bodies, or recognises a retry.

    check entitlement → gather → inspect → first attempt? → reserve → … → answer → read the answer → close

The request's body is held, up to its route's bound, until the decision; a longer one is forwarded unread. A retry is
the same body under the same key, so a body that was not read cannot be one. The answer is passed on as it is received,
and read meanwhile; where reading takes longer than one turn of the loop may, its upstream is paused, and reading and
passing on continue in the next turns. An AI answer is read to its end for a while when its client has left: it is
generated and paid for all the same.

An inspection is asked by its exchange, which is an argument of each call and no field: the two would be a cycle, and
the collector of cycles runs rarely.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from sidecar.core.errors import StoreError, UpstreamError
from sidecar.core.usage.tap import Tap
from sidecar.gateway import admission
from sidecar.gateway.states import CLIENT_GONE

if TYPE_CHECKING:
    from sidecar.gateway.exchange import RequestExchange

DRAINED_BYTES: Final = 16 * 1024 * 1024  # of an answer whose client has left
LEFT_MS: Final = 5_000  # to read the rest of an answer that was received whole, where none is read without its client
# Fields that vouch for the body's bytes: an upstream refuses another body with them.
_SEALS: Final = frozenset({b"content-digest", b"digest", b"content-md5", b"signature"})


class Inspection:
    """The inspection of one exchange. `tap` reads its bodies; it exists once the caller's terms are known.

    While `gathering` the request's body is held; `continued`: the client was asked to send it before the decision.
    While `is_behind` not all of the answer that was received has been read. `due_us` is until when, by the clock that
    never steps, an answer is read without its client.
    """

    __slots__ = (
        "_drained_bytes", "_failure", "_has_claim", "_has_ended", "_retry_key", "continued", "due_us", "gathering",
        "is_behind", "tap",
    )  # fmt: skip

    tap: Tap

    def __init__(self) -> None:
        self.gathering = self.continued = self.is_behind = self._has_claim = self._has_ended = False
        self._failure: UpstreamError | None = None
        self.due_us = self._drained_bytes = 0
        self._retry_key = b""

    # Hold the body until it is known.

    def gather(self, exchange: RequestExchange) -> None:
        """Hold the body where it is wanted and not too long; then inspect the request."""
        if exchange.gone:
            return exchange.withdraw()
        route, request = exchange.routed.route, exchange.request
        exchange.tap = self.tap = Tap(route)
        wanted = "request" in route.reads or (exchange.routed.retry_key and exchange.identity is not None)
        if not wanted or max(request.length, exchange.bytes_in) > route.body_bytes:
            return self._inspect(exchange, None)
        if exchange.body_ended:
            return self._gathered(exchange)
        self.gathering = True
        if request.expect:
            self.continued = True
            exchange.client.interim(admission.CONTINUE)
        return exchange.client.resume_reading()  # more than a retry needs may have come before the key was found

    def take_body(self, exchange: RequestExchange) -> None:
        """More of the request's body was received."""
        if not self.gathering:
            return
        if exchange.bytes_in > exchange.routed.route.body_bytes:
            self.gathering = False
            self._inspect(exchange, None)
        else:
            exchange.client.resume_reading()

    def end_body(self, exchange: RequestExchange) -> None:
        """The request's body is complete."""
        if self.gathering:
            self._gathered(exchange)

    def _gathered(self, exchange: RequestExchange) -> None:
        self.gathering = False
        self._inspect(exchange, b"".join(exchange.body or ()))

    # Judge what the request asks for.

    def _inspect(self, exchange: RequestExchange, body: bytes | None) -> None:
        """All of the body, or None where it is not read: it is too long, or not wanted."""
        request, terms, tap = exchange.request, exchange.terms, self.tap
        size = max(request.length, exchange.bytes_in)
        rewrite = _SEALS.isdisjoint(request.fields)
        sent = tap.request(unquote(request.path), body, size, fields=request.fields, rewrite=rewrite)
        if terms.refuses_unread and terms.unread(request, tap):
            return exchange.answer(tap.unread_problem())
        if sent is not None and exchange.body:
            exchange.body = [sent]
            exchange.rewritten = len(sent) if sent is not body else 0
        lacking = terms.lacks(tap.model)
        if lacking:
            return exchange.answer(admission.feature_missing(exchange, lacking))
        key, identity = exchange.routed.retry_key, exchange.identity
        if not key or identity is None or body is None:
            return self._reserve(exchange)
        # Else one key for all requests of a customer would be paid for once.
        self._retry_key = b"%b %b" % (sha256(body).digest(), key)
        retries = exchange.context.retries
        return retries.first(identity, self._retry_key, terms.retries_us, exchange.id, exchange.on_first_attempt)

    def take_first_attempt(self, exchange: RequestExchange, first: bool | StoreError) -> None:
        """Whether it is the first attempt; it counts as one where the store does not answer."""
        self._has_claim = first is True
        exchange.repeated = first is False
        if exchange.ended:
            return self.unclaim(exchange)
        return self._reserve(exchange)

    def _reserve(self, exchange: RequestExchange) -> None:
        admission.reserve(exchange)
        self.tap.rest()

    # Read the answer as it passes.

    def read_answer(self, exchange: RequestExchange, data: bytes, done: bool) -> bytes:
        """Read a piece of the answer; returns the bytes that the client gets now. It is not over while `is_behind`."""
        tap = self.tap
        data = tap.feed(data, last=done)
        if tap.is_behind or self.is_behind:
            self._keep_pace(exchange, done)
        return data + tap.end(complete=True) if done and not tap.is_behind else data

    def _keep_pace(self, exchange: RequestExchange, done: bool) -> None:
        """Stop the upstream until the answer that was received is read, and then let it go on."""
        leg, was_behind = exchange.leg, self.is_behind
        self.is_behind = self.tap.is_behind
        if self.is_behind and not was_behind:
            exchange.context.probe.count("answers_in_turns")
        if done:
            self._has_ended = True
            exchange.leg = None  # it may carry another exchange by now
        elif leg is not None and self.is_behind != was_behind:
            if self.is_behind:
                leg.pause_reading()
            elif exchange.gone or not exchange.client.stalled:
                leg.resume_reading()
        if self.is_behind:
            exchange.context.open.read_later(exchange)

    def read_on(self, exchange: RequestExchange) -> None:
        """Continue in a later turn. Then the answer may end, or fail, as it did meanwhile."""
        exchange.on_response_body(b"", self._has_ended)
        failure = self._failure
        if failure is not None and not self.is_behind and not exchange.ended:
            self._failure = None
            exchange.on_upstream_failed(failure)

    def take_failure(self, exchange: RequestExchange, error: UpstreamError) -> bool:
        """The answer was broken off: pass on what was held of it.

        True: it ends when it is read, or, where its client has left, has ended here.
        """
        if self.is_behind:
            self._failure = error
            exchange.leg = None
            return True
        if exchange.gone:
            self.end_drain(exchange)
            return True
        held = self.tap.end(complete=False)
        if held:
            exchange.client.body(held)
        return False

    # Read on without the client.

    def detach(self, exchange: RequestExchange) -> bool:
        """The client has left. True: the exchange goes on without it, or was withdrawn."""
        if self.gathering:
            exchange.gone = True
            self.gathering = False
            exchange.withdraw()
            return True
        leg, route = exchange.leg, exchange.routed.route
        if self._has_ended and self.is_behind and not exchange.gone:
            self._go_on_alone(exchange)
            return True
        if leg is None or exchange.gone or exchange.tunnelled:
            return False
        if not (exchange.body_ended and route.usage and route.drain_ms):
            return False
        self._go_on_alone(exchange)
        if not self.is_behind:
            leg.resume_reading()  # nobody is slow any more
        return True

    def _go_on_alone(self, exchange: RequestExchange) -> None:
        context, drain_ms = exchange.context, exchange.routed.route.drain_ms
        exchange.gone = exchange.client_disconnected = True
        self.due_us = context.clock.mono_us() + (drain_ms or LEFT_MS) * 1000
        context.open.detached.add(exchange)

    def drain_answer(self, exchange: RequestExchange, size: int, done: bool) -> None:
        """A piece of `size` bytes was read that reaches nobody."""
        self._drained_bytes += size
        if done:
            exchange.leg = None
        if done or self._drained_bytes > DRAINED_BYTES:
            self._stop(exchange)

    def end_drain(self, exchange: RequestExchange) -> None:
        """The answer was read for long enough."""
        if not exchange.ended:
            self._stop(exchange)

    def _stop(self, exchange: RequestExchange) -> None:
        if exchange.leg is not None:
            exchange.drop_leg()
        exchange.upstream_us = exchange.context.clock.mono_us() - exchange.sent_us
        exchange.fail(exchange.status or CLIENT_GONE, "client_gone")

    # The bill, and the claim to be the first attempt.

    def complete(self, exchange: RequestExchange) -> None:
        """Nothing more is read: set what was read of the usage."""
        tap = self.tap
        tap.end(complete=False)
        exchange.dims = tap.dims
        exchange.usage_lines = tap.usage_lines
        exchange.quality = tap.quality or exchange.quality
        if exchange.attempts and exchange.terms.missing(exchange):
            exchange.quality = "partial"

    def release(self, exchange: RequestExchange, written: bool) -> None:
        """Give up the claim of an attempt that was not paid for, before the settle, with which it leaves."""
        if self._has_claim and not (written and exchange.billable and self._is_paid(exchange)):
            self.unclaim(exchange)

    def _is_paid(self, exchange: RequestExchange) -> bool:
        """Whether a retry is to cost nothing: else a call that is refused would make its repetition free."""
        if exchange.outcome == "ok" and exchange.status < 400:
            return True
        return exchange.terms.is_paid(exchange.request, self.tap, exchange.usage)

    def unclaim(self, exchange: RequestExchange) -> None:
        """The attempt was not paid for, so the next one is not a retry."""
        if self._has_claim and exchange.identity is not None:
            self._has_claim = False
            context = exchange.context
            try:
                context.retries.forget(exchange.identity, self._retry_key, exchange.id)
            except Exception as error:  # noqa: BLE001 - what is reserved has to be released all the same
                context.log.fault(exchange.id, error)
