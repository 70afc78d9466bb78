"""One connection to an upstream: one exchange at a time, read as strictly as a client, never reused after a doubt.

It knows bytes and time, not addresses: the pool picks the address, opens the connection and takes it back. A
connection is given back only when both messages ended cleanly and not a byte came after them.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import httptools

from sidecar.core.errors import UpstreamError
from sidecar.core.http.body import BadFraming, Body, ChunkedBody, LengthBody, UntilCloseBody, chunk, last_chunk
from sidecar.core.http.request import CHUNKED, Fields, Request
from sidecar.core.http.response import MAX_HEAD_BYTES, BadAnswer, ResponseHead, read_response, read_status_line
from sidecar.ports import Caller, Connection, Owner

MAX_INTERIM: Final = 16  # 1xx heads before the final one: endless 1xx would hold a client for ever
MEMO_HEADS: Final = 256  # heads judged before, per pool
MEMO_HEAD_BYTES: Final = 2048
HIGH_WATER_BYTES: Final = 256 * 1024
_FOREVER: Final = float("inf")


class UpstreamLeg(Connection):
    """One upstream connection, and the exchange that it carries now: an `asyncio.Protocol` by its methods.

    Fields are grouped by lifetime.
    """

    __slots__ = (
        "deadline", "owner", "paused",  # the connection
        "_answered", "_body", "_buffer", "_caller", "_chunked", "_ended", "_held", "_interim", "_reusable",
        "_total_deadline",  # the exchange
    )  # fmt: skip

    def __init__(self, owner: Owner, address: Any) -> None:
        self.owner = owner
        self.address = address
        self.transport = cast("asyncio.Transport", None)
        self.closed = False
        self.paused = False
        self.served = 0
        self.idle_since = 0.0
        self.deadline = _FOREVER
        self._caller: Caller | None = None
        self._total_deadline = 0.0
        self._held = False
        self._buffer = b""

    # The exchange, as the gateway drives it.

    def start(self, request: Request, head: bytes, caller: Caller, attempt: int) -> None:
        now = self.owner.now
        self.request = request
        self.head = head
        self.attempt = attempt
        self._caller = caller
        self._chunked = request.length == CHUNKED
        self._ended = request.length == 0
        self._body: Body | None = None
        self._answered = False
        self._interim = 0
        self.deadline = now + self.owner.first_byte_s if self._ended else _FOREVER  # it thinks when it has all
        self._total_deadline = now + self.owner.total_s  # _FOREVER marks a tunnel
        self.served += 1
        self.transport.write(head)
        caller.on_leg(self)

    def write(self, data: bytes) -> None:
        """Body bytes, framed here. After the connection was lost they go nowhere: the caller has been told."""
        if not self.closed:
            self.transport.write(chunk(data) if self._chunked else data)

    def end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """The request's body is complete."""
        if self._chunked and not self.closed:
            self.transport.write(last_chunk(trailers))
        self._ended = True
        if not self._answered:
            self._its_turn()

    def cancel(self) -> None:
        """Nothing more is wanted: an upstream mid-answer cannot serve again."""
        self._caller = None
        self._close(reusable=False)

    def pause_reading(self) -> None:
        """The client is slower than the upstream: stop reading, so that memory stays flat. Its clock stands."""
        if not self.closed:
            self.deadline = _FOREVER
            self._held = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.closed:
            self._its_turn()
            self._held = False
            self.transport.resume_reading()

    # The connection, as the loop drives it.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)

    def pause_writing(self) -> None:
        self.paused = True
        if self._caller is not None:
            if not self._answered:
                self._its_turn()  # to read
            self._caller.on_upstream_paused()

    def resume_writing(self) -> None:
        self.paused = False
        if self._caller is not None:
            if not self._ended and not self._answered:
                self.deadline = _FOREVER  # the client's turn again
            self._caller.on_upstream_resumed()

    def data_received(self, data: bytes) -> None:
        caller = self._caller
        if caller is None:  # a byte that nobody asked for
            self._close(reusable=False)
            return
        try:
            if self._body is None:
                self._read_head(caller, data)
            else:
                if self._total_deadline != _FOREVER:
                    self.deadline = self.owner.now + self.owner.between_bytes_s
                self._read_body(caller, self._body, data)
        except (BadAnswer, BadFraming, httptools.HttpParserError) as fault:
            self._fail(UpstreamError(502, "bad-upstream-answer", f"the upstream's answer is malformed: {fault}"))

    def eof_received(self) -> bool:
        """The upstream is done writing. Only an answer without length ends so."""
        if self._caller is not None and isinstance(self._body, UntilCloseBody):
            self._finish(self._caller, b"", reusable=False)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        caller = self._caller
        if caller is None:
            self.owner.release(self, reusable=False)
            return
        if self._answered:
            detail = "the upstream's answer was cut short"
        else:
            detail = "the upstream closed the connection before it answered"
        self._fail(UpstreamError(502, "upstream-truncated" if self._answered else "upstream-closed", detail))

    def _its_turn(self) -> None:
        """From now on a silence is the upstream's; a tunnel may be silent."""
        if self._caller is not None and self._total_deadline != _FOREVER:
            self.deadline = self.owner.now + (self.owner.between_bytes_s if self._answered else self.owner.first_byte_s)

    def sweep(self, now: float) -> None:
        if self._caller is None:
            return
        if now > self._total_deadline:
            self._fail(UpstreamError(504, "upstream-timeout", "the exchange took longer than `timeouts.total`"))
        elif now > self.deadline:
            name = "between_bytes" if self._answered else "first_byte"
            self._fail(UpstreamError(504, "upstream-timeout", f"the upstream was silent longer than `timeouts.{name}`"))

    # Reading the answer.

    def _read_head(self, caller: Caller, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
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
            if not _offered(head, self.request):
                raise BadAnswer("it switches to a protocol that nobody asked for")
            head.keep_alive = False
            self._total_deadline = _FOREVER
        self._answered = True
        self._reusable = head.keep_alive
        if len(rest) == head.length and head.status != 101:  # all of it in one read, as most answers are
            self._body = _WHOLE
            caller.on_response(head)
            if self._caller is caller:
                self._finish(caller, rest, reusable=True)
            return
        self._body = body = _body_of(head)
        self.deadline = _FOREVER if head.status == 101 else self.owner.now + self.owner.between_bytes_s
        caller.on_response(head)
        if self._caller is caller:  # it may have refused the answer
            self._read_body(caller, body, rest)

    def _parse(self, head: bytes) -> ResponseHead:
        """Judge a head, or find it among those judged before: most of an API's answers differ by their bodies only."""
        known = self.owner.heads
        found = known.get(head) if self.request.method != "HEAD" else None
        if found is None:
            found = self._judge(head)
            if self.request.method != "HEAD" and len(head) <= MEMO_HEAD_BYTES:
                if len(known) >= MEMO_HEADS:
                    known.clear()
                known[head] = found
        return found

    def _judge(self, head: bytes) -> ResponseHead:
        fields = Fields()
        parser = httptools.HttpResponseParser(fields)
        line = read_status_line(head)
        try:  # noqa: SIM105 - a context manager costs more than the parse
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass
        return read_response(line, fields.items, self.request.method)

    def _take_interim(self, caller: Caller, head: ResponseHead, rest: bytes) -> None:
        self._interim += 1
        if self._interim > MAX_INTERIM:
            raise BadAnswer(f"more than {MAX_INTERIM} interim answers")
        caller.on_interim(head)
        if rest and self._caller is caller:
            self._read_head(caller, rest)

    def _read_body(self, caller: Caller, body: Body, data: bytes) -> None:
        if not body.done:
            data = body.feed(data) if data else data
        elif data:  # HEAD, 204 and 304 have no body, whatever comes
            body.rest, data = data, b""
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
            if self._held:  # a client that was too slow must not stop the next one's answer
                self._held = False
                self.transport.resume_reading()
            self.owner.release(self, reusable=True)
            return
        if not self.closed:
            self.closed = True
            # A tunnel's last bytes still go up; what else was broken off must not look complete to the upstream.
            self.transport.close() if self._total_deadline == _FOREVER else self.transport.abort()
        self.owner.release(self, reusable=False)


def _offered(head: ResponseHead, request: Request) -> bool:
    """A 101 names the protocol, and only one that was offered (RFC 9110 §7.8)."""
    offers = {offer.strip(b" \t").lower() for offer in request.upgrade.split(b",")}
    return head.fields.get(b"upgrade", b"").lower() in offers - {b""}


_WHOLE: Final = LengthBody(0)


def _body_of(head: ResponseHead) -> Body:
    if head.length >= 0 and head.status != 101:
        return LengthBody(head.length)
    return ChunkedBody() if head.length == CHUNKED else UntilCloseBody()
