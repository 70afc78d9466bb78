"""The clients' side: heads read strictly and one at a time, bodies fed on, answers written in order.

One connection is one protocol object and one state. The next request's bytes are not looked at before the answer to
this one is complete, so pipelined answers come in order and no byte of one request is read as another's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple, cast

import httptools

from sidecar.core.http.body import BadFraming, Body, ChunkedBody, LengthBody
from sidecar.core.http.problem import Problem, problem_answer, too_large
from sidecar.core.http.request import CHUNKED, Fields, HeadLimits, Request, bad, read_line, read_request
from sidecar.ports import Client, Exchange

HEAD: Final = "head"
BODY: Final = "body"
WAIT: Final = "wait"
SKIP: Final = "skip"
TUNNEL: Final = "tunnel"
LINGER: Final = "linger"
PIPELINED_BYTES: Final = 64 * 1024  # of later requests, held while one is answered
HIGH_WATER_BYTES: Final = 256 * 1024
SKIPPED_BYTES: Final = 64 * 1024  # of a refused request's body, read past so that the connection can go on
DRAIN_IDLE_S: Final = 0.5  # for the request of an idle client that was on its way when the drain began
LINGER_S: Final = 1.0  # a short read after our FIN, so that a 4xx is not lost to a reset
KEPT_S: Final = 5.0  # of an idle client's head; one that comes again is read anew
_FOREVER: Final = float("inf")
_NO_REQUEST: Final = Request("", 1, [])


class Timeouts(NamedTuple):
    """Seconds, and bytes a second. `stalled_s`: a client that reads nothing of an answer for so long is cut."""

    head_s: float = 10.0
    idle_s: float = 60.0
    body_grace_s: float = 10.0
    body_min_bytes_per_s: int = 100
    stalled_s: float = 60.0


class Listener:
    """What the connections of one worker share. `serve(request, client)` makes the exchange of a request."""

    def __init__(
        self,
        serve: Callable[[Request, Client], Exchange],
        *,
        limits: HeadLimits | None = None,
        timeouts: Timeouts | None = None,
        max_body_bytes: int = 1 << 40,
        refused: Callable[[Problem], None] = lambda _problem: None,
    ) -> None:
        self.serve = serve
        self.connections: set[Downstream] = set()
        self.limits = limits or HeadLimits()
        self.timeouts = timeouts or Timeouts()
        self.max_body_bytes = max_body_bytes
        self.refused = refused
        self.now = 0.0
        self.draining = False
        self.empty = asyncio.Event()
        self.empty.set()

    def __call__(self) -> Downstream:
        return Downstream(self)

    @property
    def limits(self) -> HeadLimits:
        """The bounds of a head. Where they change, heads that were judged before are judged again."""
        return self._limits

    @limits.setter
    def limits(self, limits: HeadLimits) -> None:
        self._limits = limits
        for connection in self.connections:
            connection.forget_head()

    def sweep(self, now: float) -> None:
        """The wheel's turn: every connection's deadline is looked at a few times a second."""
        self.now = now
        for connection in list(self.connections):
            if now > connection.deadline:
                connection.on_deadline(now)
            elif now > connection.forget_at:
                connection.forget_head()

    def drain(self) -> None:
        """Idle connections close soon, busy ones after their answer."""
        self.draining = True
        for connection in list(self.connections):
            connection.on_drain()

    async def gone(self) -> None:
        """Wait until every connection has closed, and all that was written to it has been sent."""
        await self.empty.wait()

    def abort(self) -> None:
        """The drain's deadline has passed."""
        for connection in list(self.connections):
            connection.on_abort()


class Downstream(Client):
    """One client connection: `ports.Client` for the exchange that it carries, an `asyncio.Protocol` by its methods."""

    __slots__ = (
        "_buffer", "_house", "_pumping", "_reading", "_stalled", "_transport", "deadline", "forget_at",
        "peer", "state", "tls",  # the connection
        "_body", "_body_bytes", "_body_since", "_eof", "_exchange", "_expects", "_minor",  # the request
        "_last_bytes", "_last_head", "_last_request",  # the head before, for clients that send the same again
    )  # fmt: skip

    def __init__(self, house: Listener) -> None:
        self._house = house
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._buffer = b""
        self._pumping = False
        self._reading = True
        self._stalled = False  # the client reads slower than we write: its next request can wait
        self._eof = False
        self._expects = False
        self.state = HEAD
        self.deadline = _FOREVER
        self._exchange: Exchange | None = None
        self._body: Body | None = None
        self._body_bytes = 0
        self._body_since = 0.0
        self._minor = 1
        self.forget_at = _FOREVER
        self._last_bytes = 0
        self._last_head = b""
        self._last_request = _NO_REQUEST

    # What the exchange asks (ports.Client).

    def interim(self, head: bytes) -> None:
        if self._minor:
            self.write(head)

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def finish(self, *, close: bool) -> None:
        self._exchange = None
        unread = self.state == BODY or bool(self._buffer)
        house = self._house
        self.forget_at = house.now + KEPT_S
        self.deadline = house.now + (DRAIN_IDLE_S if house.draining else house.timeouts.idle_s)
        if close or (self.state is BODY and not self.skips()) or (self._eof and not self._buffer):
            self._leave(linger=unread)
            return
        if self.state is BODY:
            self.state = SKIP
            self.resume_reading()
            self._skip(b"")
            return
        self.state = HEAD
        self.resume_reading()
        if self._buffer and not self._pumping:
            self._pump()

    def skips(self) -> bool:
        body = self._body
        return not self._expects and isinstance(body, LengthBody) and body.left <= SKIPPED_BYTES

    def cut(self) -> None:
        self._exchange = None
        self.state = LINGER
        self._transport.abort()

    def tunnel(self) -> None:
        if self._buffer:  # bytes before our 101 belong to no protocol yet
            self.on_abort()
            return
        self.state = TUNNEL
        self.deadline = _FOREVER
        self.resume_reading()

    def pause_reading(self) -> None:
        if self._reading and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._reading and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    # What the loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        self.tls = transport.get_extra_info("ssl_object") is not None
        self._house.connections.add(self)
        self._house.empty.clear()
        self.deadline = self._house.now + (DRAIN_IDLE_S if self._house.draining else self._house.timeouts.head_s)

    def data_received(self, data: bytes) -> None:
        state = self.state
        if state is HEAD:
            if self._buffer:
                self._buffer += data
            else:
                self._buffer = data
                self.deadline = self._house.now + self._house.timeouts.head_s
            self._pump()
        elif state is BODY:
            self._take_body(data)
        elif state is TUNNEL:
            if self._exchange is not None:
                self._exchange.on_body(data)
        elif state is SKIP:
            self._skip(data)
        elif state is WAIT:
            self._buffer += data
            if len(self._buffer) > PIPELINED_BYTES:
                self.pause_reading()

    def eof_received(self) -> bool:
        """A half-closed client may still read: it is gone only when a write fails (or its request cannot end)."""
        self._eof = True
        exchange = self._exchange
        if self.state is TUNNEL and exchange is not None:
            exchange.on_body_end([])
            return True
        if self.state is BODY and exchange is not None:
            self._gone(exchange)
            return False
        waits = exchange is not None or (self._stalled and bool(self._buffer))
        return waits and not self.tls

    def connection_lost(self, exc: Exception | None) -> None:
        self._house.connections.discard(self)
        if not self._house.connections:
            self._house.empty.set()
        exchange = self._exchange
        self.state = LINGER
        self._buffer = b""
        if exchange is not None:
            self._gone(exchange)

    def pause_writing(self) -> None:
        self._stalled = True
        self.deadline = self._house.now + self._house.timeouts.stalled_s
        if self._exchange is not None:
            self._exchange.on_client_paused()

    def resume_writing(self) -> None:
        self._stalled = False
        if self._exchange is not None:
            self.deadline = _FOREVER if self.state is not BODY else self._house.now + self._house.timeouts.body_grace_s
            self._exchange.on_client_resumed()
            return
        self.deadline = self._house.now + self._house.timeouts.idle_s
        self._pump()

    def on_drain(self) -> None:
        """An idle client may have sent its next request already: it gets a moment, and an answer that says close."""
        if self.state is HEAD and not self._buffer:
            self.deadline = min(self.deadline, self._house.now + DRAIN_IDLE_S)

    def on_abort(self) -> None:
        """Cut from our side: the exchange learns of it, so that it ends in its record."""
        exchange = self._exchange
        self.cut()
        if exchange is not None:
            exchange.on_client_gone()

    def forget_head(self) -> None:
        """The next head is judged anew, even if it is the same again."""
        self.forget_at = _FOREVER
        self._last_head = b""
        self._last_request = _NO_REQUEST

    def on_deadline(self, now: float) -> None:
        """Too slow, in one of four ways: a head, a body, a pause between requests, a reader."""
        if self.state is HEAD and self._buffer:
            self._refuse(Problem(408, "head-timeout", "the request head did not come in `http.head_timeout`"))
        elif self.state is BODY and self._exchange is not None and not self._stalled:
            self._check_pace(now)
        elif self._exchange is not None:
            self.on_abort()
        else:
            self._transport.abort() if self.state is LINGER else self._leave(linger=False)

    def _check_pace(self, now: float) -> None:
        timeouts = self._house.timeouts
        if self._reading and self._body_bytes < (now - self._body_since) * timeouts.body_min_bytes_per_s:
            self._broken(Problem(408, "body-timeout", "the request body came slower than `http.body_min_rate`"))
        else:
            self._body_bytes = 0
            self._body_since = now
            self.deadline = now + timeouts.body_grace_s

    # Heads.

    def _pump(self) -> None:
        """Serve what has arrived, one request after the other, without recursion."""
        self._pumping = True
        try:
            while self.state is HEAD and self._buffer and not self._stalled:
                buffer = self._buffer
                end = buffer.find(b"\r\n\r\n") + 4
                if end < 4:
                    self._wait_for_more(buffer)
                    return
                if end == len(buffer):
                    self._buffer = b""
                else:
                    self._buffer = buffer[end:]
                    buffer = buffer[:end]
                self._take_head(buffer)
        finally:
            self._pumping = False

    def _wait_for_more(self, buffer: bytes) -> None:
        limits = self._house.limits
        if self._eof:  # what is left of a half-closed client is no request
            self._leave(linger=False)
        elif buffer.startswith(b"\r\n"):  # RFC 9112 §2.2: an empty line before the request line is ignored, once
            self._buffer = buffer[2:]
        elif b"\n\n" in buffer or b"\n" in buffer.replace(b"\r\n", b"") or b"\r\r" in buffer:
            self._refuse(bad("a line ends without CRLF"))
        elif len(buffer) > limits.target_bytes + 64 and b"\r\n" not in buffer:
            self._refuse(Problem(414, "target-too-long", f"longer than {limits.target_bytes} bytes"))
        elif len(buffer) > limits.head_bytes:
            self._refuse(_head_too_large(limits))

    def _take_head(self, head: bytes) -> None:
        house = self._house
        if head.startswith(b"\r\n"):
            head = head[2:]
        if head == self._last_head:
            request = self._last_request
        else:
            read = self._read(head)
            if isinstance(read, Problem):
                self._refuse(read)
                return
            request = read
            if len(head) == self._last_bytes:  # it may come again; most connections see one request, or others each
                self._last_request = read
                self._last_head = head
            self._last_bytes = len(head)
        self._minor = request.minor
        length = request.length
        if length == 0:
            self.state = WAIT
            self.deadline = _FOREVER
            exchange = house.serve(request, self)
            if self.state is WAIT:  # else it was answered while it was being made
                self._exchange = exchange
            return
        if length > house.max_body_bytes:
            self._refuse(too_large(house.max_body_bytes))
            return
        self._start_body(request)

    def _read(self, head: bytes) -> Request | Problem:
        limits = self._house.limits
        if len(head) > limits.head_bytes:
            return _head_too_large(limits)
        line = read_line(head, limits)
        if isinstance(line, Problem):
            return line
        fields = Fields()
        try:
            httptools.HttpRequestParser(fields).feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # the head is whole, and what follows it is ours to judge
        except httptools.HttpParserError as fault:
            return bad(f"the request head is malformed: {fault}")
        return read_request(line, fields.items, limits)

    def _refuse(self, problem: Problem) -> None:
        """The request as such is wrong: answer, and never read another byte as a request."""
        self._house.refused(problem)
        self.write(problem_answer(problem, close=True))
        self._exchange = None
        self._leave(linger=True)

    # Bodies.

    def _start_body(self, request: Request) -> None:
        self._body = ChunkedBody() if request.length == CHUNKED else LengthBody(request.length)
        self._body_bytes = 0
        self._body_since = self._house.now
        self._expects = request.expect
        self.state = BODY
        self.deadline = self._house.now + self._house.timeouts.body_grace_s
        exchange = self._house.serve(request, self)
        if self.state is BODY:
            self._exchange = exchange
        if self.state is BODY and self._buffer:
            data, self._buffer = self._buffer, b""
            self._take_body(data)

    def _take_body(self, data: bytes) -> None:
        body, exchange = self._body, self._exchange
        if body is None or exchange is None:
            return
        try:
            piece = body.feed(data)
        except BadFraming as fault:
            self._broken(bad(f"the request body is malformed: {fault}"))
            return
        self._body_bytes += len(data)
        if piece:
            exchange.on_body(piece)
        if body.done and self.state is BODY:
            self._buffer = body.rest
            self.state = WAIT
            self.deadline = _FOREVER
            exchange.on_body_end(body.trailers)

    def _skip(self, data: bytes) -> None:
        """Read past the rest of a body whose request was answered; what comes after it is the next request."""
        body = self._body
        data, self._buffer = self._buffer + data, b""
        if body is None or not data:
            return
        body.feed(data)
        if body.done:
            self._buffer = body.rest
            self.state = HEAD
            if self._buffer and not self._pumping:
                self._pump()

    def _broken(self, problem: Problem) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self._house.refused(problem)
            exchange.on_body_broken(problem)

    # Ends.

    def _gone(self, exchange: Exchange) -> None:
        self._exchange = None
        self.state = LINGER
        exchange.on_client_gone()

    def _leave(self, *, linger: bool) -> None:
        """Flush and close; where the client may still be sending: FIN, a short read, then close."""
        self.state = LINGER
        self._buffer = b""
        transport = self._transport
        if transport.is_closing():
            return
        unsent = transport.get_write_buffer_size()  # is still sent, to a client that reads
        self.deadline = self._house.now + (self._house.timeouts.stalled_s if unsent else LINGER_S)
        if linger and transport.can_write_eof():
            self.resume_reading()
            transport.write_eof()
        else:
            transport.close()


def _head_too_large(limits: HeadLimits) -> Problem:
    detail = f"the head is longer than {limits.head_bytes} bytes; the operator can raise `http.head_bytes`"
    return Problem(431, "header-too-large", detail)


__all__ = ["Downstream", "Listener", "Timeouts"]
