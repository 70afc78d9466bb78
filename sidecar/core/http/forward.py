"""Heads rebuilt for the next hop: hop-by-hop fields go, one canonical framing is set, and who we are is added.

RFC 9110 §7.6.1 (Connection), §7.6.3 (Via), RFC 7239 in its older spelling X-Forwarded-*.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Final

from sidecar.core.http.problem import phrase
from sidecar.core.http.request import CHUNKED, Request
from sidecar.core.http.response import UNTIL_CLOSE, ResponseHead

HOP_BY_HOP: Final = frozenset({
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
    b"transfer-encoding", b"upgrade", b"http2-settings",
})  # fmt: skip
# What we set ourselves on the way up: a client's own value is kept only where it is a named proxy.
_OURS_UP: Final = HOP_BY_HOP | {
    b"host", b"content-length", b"expect", b"via", b"forwarded", b"x-forwarded-for", b"x-forwarded-proto",
    b"x-forwarded-host", b"x-forwarded-port", b"x-real-ip", b"x-request-id",
    b"x-sidecar-customer", b"x-sidecar-subject", b"x-sidecar-key-id", b"x-sidecar-plan",
}  # fmt: skip
_OURS_DOWN: Final = HOP_BY_HOP | {b"content-length", b"via"}
# What we set ourselves is not said late by others either: a server that merges trailers would believe it.
_NOT_IN_TRAILERS: Final = _OURS_UP | {
    b"content-encoding", b"content-type", b"content-range", b"authorization", b"set-cookie",
    b"cache-control", b"max-forwards", b"range", b"age", b"date", b"location", b"retry-after", b"vary",
}  # fmt: skip


def dropped_with(credential: bytes) -> frozenset[bytes]:
    """The names dropped on the way up when the credential stood in this header; made once per route."""
    return _OURS_UP | {credential} if credential else _OURS_UP


@lru_cache(maxsize=4096)
def forwarded(peer: str, host: bytes, *, tls: bool) -> bytes:
    """Say who the client is, where no proxy before us may be believed; the same lines for all that it sends."""
    return b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n" % (
        peer.encode() or b"unknown",
        b"https" if tls else b"http",
        host,
    )


def forwarded_on(request: Request, peer: str, *, tls: bool) -> bytes:
    """The same where the peer is a named proxy: what it says is kept, and its own address is added."""
    chain = [value for value, name in _values(request) if name == b"x-forwarded-for"]
    kept = b"".join([b"%b: %b\r\n" % (_SPELLED[name], value) for value, name in _values(request) if name in _SPELLED])
    ours = forwarded(peer, request.host, tls=tls).splitlines(keepends=True)
    said = {name for _, name in _values(request)}
    more = [line for line in ours[1:] if line.partition(b":")[0].lower() not in said]
    return b"X-Forwarded-For: %b\r\n" % b", ".join([*chain, peer.encode()]) + kept + b"".join(more)


_SPELLED: Final = {
    b"x-forwarded-proto": b"X-Forwarded-Proto",
    b"x-forwarded-host": b"X-Forwarded-Host",
    b"x-forwarded-port": b"X-Forwarded-Port",
    b"forwarded": b"Forwarded",
}


def _values(request: Request) -> list[tuple[bytes, bytes]]:
    return [(value, name) for name, (_, value) in zip(request.names, request.headers, strict=True)]


def via(request: Request, pseudonym: bytes) -> bytes:
    """The Via line for the upstream: the client's own entries, then ours (RFC 9110 §7.6.3)."""
    before = [value for value, name in _values(request) if name == b"via"]
    return b"Via: %b\r\n" % b", ".join([*before, b"1.%d %b" % (request.minor, pseudonym)])


_TRACE: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


def trace(request: Request) -> str:
    """The client's traceparent where it is valid (W3C Trace Context §3.2), else ""."""
    value = request.fields[b"traceparent"]
    if b"traceparent" in request.repeated or not _TRACE.fullmatch(value) or (value[:2] == b"00" and len(value) != 55):
        return ""
    return value.decode("ascii")


def identity_lines(customer: str, subject: str, key_id: str, plan: str) -> bytes:
    """Who the caller is, for the upstream. A client's fields of these names never pass, so they cannot be forged."""
    return b"".join(
        [
            b"%b: %b\r\n" % (name, value.encode())
            for name, value in (
                (b"X-Sidecar-Customer", customer),
                (b"X-Sidecar-Subject", subject),
                (b"X-Sidecar-Key-Id", key_id),
                (b"X-Sidecar-Plan", plan),
            )
        ]
    )


def request_head(request: Request, query: str, dropped: frozenset[bytes], extra: bytes, *, length: int = 0) -> bytes:
    """The request head for the upstream, without its last empty line. `extra` is whole field lines.

    `length` > 0 is that of another body than the client's, where its own has a length.
    """
    if request.nominated:
        dropped = dropped | request.nominated
    target = f"{request.path}?{query}" if query else request.path
    kept = [
        b"%b: %b\r\n" % field for field, name in zip(request.headers, request.names, strict=True) if name not in dropped
    ]
    length = length if length and request.length > 0 else request.length
    if length > 0 or b"content-length" in request.fields:
        framing = b"Content-Length: %d\r\n" % length
    elif length == CHUNKED:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif request.upgrade:
        framing = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % request.upgrade
    else:
        framing = b""
    line = b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (request.method.encode(), target.encode(), request.host)
    return b"".join([line, *kept, framing, extra])


def response_head(head: ResponseHead, minor: int, *, close: bool) -> tuple[bytes, bool]:
    """The answer's head for a client of HTTP/1.`minor`, without its last line; and whether its body is chunked."""
    kept = _kept_down(head)
    chunked = False
    if head.bodyless:
        length = head.fields.get(b"content-length")
        framing = (
            b"Content-Length: %d\r\n" % int(length) if length and head.status >= 200 and head.status != 204 else b""
        )
    elif head.length >= 0:
        framing = b"Content-Length: %d\r\n" % head.length
    else:
        chunked = minor == 1
        framing = b"Transfer-Encoding: chunked\r\n" if chunked else b""
    if close or (minor == 0 and head.length < 0):
        connection = b"Connection: close\r\n"
    else:
        connection = b"" if minor else b"Connection: keep-alive\r\n"
    line = b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason or phrase(head.status))
    return b"".join([line, *kept, framing, connection]), chunked


def switching_head(head: ResponseHead, upgrade: bytes) -> bytes:
    """A 101 passed on: the one answer whose Connection and Upgrade belong to both hops."""
    kept = _kept_down(head)
    protocol = head.fields.get(b"upgrade", upgrade)
    line = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n" % protocol
    return b"".join([line, *kept])


def interim_head(head: ResponseHead) -> bytes:
    """A 1xx other than 101 passed on, without a length: it has no body (RFC 9110 §8.6)."""
    line = b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason or phrase(head.status))
    return b"".join([line, *_kept_down(head), b"\r\n"])


def _kept_down(head: ResponseHead) -> list[bytes]:
    dropped = _OURS_DOWN
    nominated = head.fields.get(b"connection")
    if nominated is not None and nominated.lower() not in {b"keep-alive", b"close"}:
        dropped = dropped | {t.strip(b" \t").lower() for t in nominated.split(b",")}
    return [b"%b: %b\r\n" % field for field, name in zip(head.headers, head.names, strict=True) if name not in dropped]


def trailers_allowed(
    trailers: list[tuple[bytes, bytes]], carriers: AbstractSet[bytes] = frozenset()
) -> list[tuple[bytes, bytes]]:
    """Only fields that cannot change framing, routing or identity may come late (RFC 9110 §6.5.1).

    `carriers` are the lower-case names of the headers that hold credentials: a late one is none.
    """
    dropped = _NOT_IN_TRAILERS | carriers
    return [field for field in trailers if field[0].lower() not in dropped and b"_" not in field[0]]


__all__ = [
    "HOP_BY_HOP", "UNTIL_CLOSE", "dropped_with", "interim_head", "request_head", "response_head", "switching_head",
    "trailers_allowed",
]  # fmt: skip
