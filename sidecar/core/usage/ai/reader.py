"""Read an answer of a model while it passes. Reading never raises, and changes no byte that the client expects.

The splitting of the bytes affects neither the reading nor the bytes passed on. Buffered are the current event of a
stream, at most a megabyte of a document, and a slice and the decoder's window of a compressed answer. Every ending has
a reading, with its quality.

One `feed` does at most about TURN units of work, a third of a millisecond, since other exchanges wait meanwhile, each
for several turns of the loop: 300,000 elements `{},` are 900 kB, and take a second. The next calls of `feed` read what
is left (`is_behind`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sidecar.core.usage.ai.encodings import Decoder, layers_of
from sidecar.core.usage.ai.estimate import NOTHING, completed
from sidecar.core.usage.ai.request import AiRequest
from sidecar.core.usage.ai.response_formats import FilteredStream, Json, OpaqueBody, ResponseFormat, Stream
from sidecar.core.usage.ai.seen import Seen
from sidecar.core.usage.ai.vendors import VENDORS

TURN: Final = 250  # units of work: `_work_of`
AT_ONCE: Final = 16 * 1024  # bytes that are read in one piece where their work is at most TURN
PIECE: Final = 512  # bytes between two looks at the work; so many are read without a look
BYTES_PER_UNIT: Final = 1024


class Reading(NamedTuple):
    """The usage that was read. `fields`: reported tokens by kind, zeros included, and the sums input and output_total.

    `dims`: model and service_tier, where known. `quality`: provider_reported; partial (the vendor's, but not of the
    whole answer); estimated. `ending`: complete, incomplete, error or cut.
    """

    adapter: str
    fields: dict[str, int]
    dims: dict[str, str]
    quality: str
    ending: str


class Reader:
    """Reads one answer: `head` once, `feed` for each piece of the body, `end` once in every ending, head or no head.

    `is_behind`: bytes are left that the next `feed` reads; it may be of b"".
    """

    __slots__ = ("_decoded", "_decoder", "_format", "_request", "_rest", "_seen", "_status", "is_behind")

    def __init__(self, request: AiRequest) -> None:
        self._request = request
        self._decoder: Decoder | None = None
        self._seen = Seen(request.adapter)
        self._format: ResponseFormat = OpaqueBody(self._seen)
        self._status = 0
        self._decoded = b""  # not read yet; nothing of it is passed on
        self._rest = b""  # neither read nor passed on
        self.is_behind = False

    def head(self, status: int, content_type: bytes, content_encoding: bytes) -> None:
        """The answer's status, Content-Type and Content-Encoding, b"" where absent."""
        self._status = status
        layers = layers_of(content_encoding)
        kind = content_type.lower()
        if b"event-stream" in kind:
            self._format = FilteredStream(self._seen) if self._request.injected and layers == [] else Stream(self._seen)
        elif not kind or b"json" in kind or kind.startswith(b"text/"):
            self._format = Json(self._seen, expects_text=bool(self._request.model))
        if layers != []:
            self._decoder = Decoder(layers)

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """Read a piece of the body; returns the bytes to pass on: the same object unless some were removed or are left.

        `last`: no more bytes follow.
        """
        if self._decoder is not None:
            self._decoder.feed(data, last=last)
            self._read_decoded(self._decoder)
            return data
        size = len(data)
        if size <= AT_ONCE and not self._rest and (size <= PIECE or _work_of(data) <= TURN):
            return self._format.feed(data)
        return self._read_pieces(self._rest + data)

    def _read_pieces(self, data: bytes) -> bytes:
        passed: list[bytes] = []
        work = at = 0
        while at < len(data) and work < TURN:
            piece = data[at : at + PIECE]
            work += _work_of(piece)
            passed.append(self._format.feed(piece))
            at += PIECE
        self._rest = data[at:]
        self.is_behind = bool(self._rest)
        return b"".join(passed)

    def _read_decoded(self, decoder: Decoder) -> None:
        work = 0
        while work < TURN and (data := self._decoded or decoder.read()):
            piece = data if _work_of(data) <= TURN else data[:PIECE]
            self._decoded = data[len(piece) :]
            work += _work_of(piece)
            self._format.feed(piece)
        self.is_behind = bool(self._decoded) or decoder.is_behind

    def end(self, *, complete: bool) -> tuple[bytes, Reading]:
        """The withheld bytes, to be passed on, and the reading. `complete`: the upstream ended its answer properly.

        One that is complete is read to its end; of another one, what one more `feed` leaves is not read.
        """
        held = self.feed(b"", last=True) if self._rest or self._decoder is not None else b""
        while complete and self.is_behind:
            held += self.feed(b"", last=True)
        if self._decoder is not None:
            self._decoder.close()
            self._seen.unread += self._decoder.unread + len(self._decoded)
        held += self._format.end(complete=complete) + self._rest
        self._seen.unread += len(self._rest)
        return held, self._reading(complete=complete)

    def _reading(self, *, complete: bool) -> Reading:
        seen, request = self._seen, self._request
        vendor = VENDORS.get(seen.adapter)
        kinds = vendor.kinds(seen.counts) if vendor is not None else {}
        refused = self._status >= 300
        if refused and not kinds:
            fields, quality = completed(NOTHING, request, text_bytes=0, final=True)
        else:
            fields, quality = completed(kinds, request, text_bytes=seen.text + seen.unread, final=seen.final)
        ended = "complete" if complete and seen.finished else "cut"
        model = seen.model or request.model
        dims = {name: value for name, value in (("model", model), ("service_tier", seen.tier)) if value}
        return Reading(seen.adapter, fields, dims, quality, seen.ending or ("error" if refused else ended))


def _work_of(piece: bytes) -> int:
    """The work of reading these bytes, in units of one to two microseconds: lines of events, and brackets of JSON.

    An element or event `{}` takes several, since a value is parsed and read.
    """
    values = 3 * piece.count(b"{") + piece.count(b"[")
    return values + piece.count(b"\n") + piece.count(b"\r") + len(piece) // BYTES_PER_UNIT
