"""An answer of a model, read while it passes. It never fails, and changes no byte that the client is to see.

How the bytes are cut changes neither the reading nor what is passed on. A stream keeps its current event, a document at
most a megabyte, a compressed answer a slice and its decoder's window. Every ending has a reading, which says how good
it is.
"""

from __future__ import annotations

from typing import NamedTuple

from sidecar.core.usage.ai.asked import Asked
from sidecar.core.usage.ai.encodings import Decoder, layers_of
from sidecar.core.usage.ai.estimate import NOTHING, completed
from sidecar.core.usage.ai.forms import FilteredStream, Form, Json, Stream, Wordless
from sidecar.core.usage.ai.seen import Seen
from sidecar.core.usage.ai.vendors import VENDORS


class Reading(NamedTuple):
    """What was read. `fields`: tokens by kind that the answer spoke of, 0 among them, and the sums input, output_total.

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

    __slots__ = ("_asked", "_decoder", "_form", "_seen", "_status")

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._decoder: Decoder | None = None
        self._seen = Seen(asked.adapter)
        self._form: Form = Wordless(self._seen)
        self._status = 0

    def head(self, status: int, content_type: bytes, content_encoding: bytes) -> None:
        """The answer's status and the two fields that say how to read it, b"" where it has none."""
        self._status = status
        layers = layers_of(content_encoding)
        kind = content_type.lower()
        if b"event-stream" in kind:
            self._form = FilteredStream(self._seen) if self._asked.injected and layers == [] else Stream(self._seen)
        elif not kind or b"json" in kind or kind.startswith(b"text/"):
            self._form = Json(self._seen, asked=bool(self._asked.model))
        if layers != []:
            self._decoder = Decoder(layers, self._form.feed)

    def feed(self, data: bytes) -> bytes:
        """Read a piece of the body; gives what to pass on: the same object unless something was taken out of it."""
        if self._decoder is None:
            return self._form.feed(data)
        self._decoder.feed(data)
        return data

    def end(self, *, complete: bool) -> tuple[bytes, Reading]:
        """What was held back, to be passed on, and what was read. `complete`: the upstream ended its answer well."""
        if self._decoder is not None:
            self._decoder.end()
            self._seen.unread += self._decoder.unread
        held = self._form.end(complete=complete)
        return held, self._reading(complete=complete)

    def _reading(self, *, complete: bool) -> Reading:
        seen, asked = self._seen, self._asked
        vendor = VENDORS.get(seen.adapter)
        kinds = vendor.kinds(seen.counts) if vendor is not None else {}
        refused = self._status >= 300
        if refused and not kinds:
            fields, quality = completed(NOTHING, asked, said=0, final=True)
        else:
            fields, quality = completed(kinds, asked, said=seen.text + seen.unread, final=seen.final)
        ended = "complete" if complete and seen.finished else "cut"
        model = seen.model or asked.model
        dims = {name: value for name, value in (("model", model), ("service_tier", seen.tier)) if value}
        return Reading(seen.adapter, fields, dims, quality, seen.ending or ("error" if refused else ended))
