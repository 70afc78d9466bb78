"""The end of a message's body: three framings with one interface, `feed`, which takes bytes and returns body bytes.

Lenient parsers of chunks allow request smuggling, so this one is strict: hexadecimal sizes without sign, prefix or
space; only CRLF; extensions are dropped and bounded; trailers are separate from headers. RFC 9112 §6 and §7.1.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

MAX_CHUNK_LINE: Final = 4096  # bytes of one chunk-size line with its extensions
MAX_EXTENSIONS: Final = 16 * 1024  # bytes of all extensions of a body, which cost time and are not billed
MAX_TRAILERS: Final = 16 * 1024

_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER: Final = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t\x20-\x7e\x80-\xff]*)"
)  # blanks are stripped later, so that matching is linear


class BadFraming(ValueError):  # noqa: N818 - a finding about a message, not a failure of ours
    """The framing of the body does not match its head. The message says how."""


class Body(Protocol):
    """`done`: the body has ended; then `rest` has the bytes after it."""

    done: bool
    rest: bytes
    trailers: list[tuple[bytes, bytes]]

    def feed(self, data: bytes) -> bytes:
        """Returns the body bytes in `data`. Raises BadFraming."""


class LengthBody:
    """A body of `length` bytes (Content-Length)."""

    __slots__ = ("done", "left", "rest", "trailers")

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0
        self.rest = b""
        self.trailers: list[tuple[bytes, bytes]] = []

    def feed(self, data: bytes) -> bytes:
        size = len(data)
        if size < self.left:
            self.left -= size
            return data
        self.done = True
        if size == self.left:
            self.left = 0
            return data
        left, self.left = self.left, 0
        self.rest = data[left:]
        return data[:left]


class UntilCloseBody:
    """A body that ends with the connection: an HTTP/1.0 answer, or a tunnel."""

    __slots__ = ("done", "rest", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self.trailers: list[tuple[bytes, bytes]] = []

    def feed(self, data: bytes) -> bytes:
        return data


class ChunkedBody:
    """A chunked body, decoded. Trailers are in `trailers`, and are never treated as headers."""

    __slots__ = ("_buffer", "_crlf", "_extensions", "_left", "_trailer_bytes", "_trailing", "done", "rest", "trailers")

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0  # of the current chunk's data
        self._crlf = False  # the next bytes must be the CRLF after a chunk's data
        self._trailing = False
        self._extensions = 0
        self._trailer_bytes = 0
        self.done = False
        self.rest = b""
        self.trailers: list[tuple[bytes, bytes]] = []

    def feed(self, data: bytes) -> bytes:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        pieces: list[bytes] = []
        at = 0
        while not self.done:
            if self._left:
                piece = data[at : at + self._left]
                if not piece:
                    break
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._crlf = not self._left
                continue
            line, after = self._line(data, at)
            if line is None:
                self._buffer = data[at:]
                break
            at = after
            self._take(line)
        if self.done:
            self.rest = data[at:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _line(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        """The next line without its CRLF, or None if it is incomplete. CR and LF occur only together."""
        end = data.find(b"\n", at)
        limit = 2 if self._crlf else MAX_CHUNK_LINE
        if (len(data) if end < 0 else end) - at > limit:
            raise BadFraming("more bytes in a chunk than its size says" if self._crlf else "a chunk line is too long")
        if end < 0:
            if b"\r" in data[at:-1]:
                raise BadFraming("a carriage return without its line feed")
            return None, at
        if data[end - 1 : end] != b"\r" or end == at:
            raise BadFraming("a bare line feed")
        line = data[at : end - 1]
        if b"\r" in line:
            raise BadFraming("a carriage return without its line feed")
        return line, end + 1

    def _take(self, line: bytes) -> None:
        if self._crlf:
            if line:
                raise BadFraming("more bytes in a chunk than its size says")
            self._crlf = False
        elif self._trailing:
            self._take_trailer(line)
        else:
            self._take_size(line)

    def _take_size(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise BadFraming("a chunk size is not plain hexadecimal")
        self._extensions += len(match[2] or b"")
        if self._extensions > MAX_EXTENSIONS:
            raise BadFraming("too many bytes of chunk extensions")
        self._left = int(match[1], 16)
        self._trailing = not self._left

    def _take_trailer(self, line: bytes) -> None:
        if not line:
            self.done = True
            return
        self._trailer_bytes += len(line)
        match = _TRAILER.fullmatch(line)
        if match is None or self._trailer_bytes > MAX_TRAILERS:
            raise BadFraming("a trailer field is malformed or too long")
        self.trailers.append((match[1], match[2].strip(b" \t")))
