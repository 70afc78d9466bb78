"""What HTTP lets a proxy believe. Whatever could be read two ways is refused; nothing is ever passed on as raw bytes.

A smuggled request is an unmetered request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

Fields = Sequence[tuple[bytes, bytes]]

CHUNKED = -1
UNTIL_CLOSE = -2


class Problem(NamedTuple):
    """An answer of our own, rendered as problem+json (RFC 9457). `slug` is the last part of its type URI."""

    status: int
    slug: str
    detail: str
    title: str = ""
    extra: dict[str, Any] = {}  # noqa: RUF012 - never written to
    headers: Fields = ()


class Request:
    """A request head that can be read in one way only.

    `path` is the normal form, percent-encoded, matched and forwarded alike; `query` comes without its `?`.
    `headers` are as received; `fields` finds the first value by lower-case name; `repeated` names those that came twice.
    `length` is the body's length in bytes, or CHUNKED.
    """

    __slots__ = (
        "expect", "fields", "headers", "host", "keep_alive", "length", "method", "minor", "path", "peer", "query",
        "repeated", "tls", "upgrade", "wants_trailers",
    )  # fmt: skip

    method: str
    path: str
    query: str
    minor: int
    host: bytes
    headers: list[tuple[bytes, bytes]]
    fields: dict[bytes, bytes]
    repeated: frozenset[bytes]
    length: int
    keep_alive: bool
    expect: bool
    upgrade: bytes
    wants_trailers: bool
    peer: str
    tls: bool


class ResponseHead:
    """An upstream's final answer, up to its body. `length` is in bytes, or CHUNKED, or UNTIL_CLOSE."""

    __slots__ = ("headers", "length", "reason", "status", "upgraded")

    status: int
    reason: bytes
    headers: list[tuple[bytes, bytes]]
    length: int
    upgraded: bool
