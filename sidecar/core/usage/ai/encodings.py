"""Decode the content codings of an answer to read it: gzip, deflate, br and zstd, also several layers.

The answer itself is passed on unchanged. Decoding stops for good at invalid data, an unknown coding or a bomb: output
is at most ALLOWED bytes plus RATIO bytes per input byte. Input is decoded in slices of SLICE bytes, so that the result
does not depend on how the bytes were split. Output is taken piece by piece, so that a reader can stop and continue
later. Source: RFC 9110 §8.4, RFC 1950 to 1952, 7932, 8878.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

import brotli

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SLICE: Final = 16 * 1024  # encoded bytes
ALLOWED: Final = 1 << 20  # bytes allowed for every answer
RATIO: Final = 64  # bytes per encoded byte; text reaches 20
MAX_LAYERS: Final = 3
PIECE: Final = 16 * 1024  # bytes decoded at once
WINDOW_LOG: Final = 23  # RFC 9659: a window of at most 8 MiB
_GZIP: Final = 16 + zlib.MAX_WBITS


class Layer(Protocol):
    """One coding. `feed` yields the decoded bytes piece by piece; raises one of _BROKEN."""

    def feed(self, data: bytes) -> Iterator[bytes]: ...


class _Zlib:
    """gzip, of one or several members, and deflate, with zlib's header or, as many servers send it, without."""

    def __init__(self, wbits: int) -> None:
        self._wbits = wbits
        self._member: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member is None:
                bare = self._wbits == zlib.MAX_WBITS and data[0] & 0x0F != zlib.DEFLATED
                self._member = zlib.decompressobj(-zlib.MAX_WBITS if bare else self._wbits)
            made = self._member.decompress(data, PIECE)
            yield made
            data = self._member.unconsumed_tail
            while not self._member.eof and not data and len(made) == PIECE:
                made = self._member.decompress(b"", PIECE)
                yield made
            if self._member.eof:
                data = self._member.unused_data
                self._member = None


class _Brotli:
    """One stream. A piece of full length is not the last of its input."""

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()

    def feed(self, data: bytes) -> Iterator[bytes]:
        more = bool(data)
        while more and not self._stream.is_finished():
            made = self._stream.process(data, output_buffer_limit=PIECE)
            yield made
            data, more = b"", len(made) >= PIECE or not self._stream.can_accept_more_data()


class _Zstd:
    """One or several frames."""

    def __init__(self) -> None:
        self._frame: zstd.ZstdDecompressor | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        more = bool(data)
        while more:
            if self._frame is None:
                self._frame = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG})
            yield self._frame.decompress(data, PIECE)
            data, more = b"", not self._frame.needs_input
            if self._frame.eof:
                data, self._frame = self._frame.unused_data, None
                more = bool(data)


_BROKEN: Final = (zlib.error, brotli.error, zstd.ZstdError, EOFError, MemoryError)

_LAYERS: Final[dict[bytes, Callable[[], Layer]]] = {
    b"gzip": lambda: _Zlib(_GZIP),
    b"x-gzip": lambda: _Zlib(_GZIP),
    b"deflate": lambda: _Zlib(zlib.MAX_WBITS),
    b"br": _Brotli,
    b"zstd": _Zstd,
}


def layers_of(content_encoding: bytes) -> list[Layer] | None:
    """The decoders of a Content-Encoding, the last coding first; [] without codings, None where one is unknown."""
    names = [name for part in content_encoding.lower().split(b",") if (name := part.strip()) not in {b"", b"identity"}]
    if len(names) > MAX_LAYERS or not all(name in _LAYERS for name in names):
        return None
    return [_LAYERS[name]() for name in reversed(names)]


class Decoder:
    """Decodes `layers`. `unread` counts the encoded bytes that were not decoded."""

    __slots__ = ("_allowed", "_buffer", "_ended", "_layers", "_made", "_pieces", "_size", "unread")

    def __init__(self, layers: Sequence[Layer] | None) -> None:
        self._allowed = ALLOWED
        self._buffer = bytearray()
        self._ended = False
        self._layers = layers
        self._made = 0
        self._pieces: Iterator[bytes] | None = None  # what is left of the current slice
        self._size = 0  # encoded bytes of the current slice
        self.unread = 0

    def feed(self, data: bytes, *, last: bool = False) -> None:
        """Take encoded bytes; after the `last` ones the rest of the last slice can be read."""
        self._buffer += data
        self._ended = self._ended or last

    def read(self) -> bytes:
        """The next decoded bytes; b"" where more input is needed."""
        while self._pieces is not None or self._begin_slice():
            try:
                for piece in self._pieces or ():
                    return piece
            except _BROKEN:
                self._layers = None
                self.unread += self._size
            self._pieces = None
        return b""

    @property
    def is_behind(self) -> bool:
        """Whether `read` may return more."""
        return self._pieces is not None or self._has_slice()

    def close(self) -> None:
        """Nothing more is read: count the rest as unread."""
        if self._pieces is not None:
            self.unread += self._size
        self.unread += len(self._buffer)
        self._pieces = self._layers = None
        self._buffer.clear()

    def _has_slice(self) -> bool:
        return len(self._buffer) >= SLICE or (self._ended and bool(self._buffer))

    def _begin_slice(self) -> bool:
        if self._layers is None:
            self.unread += len(self._buffer)
            self._buffer.clear()
        if not self._has_slice():
            return False
        data = bytes(self._buffer[:SLICE])
        del self._buffer[:SLICE]
        self._size = len(data)
        self._allowed += RATIO * SLICE
        self._pieces = self._through(data, 0)
        return True

    def _through(self, data: bytes, layer: int) -> Iterator[bytes]:
        layers = self._layers or ()
        if layer == len(layers):
            yield data
            return
        for piece in layers[layer].feed(data):
            self._made += len(piece)
            if self._made > self._allowed:
                raise EOFError("the answer decodes to more than is allowed")
            if piece:
                yield from self._through(piece, layer + 1)
