"""The fields of heads for the next hop: hop-by-hop fields are removed, and those of the gateway are added.

RFC 9110 §7.6.1 (Connection), §7.6.3 (Via), RFC 7239 in its older spelling X-Forwarded-*. How a head and the framing of
its body are written is a matter of the protocol's version, and of the edge that speaks it.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Final

from sidecar.core.http.request import Request
from sidecar.core.http.response import ResponseHead

Field = tuple[bytes, bytes]  # a name as it is spelled, and its value

HOP_BY_HOP: Final = frozenset({
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
    b"transfer-encoding", b"upgrade", b"http2-settings",
})  # fmt: skip
# What we set ourselves on the way up: a client's own value is kept only where it is a named proxy.
OURS_UP: Final = HOP_BY_HOP | {
    b"host", b"content-length", b"expect", b"via", b"forwarded", b"x-forwarded-for", b"x-forwarded-proto",
    b"x-forwarded-host", b"x-forwarded-port", b"x-real-ip", b"x-request-id",
    b"x-sidecar-customer", b"x-sidecar-subject", b"x-sidecar-key-id", b"x-sidecar-plan",
}  # fmt: skip
_OURS_DOWN: Final = HOP_BY_HOP | {b"content-length", b"via", b"x-request-id"}
# The gateway's own fields are not accepted late from others either: a server that merges trailers would believe them.
_NOT_IN_TRAILERS: Final = OURS_UP | {
    b"content-encoding", b"content-type", b"content-range", b"authorization", b"set-cookie",
    b"cache-control", b"max-forwards", b"range", b"age", b"date", b"location", b"retry-after", b"vary",
}  # fmt: skip


class UpstreamHead:
    """A request's head for the next hop, in the terms of no version of HTTP.

    `target` is the path with the query. `fields` are those that go up, without Host, the body's framing and the request
    id. `length` is that of the body that goes up, in bytes or CHUNKED; `has_length`: the client's head states one. An
    object may be sent again for the same head of a client; `prepared` belongs to the edge that sends it: what it
    rendered before, and `prepared_for` what. There is no reference to the Request, which refers to this: a cycle would
    stay in memory until the next garbage collection.
    """

    __slots__ = (
        "fields", "has_length", "host", "length", "method", "prepared", "prepared_for", "target", "upgrade",
    )  # fmt: skip

    def __init__(self, request: Request, target: str, fields: list[Field], length: int) -> None:
        self.method = request.method
        self.host = request.host
        self.upgrade = request.upgrade
        self.has_length = b"content-length" in request.fields
        self.target = target
        self.fields = fields
        self.length = length
        self.prepared = b""
        self.prepared_for: object = None


def upstream_target(request: Request, query: str, *, preserve: bool) -> str:
    """The path and the query that go up: in normal form, or as the client wrote them.

    `query` is what is left of the client's when keys are removed; then only the path is as it was written.
    """
    path = request.path
    if preserve and not request.is_normal:
        written = request.target.decode("ascii")
        if query == request.query:
            return written
        path = written.partition("?")[0]
    return f"{path}?{query}" if query else path


def dropped_with(credentials: frozenset[bytes]) -> frozenset[bytes]:
    """The names that do not go up, where the headers `credentials` carry credentials."""
    return OURS_UP | credentials


def request_fields(request: Request, dropped: frozenset[bytes]) -> list[Field]:
    """The client's own fields that go up: all but `dropped`, and what Connection nominates."""
    if request.nominated:
        dropped = dropped | request.nominated
    return [field for field, name in zip(request.headers, request.names, strict=True) if name not in dropped]


@lru_cache(maxsize=4096)
def forwarded(peer: str, host: bytes, *, tls: bool) -> tuple[Field, ...]:
    """The client's address, scheme and host, if it named one, where no proxy in front may be believed."""
    return (
        (b"X-Forwarded-For", peer.encode() or b"unknown"),
        (b"X-Forwarded-Proto", b"https" if tls else b"http"),
        *(((b"X-Forwarded-Host", host),) if host else ()),
    )


def forwarded_on(request: Request, peer: str, *, tls: bool) -> list[Field]:
    """The same where the peer is a named proxy: its fields are passed on, and its own address is added."""
    chain = [value for value, name in _values(request) if name == b"x-forwarded-for"]
    passed_on = [(_SPELLED[name], value) for value, name in _values(request) if name in _SPELLED]
    present = {name for _, name in _values(request)}
    added = [field for field in forwarded(peer, request.host, tls=tls)[1:] if field[0].lower() not in present]
    return [(b"X-Forwarded-For", b", ".join([*chain, peer.encode()])), *passed_on, *added]


_SPELLED: Final = {
    b"x-forwarded-proto": b"X-Forwarded-Proto",
    b"x-forwarded-host": b"X-Forwarded-Host",
    b"x-forwarded-port": b"X-Forwarded-Port",
    b"forwarded": b"Forwarded",
}


def _values(request: Request) -> list[tuple[bytes, bytes]]:
    return [(value, name) for name, (_, value) in zip(request.names, request.headers, strict=True)]


def via(request: Request, pseudonym: bytes) -> Field:
    """The Via field for the upstream: the client's own entries, then ours (RFC 9110 §7.6.3)."""
    own = b"%b %b" % (request.protocol, pseudonym)
    if b"via" not in request.fields:
        return (b"Via", own)
    return (b"Via", b", ".join([*[value for value, name in _values(request) if name == b"via"], own]))


MALFORMED: Final = -2
UNLIMITED: Final = -1


def max_forwards(request: Request) -> int:
    """How many more times an OPTIONS request may be forwarded (RFC 9110 §7.6.2), or UNLIMITED, or MALFORMED."""
    value = request.fields.get(b"max-forwards")
    if value is None or request.method != "OPTIONS":
        return UNLIMITED
    if b"max-forwards" in request.repeated or not value.isdigit() or len(value) > 15:
        return MALFORMED
    return int(value)


_TRACE: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


def trace(request: Request) -> str:
    """The client's traceparent where it is valid (W3C Trace Context §3.2), else ""."""
    value = request.fields[b"traceparent"]
    if b"traceparent" in request.repeated or not _TRACE.fullmatch(value) or (value[:2] == b"00" and len(value) != 55):
        return ""
    return value.decode("ascii")


def identity_fields(customer: str, subject: str, key_id: str, plan: str) -> tuple[Field, ...]:
    """The caller's identity, for the upstream. A client's fields of these names never pass, so it cannot be forged."""
    return (
        (b"X-Sidecar-Customer", customer.encode()),
        (b"X-Sidecar-Subject", subject.encode()),
        (b"X-Sidecar-Key-Id", key_id.encode()),
        (b"X-Sidecar-Plan", plan.encode()),
    )


def response_fields(head: ResponseHead) -> list[Field]:
    """The upstream's fields that go down: all but framing, Via, its request id in the field of ours, hop-by-hop ones
    and those that Connection nominates.
    """  # noqa: D205
    dropped = _OURS_DOWN
    nominated = head.fields.get(b"connection")
    if nominated is not None and nominated.lower() not in {b"keep-alive", b"close"}:
        dropped = dropped | {t.strip(b" \t").lower() for t in nominated.split(b",")}
    return [field for field, name in zip(head.headers, head.names, strict=True) if name not in dropped]


def trailers_allowed(
    trailers: list[tuple[bytes, bytes]], carriers: AbstractSet[bytes] = frozenset()
) -> list[tuple[bytes, bytes]]:
    """Only fields that cannot change framing, routing or identity may come late (RFC 9110 §6.5.1).

    `carriers` are the lower-case names of the headers that hold credentials: a late one is not believed.
    """
    dropped = _NOT_IN_TRAILERS | carriers
    return [field for field in trailers if field[0].lower() not in dropped and b"_" not in field[0]]
