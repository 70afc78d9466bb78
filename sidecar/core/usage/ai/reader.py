"""Read an answer of a model while it passes. Reading never raises, and changes no byte that the client expects.

The splitting of the bytes affects neither the reading nor the bytes passed on. Buffered are the current event of a
stream, at most a megabyte of a document, and a slice and the decoder's window of a compressed answer. Every ending has
a reading, with its quality.
"""

from __future__ import annotations

from typing import NamedTuple

from sidecar.core.usage.ai.encodings import Decoder, layers_of
from sidecar.core.usage.ai.estimate import NOTHING, completed
from sidecar.core.usage.ai.request import AiRequest
from sidecar.core.usage.ai.response_formats import FilteredStream, Json, OpaqueBody, ResponseFormat, Stream
from sidecar.core.usage.ai.seen import Seen
from sidecar.core.usage.ai.vendors import VENDORS


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
    """Reads one answer: `head` once, `feed` for each piece of the body, `end` once in every ending, head or no head."""

    __slots__ = ("_request", "_decoder", "_format", "_seen", "_status")

    def __init__(self, request: AiRequest) -> None:
        self._request = request
        self._decoder: Decoder | None = None
        self._seen = Seen(request.adapter)
        self._format: ResponseFormat = OpaqueBody(self._seen)
        self._status = 0

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
            self._decoder = Decoder(layers, self._format.feed)

    def feed(self, data: bytes) -> bytes:
        """Read a piece of the body; returns the bytes to pass on: the same object unless something was removed."""
        if self._decoder is None:
            return self._format.feed(data)
        self._decoder.feed(data)
        return data

    def end(self, *, complete: bool) -> tuple[bytes, Reading]:
        """The withheld bytes, to be passed on, and the reading. `complete`: the upstream ended its answer properly."""
        if self._decoder is not None:
            self._decoder.end()
            self._seen.unread += self._decoder.unread
        held = self._format.end(complete=complete)
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
