"""Validation of request heads: an unambiguous `Request`, or the problem to answer.

The parser (llhttp, strict) accepts some heads that another parser could read differently; they are refused here. Only
values that this module has read are forwarded. RFC 9112 §3, §5, §6.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sidecar.core.http.path import NoNormalForm, read_target
from sidecar.core.http.problem import OPTIONS_ANSWER, Problem

CHUNKED: Final = -1

_LINE: Final = re.compile(rb"([A-Z]+(?:-[A-Z]+)*) ([!-~]+) HTTP/1\.([01])\r\n")
_VERSION: Final = re.compile(rb" HTTP/\d+\.\d+\r\n")
_OTHER_PROTOCOL: Final = re.compile(rb"[!-~]+ [!-~]+ (?!HTTP/)[A-Z]+/\d\.\d\r\n")
# No nested quantifiers, so that a name with a wrong last byte does not take exponential time.
_HOST: Final = re.compile(rb"(?:(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
_TOKENS: Final = re.compile(rb"[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*(?:,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*)*")
_KEEP_ALIVE: Final = frozenset({b"keep-alive"})
_NOTHING: frozenset[bytes] = frozenset()
# List fields that are read here or by the gateway: several lines are one value (RFC 9110 §5.3).
LISTS: Final = frozenset({b"connection", b"content-encoding", b"te"})
_NEVER_NOMINATED: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"authorization", b"cache-control"}
)
# Fields that servers read differently if they are repeated.
_ONCE: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"content-type"})
# Set by us, or read by the upstream as framing: the same name with underscores could forge them.
_NO_TWINS: Final = (b"x-sidecar-", b"x-forwarded-", b"x-real-ip", b"x-request-id", b"content-", b"proxy-")
_UNDERSCORE: Final = 0x5F  # a number: CPython looks for bytes in bytes at seven times the cost
_REFUSED_METHODS: Final = frozenset({"CONNECT", "TRACE"})


class Fields:
    """The callbacks of the parser, which collect the fields of a head."""

    __slots__ = ("items",)

    def __init__(self) -> None:
        self.items: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.items.append((name, value))


def trimmed(head: bytes, items: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The fields of `head` without the white space after their values, which does not belong to them (RFC 9110 §5.5).

    The parser removes only the white space before a value. Most heads have none after it, so all are checked at once.
    """
    if head.find(b" \r\n") < 0 and head.find(b"\t\r\n") < 0:
        return items
    return [(name, value.rstrip(b" \t")) for name, value in items]


class HeadLimits(NamedTuple):
    """Bounds of a request head, in bytes and fields. Names are lower case.

    `protected`: headers that Connection cannot nominate, since they must reach the upstream or be removed by us:
    headers with credentials, and `once`. `once`: headers that a policy reads, which two readers could read differently
    if they are repeated.
    """

    head_bytes: int = 32 * 1024
    target_bytes: int = 8 * 1024
    field_bytes: int = 8 * 1024
    fields: int = 100
    underscores: bool = False
    protected: frozenset[bytes] = frozenset({b"x-api-key"})
    once: frozenset[bytes] = frozenset()


class Request:
    """An unambiguous request head.

    `path` is the normal form, percent-encoded, which is matched with routes; `query` has no `?`. `target` is both as
    the client wrote them; unless it `is_normal`, its route decides whether it is forwarded, and how it is spelled then.
    `headers` are as received, `names` their names in lower case, in the same order. `fields` has the first value by
    lower-case name, of LISTS all values joined. `repeated`: names that occur more than once; `nominated`: names in
    Connection, which are hop-by-hop.
    `protocol` is the client's version as in Via. `length` is the body's length in bytes, or CHUNKED.
    Heads are cached by their bytes, so an object may be shared by many requests and does not change, except for
    `prepared`, in which the gateway caches its results for the head.
    """

    __slots__ = (
        "expect", "fields", "headers", "host", "is_normal", "keep_alive", "length", "method", "minor", "names",
        "nominated", "path", "prepared", "protocol", "query", "repeated", "target", "upgrade", "wants_trailers",
    )  # fmt: skip

    def __init__(self, method: str, minor: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.method = method
        self.minor = minor
        self.protocol = b"1.1" if minor else b"1.0"
        self.headers = headers
        self.names: list[bytes] = []
        self.fields: dict[bytes, bytes] = {}
        self.repeated = _NOTHING
        self.nominated = _NOTHING
        self.path = ""
        self.query = ""
        self.target = b""
        self.is_normal = True
        self.host = b""
        self.length = 0
        self.keep_alive = minor == 1
        self.expect = False
        self.upgrade = b""
        self.wants_trailers = False
        self.prepared: Any = None


def bad(detail: str, *, status: int = 400, slug: str = "malformed-request") -> Problem:
    """The problem of a malformed request."""
    return Problem(status, slug, detail)


def read_line(head: bytes, limits: HeadLimits) -> tuple[str, bytes, int] | Problem:
    """Parse the request line strictly: (method, target, minor version)."""
    match = _LINE.match(head)
    if match is None:
        return _line_problem(head, limits)
    if match.end(2) - match.start(2) > limits.target_bytes:
        return _too_long(limits)
    return match[1].decode("ascii"), match[2], 1 if match[3] == b"1" else 0


def _line_problem(head: bytes, limits: HeadLimits) -> Problem:
    line = head[: head.find(b"\r\n") + 2]
    if len(line) > limits.target_bytes + 64:
        return _too_long(limits)
    if _VERSION.search(line):
        if b" HTTP/1.0\r\n" in line or b" HTTP/1.1\r\n" in line:
            return bad("the request line is not `METHOD target HTTP/1.1` with single spaces")
        return bad("only HTTP/1.0 and HTTP/1.1 are spoken here", status=505, slug="version-not-supported")
    if _OTHER_PROTOCOL.fullmatch(line):
        return bad("only HTTP/1.0 and HTTP/1.1 are spoken here", status=505, slug="version-not-supported")
    return bad("the request line is not `METHOD target HTTP/1.1` with single spaces")


def _too_long(limits: HeadLimits) -> Problem:
    detail = f"the target is longer than {limits.target_bytes} bytes"
    return bad(detail, status=414, slug="target-too-long")


def read_request(
    line: tuple[str, bytes, int], headers: list[tuple[bytes, bytes]], limits: HeadLimits
) -> Request | Problem:
    """Validate a parsed head: framing, host, path, connection, expectation, upgrade."""
    method, target, minor = line
    if method in _REFUSED_METHODS:
        return Problem(
            405,
            "method-refused",
            f"{method} is not served here",
            headers=OPTIONS_ANSWER.headers,
        )
    if len(headers) > limits.fields:
        return _too_many(f"more than {limits.fields} header fields")
    request = Request(method, minor, headers)
    fault = _index(request, limits)
    if fault is None:
        fault = _framing(request) or _place(request, target)
    if fault is None and b"connection" in request.fields:
        fault = _connection(request, limits)
    if fault is None and (b"expect" in request.fields or b"upgrade" in request.fields or b"te" in request.fields):
        fault = _expect(request) or _upgrade(request)
    return fault or request


def _too_many(detail: str) -> Problem:
    return bad(detail, status=431, slug="header-too-large")


def _index(request: Request, limits: HeadLimits) -> Problem | None:
    fields = request.fields
    names = request.names
    repeated: set[bytes] | None = None
    for name, value in request.headers:
        key = name.lower()
        names.append(key)
        if key in fields:
            repeated = repeated or set()
            repeated.add(key)
            if key in LISTS:
                fields[key] += b", " + value
        else:
            fields[key] = value
        if len(value) > limits.field_bytes or len(name) > 256:
            return _too_many(f"a header field is longer than {limits.field_bytes} bytes")
        if _UNDERSCORE in key and not _underscore_allowed(key, limits):
            return bad("a header name holds an underscore, which some servers read as a dash")
    if repeated:
        request.repeated = frozenset(repeated)
        if twice := repeated & (_ONCE | limits.once):
            return bad(f"the header field {min(twice).decode('ascii')} came more than once; send it once")
    return None


def _underscore_allowed(key: bytes, limits: HeadLimits) -> bool:
    """Whether a name with underscores is allowed; never one that reads like a field of our own."""
    twin = key.replace(b"_", b"-")
    reserved = twin in _NEVER_NOMINATED or twin in limits.protected or twin.startswith(_NO_TWINS)
    return limits.underscores and not reserved


def _framing(request: Request) -> Problem | None:
    """RFC 9112 §6.3 without the lenient cases: a single framing in a single spelling."""
    fields = request.fields
    coding = fields.get(b"transfer-encoding")
    length = fields.get(b"content-length")
    if coding is not None:
        if length is not None:
            return bad("both Content-Length and Transfer-Encoding say how long the body is")
        if request.minor == 0:
            return bad("Transfer-Encoding does not exist in HTTP/1.0")
        if coding.lower() != b"chunked":
            if _TOKENS.fullmatch(coding) and coding.lower().rstrip(b" \t").endswith(b"chunked"):
                return bad("no transfer coding but chunked is known here", status=501, slug="coding-not-implemented")
            return bad("Transfer-Encoding is not exactly `chunked`")
        request.length = CHUNKED
    elif length is not None:
        if not length.isdigit() or len(length) > 15:
            return bad("Content-Length is not a plain decimal number of at most 15 digits")
        request.length = int(length)
    return None


@lru_cache(maxsize=1024)
def valid_host(host: bytes) -> bool:
    """Whether it is a host name or an address, with an optional port."""
    return len(host) <= 260 and _HOST.fullmatch(host) is not None


def _place(request: Request, target: bytes) -> Problem | None:
    host = request.fields.get(b"host")
    if host is None:
        if request.minor:
            return bad("a request must have a Host field (RFC 9112 §3.2)")
        host = b""
    elif not valid_host(host):
        return bad("the Host field is not a host name with an optional port")
    try:
        request.path, request.query, authority, request.target, request.is_normal = read_target(target)
    except NoNormalForm as fault:
        return bad(str(fault), slug="ambiguous-path")
    if authority and authority.lower() != host.lower():
        return bad("the Host field is not the host of the target")
    request.host = host
    return None


def _connection(request: Request, limits: HeadLimits) -> Problem | None:
    value = request.fields[b"connection"]
    tokens = _KEEP_ALIVE if value == b"keep-alive" else frozenset([t.strip(b" \t").lower() for t in value.split(b",")])
    if tokens & _NEVER_NOMINATED or tokens & limits.protected:
        return bad("Connection names a field that is not hop-by-hop")
    request.nominated = tokens
    request.keep_alive = b"close" not in tokens and (request.minor == 1 or b"keep-alive" in tokens)
    return None


def _expect(request: Request) -> Problem | None:
    expect = request.fields.get(b"expect")
    if expect is not None and request.minor:
        if expect.lower() != b"100-continue":
            return bad("the only expectation is 100-continue", status=417, slug="expectation-failed")
        request.expect = request.length != 0
    tokens = request.fields.get(b"te", b"").lower().split(b",")
    request.wants_trailers = b"te" in request.nominated and any(t.strip(b" \t") == b"trailers" for t in tokens)
    return None


def _upgrade(request: Request) -> Problem | None:
    """Forward a complete offer of an upgrade. An offer of h2c is ignored, as RFC 9110 §7.8 allows for any."""
    value = request.fields.get(b"upgrade")
    if value is None or b"upgrade" not in request.nominated or not request.minor:
        return None
    if any(t.strip(b" \t").lower().startswith(b"h2c") for t in value.split(b",")):
        return None
    if request.length:
        return bad("an upgrade with a body can be framed in two ways")
    request.upgrade = value
    return None
