"""One client connection: heads read strictly and one at a time, bodies fed on, answers written in order.

It is one protocol object with one state. The bytes of the next request are not looked at before the answer to this one
is complete, so pipelined answers come in order and no byte of one request is read as another's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, cast

from sidecar.core.http.body import BadFraming, Body, ChunkedBody, LengthBody
from sidecar.core.http.forward import Field
from sidecar.core.http.problem import Problem, too_large
from sidecar.core.http.request import CHUNKED, Request, bad
from sidecar.core.http.response import ResponseHead
from sidecar.edge.http1.heads import (
    chunk,
    complete_head,
    head_too_large,
    interim_head,
    last_chunk,
    problem_answer,
    read_request_head,
    response_head,
    switching_head,
)
from sidecar.edge.http1.large_heads import LARGE_BYTES
from sidecar.edge.http1.peers import acknowledged_bytes, address_of
from sidecar.ports import Client, Exchange

if TYPE_CHECKING:
    from sidecar.edge.http1.listener import Listener

HEAD: Final = "head"
QUEUED: Final = "queued"  # a large head waits for its turn
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
REMEMBERED_S: Final = 5.0  # of an idle client's head; one that comes again is read anew
_BLANK_LINE: Final = b"\r\n"  # before a head; it stays in the buffer, so that the head's deadline counts from it
_FOREVER: Final = float("inf")
_NO_REQUEST: Final = Request("", 1, [])


class Downstream(Client):
    """One client connection: `ports.Client` for the exchange that it carries, an `asyncio.Protocol` by its methods."""

    __slots__ = (
        "_buffer", "_listener", "_pumping", "_reading", "stalled", "_taken", "_transport", "deadline", "forget_at",
        "peer", "state", "tls",  # the connection
        "_body", "_body_bytes", "_body_since", "_eof", "_exchange", "_expects", "_request",  # the request
        "_chunked", "_closes", "_has_answer", "_head",  # the answer: `_head` waits for what follows it
        "_last_bytes", "_last_head", "_last_request",  # the head before, for clients that send the same again
    )  # fmt: skip

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._buffer = b""
        self._pumping = False
        self._reading = True
        self.stalled = False  # the client reads slower than we write: its next request can wait
        self._taken = -1  # bytes, at the last look at a slow client; -1: none yet, the first is at the next tick
        self._eof = False
        self._expects = False
        self.state = HEAD
        self.deadline = _FOREVER
        self._exchange: Exchange | None = None
        self._body: Body | None = None
        self._body_bytes = 0
        self._body_since = 0.0
        self._request = _NO_REQUEST
        self._closes = self._chunked = self._has_answer = False
        self._head = b""
        self.forget_at = _FOREVER
        self._last_bytes = 0
        self._last_head = b""
        self._last_request = _NO_REQUEST

    # The answer (ports.Client).

    def interim(self, head: ResponseHead) -> None:
        if self._request.minor:
            self._write(interim_head(head))

    def respond(self, head: ResponseHead, request_id: bytes, fields: Sequence[Field]) -> None:
        listener, request = self._listener, self._request
        minor = request.minor
        if head.status == 101:
            self._write(complete_head(switching_head(head, request.upgrade, listener.via), request_id, fields))
            return self._switch()
        # An HTTP/1.0 client knows the end of an answer without length by the close.
        closes = self._closes = self._closes or listener.draining or (head.length < 0 and not minor)
        self._has_answer = True
        prepared, self._chunked = response_head(head, minor, listener.via, close=closes)
        self._head = complete_head(prepared, request_id, fields)
        return None

    def body(self, data: bytes) -> None:
        if self._chunked and data:
            data = chunk(data)
        if self._head:
            data = self._head + data
            self._head = b""
        self._write(data)

    def end(self, data: bytes, trailers: list[Field]) -> None:
        if self._chunked:
            data = b"".join((self._head, chunk(data) if data else b"", last_chunk(trailers)))
        elif self._head:
            data = self._head + data
        self._head = b""
        self._chunked = False
        if data:
            self._write(data)
        self._finish()

    def refuse(self, problem: Problem, request_id: bytes, fields: Sequence[Field]) -> None:
        unread = self.state is BODY and not self._skips()
        closes = self._closes = self._closes or self._listener.draining or unread
        bodyless = self._request.method == "HEAD"
        self._write(problem_answer(problem, request_id, fields, close=closes, bodyless=bodyless))
        self._finish()

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def _finish(self) -> None:
        """The answer is complete: take the next request, or close once all is flushed."""
        self._exchange = None
        unread = self.state == BODY or bool(self._buffer)
        listener = self._listener
        self.forget_at = listener.now + REMEMBERED_S
        wait_s = listener.timeouts.head_s if self._buffer else listener.timeouts.idle_s
        self.deadline = listener.now + (DRAIN_IDLE_S if listener.draining else wait_s)
        if self._closes or (self.state is BODY and not self._skips()) or (self._eof and not self._buffer):
            return self._leave(linger=unread)
        if self.state is BODY:
            self.state = SKIP
            self.resume_reading()
            return self._skip(b"")
        self.state = HEAD
        self.resume_reading()
        return self._pump() if self._buffer and not self._pumping else None

    def _skips(self) -> bool:
        """The rest of the request's body is short and sure to come: the connection can go on without it."""
        body = self._body
        return not self._expects and isinstance(body, LengthBody) and body.left <= SKIPPED_BYTES

    def cut(self) -> None:
        self._exchange = None
        self.state = LINGER
        self._transport.abort()

    def _switch(self) -> None:
        """A 101 was sent: from now on bytes pass raw."""
        self._closes = True
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

    # The connection (asyncio.Protocol).

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        self.peer = address_of(transport)
        self.tls = transport.get_extra_info("ssl_object") is not None
        listener = self._listener
        listener.connections.add(self)
        listener.empty.clear()
        self.deadline = listener.now + (DRAIN_IDLE_S if listener.draining else listener.timeouts.head_s)

    def data_received(self, data: bytes) -> None:
        state = self.state
        if state is HEAD:
            if self._buffer:
                self._buffer += data
            else:
                self._buffer = data
                self.deadline = self._listener.now + self._listener.timeouts.head_s
            self._pump()
        elif state is BODY:
            self._take_body(data)
        elif state is TUNNEL:
            if self._exchange is not None:
                self._exchange.on_body(data)
        elif state is SKIP:
            self._skip(data)
        elif state is WAIT or state is QUEUED:
            self._buffer += data
            if len(self._buffer) > PIPELINED_BYTES:
                self.pause_reading()

    def eof_received(self) -> bool:
        """The client has closed its side: it has left, unless its route allows that it still reads (`half_close`)."""
        self._eof = True
        exchange = self._exchange
        if self.state is TUNNEL and exchange is not None:
            exchange.on_body_end([])
            return True
        if exchange is not None and (self.state is BODY or self.tls or not exchange.half_close):
            self._gone(exchange)
            return False
        return exchange is not None or (self.stalled and bool(self._buffer) and not self.tls)

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.connections.discard(self)
        if not self._listener.connections:
            self._listener.empty.set()
        exchange = self._exchange
        self.state = LINGER
        self._buffer = b""
        if exchange is not None:
            self._gone(exchange)

    def pause_writing(self) -> None:
        self.stalled = True
        self._taken = -1
        self.deadline = self._listener.now
        if self._exchange is not None:
            self._exchange.on_client_paused()

    def resume_writing(self) -> None:
        self.stalled = False
        listener = self._listener
        if self._exchange is not None:
            self.deadline = listener.now + listener.timeouts.body_grace_s if self.state is BODY else _FOREVER
            self._exchange.on_client_resumed()
            return
        self.deadline = listener.now + listener.timeouts.idle_s
        self._pump()

    def on_drain(self) -> None:
        """An idle client may have sent its next request already: it gets a moment, and an answer that says close."""
        if self.state is HEAD and len(self._buffer) <= len(_BLANK_LINE):
            self.deadline = min(self.deadline, self._listener.now + DRAIN_IDLE_S)

    def idle_since(self) -> float:
        """Since when it waits for a request, or for the rest of a head; infinity: it does not."""
        if self.state is not HEAD or self.stalled:
            return _FOREVER
        timeouts = self._listener.timeouts
        return self.deadline - (timeouts.idle_s if self._last_bytes and not self._buffer else timeouts.head_s)

    def close_idle(self) -> bool:
        """Make room for another connection, unless this one has a request by now. Returns whether it does."""
        is_idle = self.idle_since() < _FOREVER
        if is_idle:
            self._leave(linger=False)
        return is_idle

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

    def end_overdue(self, now: float) -> None:
        """The deadline has passed. A fault of ours ends this connection and not the check of all the others."""
        try:
            self.on_deadline(now)
        except Exception as error:  # noqa: BLE001 - whatever it is
            fault = {"message": "a client's deadline could not be kept", "exception": error}
            asyncio.get_running_loop().call_exception_handler(fault)
            self._transport.abort()

    def on_deadline(self, now: float) -> None:
        """Too slow, in one of four ways: a head, a body, a pause between requests, a reader.

        A body is not slow once its answer has begun: the upstream's deadlines end an exchange without progress.
        """
        if self.stalled and self._is_reading(now):
            return
        if self.state is HEAD and len(self._buffer) > len(_BLANK_LINE):
            self._refuse(Problem(408, "head-timeout", "the request head did not come in time"))
        elif self.state is BODY and self._exchange is not None and not self.stalled:
            self._check_pace(now)
        elif self._exchange is not None:
            self.on_abort()
        else:
            self._transport.abort() if self.state is LINGER else self._leave(linger=False)

    def _is_reading(self, now: float) -> bool:
        """Whether the client took some of its answer since the last look: then it has as long again."""
        before, self._taken = self._taken, acknowledged_bytes(self._transport)
        if self._taken == before:
            return False
        self.deadline = (now if before >= 0 else self.deadline) + self._listener.timeouts.stalled_s
        return True

    def _check_pace(self, now: float) -> None:
        timeouts = self._listener.timeouts
        is_slow = self._body_bytes < (now - self._body_since) * timeouts.body_min_bytes_per_s
        if self._reading and not self._has_answer and is_slow:
            self._broken(Problem(408, "body-timeout", "the request body came too slowly"))
        else:
            self._body_bytes = 0
            self._body_since = now
            self.deadline = now + timeouts.body_grace_s

    # Heads.

    def _pump(self) -> None:
        """Serve what has arrived, one request after the other, without recursion."""
        self._pumping = True
        try:
            while self.state is HEAD and self._buffer and not self.stalled:
                buffer = self._buffer
                if buffer == self._last_head:  # whole, and read before
                    self._buffer = b""
                    self._serve(self._last_request)
                    continue
                end = buffer.find(b"\r\n\r\n") + 4
                if end < 4:
                    self._wait_for_more(buffer)
                    return
                if end > LARGE_BYTES and not self._listener.large_heads.is_due(self, buffer[:end]):
                    self._wait_in_queue()
                    return
                if end == len(buffer):
                    self._buffer = b""
                else:
                    self._buffer = buffer[end:]
                    buffer = buffer[:end]
                self._take_head(buffer)
        finally:
            self._pumping = False

    def _wait_in_queue(self) -> None:
        """Read no more meanwhile: so the end of the client's side is seen after its request, as it was sent."""
        self.state = QUEUED
        self.deadline = _FOREVER
        self.pause_reading()

    def read_queued(self) -> None:
        """Its turn has come (`LargeHeads`)."""
        if self.state is QUEUED:  # else the connection was closed meanwhile
            self.state = HEAD
            self.resume_reading()
            self._pump()

    def _wait_for_more(self, buffer: bytes) -> None:
        limits = self._listener.limits
        if self._eof:  # the rest of a half-closed client's bytes cannot become a request
            self._leave(linger=False)
        elif b"\n\n" in buffer or b"\n" in buffer.replace(b"\r\n", b"") or b"\r\r" in buffer:
            self._refuse(bad("a line ends without CRLF"))
        elif len(buffer) > limits.target_bytes + 64 and buffer.find(b"\r\n", 2) < 0:
            self._refuse(Problem(414, "target-too-long", f"longer than {limits.target_bytes} bytes"))
        elif len(buffer) > limits.head_bytes:
            self._refuse(head_too_large(limits))

    def _take_head(self, head: bytes) -> None:
        if head.startswith(_BLANK_LINE):  # RFC 9112 §2.2: ignored, once
            head = head[2:]
        if head == self._last_head:
            return self._serve(self._last_request)
        request = read_request_head(head, self._listener.limits)
        if isinstance(request, Problem):
            return self._refuse(request)
        if len(head) == self._last_bytes:  # it may come again; most connections see one request, or others each
            self._last_request = request
            self._last_head = head
        self._last_bytes = len(head)
        return self._serve(request)

    def _serve(self, request: Request) -> None:
        listener = self._listener
        self._request = request
        self._closes = not request.keep_alive
        length = request.length
        if length == 0:
            self.state = WAIT
            self.deadline = _FOREVER
            exchange = listener.serve(request, self)
            if self.state is WAIT:  # else it was answered while it was being made
                self._exchange = exchange
            return None
        if length > listener.max_body_bytes:
            return self._refuse(too_large(listener.max_body_bytes))
        return self._start_body(request)

    def _refuse(self, problem: Problem) -> None:
        """The request as such is wrong: answer, and never read another byte as a request."""
        self._listener.refused(problem)
        self._write(problem_answer(problem, close=True))
        self._exchange = None
        self._leave(linger=True)

    # Bodies.

    def _start_body(self, request: Request) -> None:
        self._body = ChunkedBody() if request.length == CHUNKED else LengthBody(request.length)
        self._has_answer = False
        self._body_bytes = 0
        self._body_since = self._listener.now
        self._expects = request.expect
        self.state = BODY
        self.deadline = self._listener.now + self._listener.timeouts.body_grace_s
        exchange = self._listener.serve(request, self)
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
        """Read past the rest of a body whose request was answered; the bytes after it are the next request."""
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
        self._closes = True
        if exchange is not None:
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
        # The rest is sent to a client that reads. Of TLS, the buffer below does not show in the size.
        self.stalled = self.tls or transport.get_write_buffer_size() > 0
        self._taken = -1
        self.deadline = self._listener.now + (0.0 if self.stalled else LINGER_S)
        if linger and transport.can_write_eof():
            self.resume_reading()
            transport.write_eof()
        else:
            transport.close()
