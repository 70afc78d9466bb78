"""The head of an upstream's answer, validated as strictly as a request: ambiguous ones are refused. RFC 9112 §4, §6."""

from __future__ import annotations

import re
from typing import Final

from sidecar.core.http.request import CHUNKED, LISTS

UNTIL_CLOSE: Final = -2
MAX_HEAD_BYTES: Final = 64 * 1024

# Fields by which APIs name a request in their own logs and to their support; the first that is there counts.
_IDS: Final = (b"x-request-id", b"request-id", b"x-amzn-requestid", b"x-amz-request-id", b"apim-request-id")
_ID_TEXT: Final = re.compile(rb"[!-~]{1,128}")
_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n")


class BadAnswer(ValueError):  # noqa: N818 - a finding about the upstream, not a failure of ours
    """The upstream's answer could be read in two ways. The message says how."""


class ResponseHead:
    """The head of an upstream's answer. `fields` are as in a `Request`.

    `length` is the body's length in bytes, or CHUNKED, or UNTIL_CLOSE; 0 for HEAD, 1xx, 204 and 304 with any fields
    (RFC 9110 §6.4.1). `keep_alive`: the upstream's connection may be reused. `request_id` is the upstream's, or "".
    Heads are cached by their bytes, so an object may be shared by many answers; in `prepared` the listener caches
    rendered heads.
    """

    __slots__ = (
        "bodyless", "fields", "headers", "keep_alive", "length", "minor", "names", "prepared", "reason", "request_id",
        "status",
    )  # fmt: skip

    def __init__(self, status: int, reason: bytes, minor: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.reason = reason
        self.minor = minor
        self.headers = headers
        self.names: list[bytes] = []
        self.fields: dict[bytes, bytes] = {}
        self.length = UNTIL_CLOSE
        self.bodyless = False
        self.keep_alive = minor == 1
        self.request_id = ""
        self.prepared: dict[tuple[int, bool], tuple[bytes, bool]] = {}


def read_status_line(head: bytes) -> tuple[int, bytes, int]:
    """(status, reason, minor version). Raises BadAnswer."""
    match = _LINE.match(head)
    if match is None:
        raise BadAnswer("the status line is not HTTP/1.x")
    return int(match[2]), match[3] or b"", 1 if match[1] == b"1" else 0


def read_response(line: tuple[int, bytes, int], headers: list[tuple[bytes, bytes]], method: str) -> ResponseHead:
    """Validate the parsed head of an answer to `method`. Raises BadAnswer."""
    status, reason, minor = line
    head = ResponseHead(status, reason, minor, headers)
    fields = head.fields
    names = head.names
    for name, value in headers:
        key = name.lower()
        names.append(key)
        if fields.setdefault(key, value) is not value:
            if _contradicts(key, fields[key], value):
                raise BadAnswer(f"two fields {key.decode('latin-1')} in one answer")
            if key in LISTS:
                fields[key] += b", " + value
    for name in _IDS:
        if name in fields:
            head.request_id = id_text(fields[name])
            break
    head.bodyless = method == "HEAD" or status in {204, 304} or status < 200
    head.length = _framed(fields, minor)
    if head.bodyless:
        head.length = 0
    connection = fields.get(b"connection")
    if connection is not None:
        tokens = connection.lower()
        head.keep_alive = b"close" not in tokens and (minor == 1 or b"keep-alive" in tokens)
    return head


def id_text(value: bytes) -> str:
    """A request id of another as it is recorded: printable ASCII without spaces, at most 128 characters; else ""."""
    return value.decode("ascii") if _ID_TEXT.fullmatch(value) else ""


def _contradicts(key: bytes, first: bytes, second: bytes) -> bool:
    return key == b"transfer-encoding" or (key == b"content-length" and first != second)


def _framed(fields: dict[bytes, bytes], minor: int) -> int:
    length = fields.get(b"content-length")
    coding = fields.get(b"transfer-encoding")
    if coding is None:
        if length is None:
            return UNTIL_CLOSE
        if not length.isdigit() or len(length) > 15:
            raise BadAnswer("Content-Length is not a plain decimal number")
        return int(length)
    if length is not None:
        raise BadAnswer("both Content-Length and Transfer-Encoding say how long the body is")
    if minor == 0 or coding.lower() != b"chunked":
        raise BadAnswer("Transfer-Encoding is not exactly `chunked`")
    return CHUNKED
