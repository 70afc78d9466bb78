"""One connection to an upstream: one exchange at a time, parsed as strictly as requests, reused only if it is clean.

It handles bytes and deadlines; the pool picks the address, opens the connection and reuses it. A connection is reusable
if request and response are complete and no byte came after the response.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

import httptools

from sidecar.core.errors import UpstreamError, UpstreamReason
from sidecar.core.http.body import BadFraming, Body, ChunkedBody, LengthBody, UntilCloseBody
from sidecar.core.http.forward import UpstreamHead
from sidecar.core.http.request import CHUNKED
from sidecar.core.http.response import MAX_HEAD_BYTES, BadAnswer, ResponseHead
from sidecar.edge.http1.address import Address
from sidecar.edge.http1.heads import allowed_fields, chunk, last_chunk, read_response_head, request_head
from sidecar.ports import Caller, Leg, Upstream

MAX_INTERIM: Final = 16  # 1xx heads before the final one: an endless series would block a client for ever
MEMO_HEADS: Final = 256  # cached heads per pool
MEMO_HEAD_BYTES: Final = 2048
HIGH_WATER_BYTES: Final = 256 * 1024
CLOSED: Final = "the upstream closed the connection before it answered"
_FOREVER: Final = float("inf")


class Owner(Upstream):
    """The interface of a pool to its connections. Times are of the loop's clock, in s; `heads` caches parsed heads."""

    __slots__ = ("between_bytes_s", "first_byte_s", "heads", "now", "total_s")

    first_byte_s: float
    between_bytes_s: float
    total_s: float
    now: float
    heads: dict[bytes, ResponseHead]

    def release(self, leg: UpstreamLeg, *, reusable: bool) -> None:
        """The exchange is over: the connection is idle, or closing if it is not reusable."""
        raise NotImplementedError

    def remove(self, leg: UpstreamLeg) -> None:
        """The connection is no longer open."""
        raise NotImplementedError

    def lost(self, leg: UpstreamLeg, caller: Caller, error: UpstreamError, *, untouched: bool) -> None:
        """The exchange failed. `untouched`: not one byte of an answer was received."""
        raise NotImplementedError


class UpstreamLeg(Leg):
    """One upstream connection and its current exchange. It has the methods of an `asyncio.Protocol`.

    Fields are grouped by lifetime. `closed`: by us, or lost; `lost`: the loop has
    reported its end; `idle_since`: when it became idle or closing, on the loop's clock, s; `served`: the number of
    exchanges, including the current one.
    """

    __slots__ = (
        "address", "closed", "deadline", "idle_since", "lost", "owner", "served", "transport",
        "attempt", "head",  # the exchange
        "_answered", "_body", "_buffer", "_caller", "_chunked", "_ended", "_held", "_interim", "_reusable",
        "_total_deadline",
        "_last_bytes", "_last_head",  # the last answer's head, as received and as parsed
    )  # fmt: skip

    head: UpstreamHead
    attempt: int

    def __init__(self, owner: Owner, address: Address) -> None:
        self.owner = owner
        self.address = address
        self.transport = cast("asyncio.Transport", None)
        self.closed = self.lost = False
        self.served = 0
        self.idle_since = 0.0
        self.deadline = _FOREVER
        self._caller: Caller | None = None
        self._total_deadline = 0.0
        self._held = False
        self._buffer = b""
        self._last_bytes = b""
        self._last_head: ResponseHead | None = None

    # The exchange: called by the gateway.

    def start(self, head: UpstreamHead, caller: Caller, attempt: int) -> None:
        """Send the head of a request; then `caller` writes its body."""
        now = self.owner.now
        self.head = head
        self.attempt = attempt
        self._caller = caller
        self._chunked = head.length == CHUNKED
        self._ended = head.length == 0
        self._body: Body | None = None
        self._answered = False
        self._interim = 0
        self.deadline = now + self.owner.first_byte_s if self._ended else _FOREVER  # from the request's end
        self._total_deadline = now + self.owner.total_s  # _FOREVER marks a tunnel
        self.served += 1
        self.transport.write(request_head(head, self.address.origin.options, caller.id))
        caller.on_leg(self)

    def write(self, data: bytes) -> None:
        """Send body bytes, which are framed here. After a loss of the connection, which the caller knows, a no-op."""
        if not self.closed:
            self.transport.write(chunk(data) if self._chunked else data)

    def end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """The request's body is complete."""
        if self._chunked and not self.closed:
            options = self.address.origin.options
            self.transport.write(last_chunk(allowed_fields(trailers, options) if trailers else trailers))
        self._ended = True
        if not self._answered:
            self._expect_upstream()

    @property
    def customer(self) -> str:
        """Whose exchange it carries; "" where it carries none, or nobody's."""
        return customer_of(self._caller) if self._caller is not None else ""

    def cancel(self) -> None:
        """End the exchange and close the connection, since the rest of the answer would follow."""
        self._caller = None
        self._close(reusable=False)

    def pause_reading(self) -> None:
        """Back-pressure: the client is slower than the upstream. While reading is paused, there is no deadline."""
        if not self.closed:
            self.deadline = _FOREVER
            self._held = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.closed:
            self._expect_upstream()
            self._held = False
            self.transport.resume_reading()

    # The connection: called by the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)

    def pause_writing(self) -> None:
        if self._caller is not None:
            if not self._answered:
                self._expect_upstream()  # to read
            self._caller.on_upstream_paused()

    def resume_writing(self) -> None:
        if self._caller is not None:
            if not self._ended and not self._answered:
                self.deadline = _FOREVER  # now the client has to write
            self._caller.on_upstream_resumed()

    def data_received(self, data: bytes) -> None:
        caller = self._caller
        if caller is None:  # bytes without a request
            self._close(reusable=False)
            return
        try:
            if self._body is None:
                self._read_head(caller, data)
            else:
                if self._total_deadline != _FOREVER:
                    self.deadline = self.owner.now + self.owner.between_bytes_s
                body = self._body
                self._pass_on(caller, body, _fed(body, data))
        except (BadAnswer, BadFraming, httptools.HttpParserError) as fault:
            self._fail(UpstreamError(UpstreamReason.MALFORMED, f"the upstream's answer is malformed: {fault}"))

    def eof_received(self) -> bool:
        """The upstream has closed its side, which is the regular end of an answer without length only."""
        if self._caller is not None and isinstance(self._body, UntilCloseBody):
            self._finish(self._caller, b"", reusable=False)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = self.lost = True
        self.owner.remove(self)
        if self._caller is None:
            return
        if self._answered:
            self._fail(UpstreamError(UpstreamReason.TRUNCATED, "the upstream's answer was cut short"))
        else:
            self._fail(UpstreamError(UpstreamReason.CLOSED, CLOSED))

    def _expect_upstream(self) -> None:
        """Set the deadline for the upstream's next bytes. A tunnel has no such deadline."""
        if self._caller is not None and self._total_deadline != _FOREVER:
            self.deadline = self.owner.now + (self.owner.between_bytes_s if self._answered else self.owner.first_byte_s)

    def check_deadline(self, now: float) -> None:
        if self._caller is None:
            return
        if now > self._total_deadline:
            self._fail(UpstreamError(UpstreamReason.TIMEOUT, "the exchange took longer than `timeouts.total`"))
        elif now > self.deadline:
            name = "between_bytes" if self._answered else "first_byte"
            self._fail(UpstreamError(UpstreamReason.TIMEOUT, f"the upstream was silent longer than `timeouts.{name}`"))

    # Reading the answer.

    def _read_head(self, caller: Caller, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        head = self._last_head
        if head is not None and data.startswith(self._last_bytes) and self.head.method != "HEAD":
            rest = data[len(self._last_bytes) :]
        else:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4 or end > MAX_HEAD_BYTES:
                if len(data) > MAX_HEAD_BYTES:
                    raise BadAnswer(f"its head is longer than {MAX_HEAD_BYTES} bytes")
                self._buffer = data
                return
            head = self._parse(data[:end])
            rest = data[end:]
        if head.status < 200 and head.status != 101:
            self._take_interim(caller, head, rest)
            return
        if head.status == 101:
            if not _offered(head, self.head.upgrade):
                raise BadAnswer("it switches to a protocol that was not requested")
            head.keep_alive = False
            self._total_deadline = _FOREVER
        self._reusable = head.keep_alive
        if len(rest) == head.length and head.status != 101:  # complete in one read, the usual case
            self._body = _WHOLE
            self._answered = True
            caller.on_response(head)
            if self._caller is caller:
                self._finish(caller, rest, reusable=True)
            return
        body = _body_of(head)
        data = _fed(body, rest)  # before the caller knows the head: if the body is malformed, its client gets a 502
        self._body = body
        self._answered = True
        self.deadline = _FOREVER if head.status == 101 else self.owner.now + self.owner.between_bytes_s
        caller.on_response(head)
        if self._caller is caller:  # false if it refused the answer
            self._pass_on(caller, body, data)

    def _parse(self, head: bytes) -> ResponseHead:
        """Parse a head, or take it from the cache: most answers of an API differ only in their bodies."""
        if self.head.method == "HEAD" or len(head) > MEMO_HEAD_BYTES:
            return read_response_head(head, self.head.method)
        cache = self.owner.heads
        parsed = cache.get(head)
        if parsed is None:
            parsed = read_response_head(head, self.head.method)
            if len(cache) >= MEMO_HEADS:
                cache.clear()
            cache[head] = parsed
        self._last_bytes = head
        self._last_head = parsed
        return parsed

    def _take_interim(self, caller: Caller, head: ResponseHead, rest: bytes) -> None:
        self._interim += 1
        if self._interim > MAX_INTERIM:
            raise BadAnswer(f"more than {MAX_INTERIM} interim answers")
        caller.on_interim(head)
        if rest and self._caller is caller:
            self._read_head(caller, rest)

    def _pass_on(self, caller: Caller, body: Body, data: bytes) -> None:
        if body.done:
            self._finish(caller, data, reusable=not body.rest)
        else:
            caller.on_response_body(data, False)

    def _finish(self, caller: Caller, data: bytes, *, reusable: bool) -> None:
        body = self._body
        self._caller = None
        self._close(reusable=reusable and self._ended and self._reusable)
        if body is not None and body.trailers:
            caller.on_response_trailers(body.trailers)
        caller.on_response_body(data, True)

    def _fail(self, error: UpstreamError) -> None:
        caller = self._caller
        self._caller = None
        untouched = not self._answered and not self._interim and not self._buffer
        self._close(reusable=False)
        if caller is not None:
            self.owner.lost(self, caller, error, untouched=untouched)

    def _close(self, *, reusable: bool) -> None:
        self._body = None
        self._buffer = b""
        self.deadline = _FOREVER
        if reusable and not self.closed and not self.transport.is_closing():
            if self._held:  # the back-pressure of one client must not stop the next client's answer
                self._held = False
                self.transport.resume_reading()
            self.owner.release(self, reusable=True)
            return
        if not self.closed:
            self.closed = True
            self.owner.release(self, reusable=False)
            # A tunnel's last bytes are still sent. An aborted request must not look complete to the upstream.
            self.transport.close() if self._total_deadline == _FOREVER else self.transport.abort()


def customer_of(caller: Caller) -> str:
    """The customer of an exchange, "" for one without a key."""
    return caller.identity.customer if caller.identity is not None else ""


def _offered(head: ResponseHead, upgrade: bytes) -> bool:
    """Whether a 101 names exactly one protocol, which the request offered (RFC 9110 §7.8)."""
    offers = {offer.strip(b" \t").lower() for offer in upgrade.split(b",")}
    return head.fields.get(b"upgrade", b"").lower() in offers - {b""}


_WHOLE: Final = LengthBody(0)


def _fed(body: Body, data: bytes) -> bytes:
    """The bytes of the body in `data`. Raises BadFraming."""
    if not body.done:
        return body.feed(data) if data else data
    body.rest = data  # answers to HEAD, 204 and 304 have no body, so these bytes do not belong to them
    return b""


def _body_of(head: ResponseHead) -> Body:
    if head.length >= 0 and head.status != 101:
        return LengthBody(head.length)
    return ChunkedBody() if head.length == CHUNKED else UntilCloseBody()
