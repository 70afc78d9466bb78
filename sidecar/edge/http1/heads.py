"""HTTP/1.1 heads and framing as bytes: the only place that parses heads, and writes them and chunks (RFC 9112).

Reading: the parser (llhttp, strict) gets exactly one head, and `core.http` judges what it found.

Writing: a head is rendered once and kept with the object that it renders, an `UpstreamHead` for as long as its client
repeats the request and it goes to addresses of the same `HeadOptions`, a `ResponseHead` once per shape (the client's
minor version, and whether the connection closes).
The request id differs each time: it ends a request head, and the fields of this answer alone follow it in a response
head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import httptools

from sidecar.core.http.forward import Field, UpstreamHead, response_fields
from sidecar.core.http.problem import PROBLEM_JSON, Problem, phrase, problem_body
from sidecar.core.http.request import CHUNKED, Fields, HeadLimits, Request, bad, read_line, read_request, trimmed
from sidecar.core.http.response import ResponseHead, read_response, read_status_line

_ID: Final = b"X-Request-Id: "


class HeadOptions:
    """The changes to heads that an address asks for; made when settings are read, never for a request.

    `host` is the Host field, b"" for the client's, and `authority` for a client without one. `base` is before each
    path. `lines` are the fields that it gets, and `replaced` the lower-case names of those that it does not.
    """

    __slots__ = ("authority", "base", "host", "lines", "replaced")

    def __init__(
        self, host: bytes, base: str, authority: bytes, fields: Sequence[Field], removed: frozenset[bytes]
    ) -> None:
        self.host = host
        self.base = base
        self.authority = authority
        self.lines = b"".join(_lines(fields))
        self.replaced = removed.union([name.lower() for name, _ in fields])


def read_request_head(head: bytes, limits: HeadLimits) -> Request | Problem:
    """Read a client's head, whole and with its empty line, or the problem that refuses it."""
    if len(head) > limits.head_bytes:
        return head_too_large(limits)
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
    return read_request(line, trimmed(head, fields.items), limits)


def head_too_large(limits: HeadLimits) -> Problem:
    """The refusal of a head that is longer than it may be."""
    return Problem(431, "header-too-large", f"the head is longer than {limits.head_bytes} bytes")


def read_response_head(head: bytes, method: str) -> ResponseHead:
    """Read the head of an upstream's answer to `method`. Raises BadAnswer and httptools.HttpParserError."""
    fields = Fields()
    parser = httptools.HttpResponseParser(fields)
    line = read_status_line(head)
    try:  # noqa: SIM105 - a context manager costs more than the parse
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass
    return read_response(line, trimmed(head, fields.items), method)


def request_head(head: UpstreamHead, options: HeadOptions, request_id: bytes) -> bytes:
    """The request head as it goes up to an address of these options."""
    if head.prepared_for is not options:
        head.prepared = _render_request(head, options)
        head.prepared_for = options
    return b"".join((head.prepared, request_id, b"\r\n\r\n"))


def _render_request(head: UpstreamHead, options: HeadOptions) -> bytes:
    target = options.base + head.target
    host = options.host or head.host or options.authority
    line = b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (head.method.encode(), target.encode(), host)
    fields = allowed_fields(head.fields, options)
    if head.length > 0 or head.has_length:
        framing = b"Content-Length: %d\r\n" % head.length
    elif head.length == CHUNKED:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif head.upgrade:
        framing = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.upgrade
    else:
        framing = b""
    return b"".join([line, *_lines(fields), options.lines, framing, _ID])


def allowed_fields(fields: list[Field], options: HeadOptions) -> list[Field]:
    """The fields, of a head or of trailers, that go to an address of these options."""
    if not options.replaced:
        return fields
    return [field for field in fields if field[0].lower() not in options.replaced]


def response_head(head: ResponseHead, minor: int, via: bytes, *, close: bool) -> tuple[bytes, bool]:
    """An answer's head for a client of HTTP/1.`minor`, up to the request id; and whether its body is chunked.

    `via` is the value of the Via field.
    """
    shape = (minor, close)
    prepared = head.prepared.get(shape)
    if prepared is None:
        prepared = head.prepared[shape] = _render_response(head, minor, via, close=close)
    return prepared


def _render_response(head: ResponseHead, minor: int, via: bytes, *, close: bool) -> tuple[bytes, bool]:
    chunked = False
    if head.bodyless:
        length = head.fields.get(b"content-length")
        framed = length and head.status >= 200 and head.status != 204
        framing = b"Content-Length: %d\r\n" % int(length or b"0") if framed else b""
    elif head.length >= 0:
        framing = b"Content-Length: %d\r\n" % head.length
    else:
        chunked = minor == 1
        framing = b"Transfer-Encoding: chunked\r\n" if chunked else b""
    if close or (minor == 0 and head.length < 0):
        connection = b"Connection: close\r\n"
    else:
        connection = b"" if minor else b"Connection: keep-alive\r\n"
    lines = [_status_line(head), *_lines(response_fields(head)), framing, connection, b"Via: %b\r\n" % via, _ID]
    return b"".join(lines), chunked


def switching_head(head: ResponseHead, upgrade: bytes, via: bytes) -> bytes:
    """A 101 up to the request id: the one answer whose Connection and Upgrade belong to both hops.

    `upgrade` is the protocol that the client offered, for an upstream that does not repeat it.
    """
    protocol = head.fields.get(b"upgrade", upgrade)
    line = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n" % protocol
    return b"".join([line, *_lines(response_fields(head)), b"Via: %b\r\n" % via, _ID])


def complete_head(prepared: bytes, request_id: bytes, fields: Sequence[Field]) -> bytes:
    """A response head: the rendered part, the id that it ends with, and the fields of this answer alone."""
    if len(fields) == 2:  # RateLimit-Policy and RateLimit, as on most answers: one tuple is cheaper than a list
        (name, value), (other, last) = fields
        return b"".join((prepared, request_id, b"\r\n", name, b": ", value, b"\r\n", other, b": ", last, b"\r\n\r\n"))
    return b"".join([prepared, request_id, b"\r\n", *_lines(fields), b"\r\n"])


def interim_head(head: ResponseHead) -> bytes:
    """A 1xx other than 101, without a length: it has no body (RFC 9110 §8.6)."""
    return b"".join([_status_line(head), *_lines(response_fields(head)), b"\r\n"])


def problem_answer(
    problem: Problem, request_id: bytes = b"", fields: Sequence[Field] = (), *, close: bool, bodyless: bool = False
) -> bytes:
    """A whole answer of our own. `bodyless` for HEAD: the length stays, the body is left out."""
    body = problem_body(problem, request_id.decode()) if problem.status != 204 else b""
    lines = [
        b"HTTP/1.1 %d %b\r\n" % (problem.status, phrase(problem.status)),
        b"Content-Type: %b\r\nContent-Length: %d\r\n" % (PROBLEM_JSON, len(body)) if body else b"",
        b"Cache-Control: no-store\r\n",
        *_lines(problem.headers),
        _ID + request_id + b"\r\n" if request_id else b"",
        *_lines(fields),
        b"Connection: close\r\n\r\n" if close else b"\r\n",
        b"" if bodyless else body,
    ]
    return b"".join(lines)


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: Sequence[Field] = ()) -> bytes:
    """The end of a chunked body, with its trailers."""
    return b"0\r\n%b\r\n" % b"".join(_lines(trailers))


def _status_line(head: ResponseHead) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason or phrase(head.status))


def _lines(fields: Sequence[Field]) -> list[bytes]:
    return [b"%b: %b\r\n" % field for field in fields]
