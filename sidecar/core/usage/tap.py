"""Inspect the bodies of one exchange, on routes that need it: JSON of the request and the answer, and AI usage.

Passing data is not delayed, except for the part of an event that may have to be removed. Memory: the buffers of the AI
reader and, for JSON, at most the route's `body_bytes` of that side. No input raises: a value that cannot be read is
unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sidecar.core.http.problem import Problem, too_long_to_read
from sidecar.core.http.response import ResponseHead
from sidecar.core.policy import Route
from sidecar.core.usage.ai import SUMS, AiRequest, Reader, Reading, estimates, parse_request
from sidecar.core.usage.ai.encodings import Decoder, layers_of
from sidecar.core.usage.body import MAX_CALLS, Bodies

ENCODED: Final = Problem(
    415,
    "body-encoded",
    "This request is charged by its body: send it without Content-Encoding.",
    headers=((b"Accept-Encoding", b"identity"),),
)
NOT_JSON: Final = Problem(
    400,
    "body-unreadable",
    "This request is charged by its JSON body, which cannot be read. Send one JSON document in UTF-8 with nothing after"
    " it.",
)
AMBIGUOUS: Final = Problem(
    400,
    "body-ambiguous",
    "This request is charged by a member of its JSON body that occurs twice, differs in upper and lower case from its"
    " name, or is not of the type that is counted.",
)
TOO_MANY_CALLS: Final = Problem(413, "too-many-calls", f"a batch has at most {MAX_CALLS} calls")


class Tap(Bodies):
    """`core.policy.Tap` of one exchange. The gateway feeds it the request, then the answer."""

    __slots__ = (
        "_ai_request", "_copy", "_estimates", "_over", "_reader", "_reading", "_tunnel", "_unread", "_route",
        "is_behind",
    )  # fmt: skip

    def __init__(self, route: Route) -> None:
        super().__init__()
        self._route = route
        self._ai_request: AiRequest | None = None
        self._estimates: Mapping[str, int] | None = None
        self._reader: Reader | None = None
        self._copy: _Copy | None = None
        self._reading: Reading | None = None
        self._over = self._tunnel = self.is_behind = False
        self._unread: Problem | None = None  # the reason why the request is not read

    # Input from the gateway.

    def request(
        self, path: str, body: bytes | None, size: int, *, fields: Mapping[bytes, bytes], rewrite: bool
    ) -> bytes | None:
        """Take the request's whole body, or None where it was not read; `size` is the length as far as it is known.

        `fields` are those of its head, by lower-case name: a body with a Content-Encoding is not read. Returns the body
        to send upstream: the same object, unless usage in the answer has to be requested on the client's behalf and
        `rewrite` allows it.
        """
        coding = fields.get(b"content-encoding", b"")
        encoded = bool(body and coding) and layers_of(coding) != []
        self._unread = too_long_to_read(self._route.body_bytes) if body is None else ENCODED if encoded else None
        text = self.take("request", None if encoded else body)
        if not self._route.usage:
            return body
        ai_request, sent = parse_request(self._route.usage, path, text, upload=_is_upload(fields, body))
        if self._unread is not None or not rewrite:
            ai_request, sent = ai_request._replace(injected=False, input_bytes=size), body or b""
        self._ai_request = ai_request
        return None if body is None else sent

    def unread_problem(self) -> Problem:
        """The refusal of a request of which a meter could not read what it needs."""
        if self._unread is not None:
            return self._unread
        if not self.known("request"):
            return NOT_JSON
        return TOO_MANY_CALLS if self.calls is None else AMBIGUOUS

    def rest(self) -> None:
        """Drop the parsed values: the answer may take long, and the buffered body is enough."""
        if "request" in self._route.holds:
            super().rest()
        else:
            self.take("request", None)

    def answer(self, head: ResponseHead) -> None:
        """The answer begins. Nothing is removed from one with a Content-Length."""
        if head.status == 101:
            self._tunnel = True
            return
        type_, encoding = head.fields.get(b"content-type", b""), head.fields.get(b"content-encoding", b"")
        ai_request = self._ai_request
        if ai_request is not None:
            self._reader = Reader(ai_request if head.length < 0 else ai_request._replace(injected=False))
            self._reader.head(head.status, type_, encoding)
        if "response" in self._route.holds and not type_.lower().startswith(b"text/event-stream"):
            self._copy = _Copy(encoding, self._route.body_bytes)

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """Read a piece of the answer, the `last` one or not; returns the bytes to pass on now.

        `is_behind` afterwards: it is not read whole, and the next `feed`, perhaps of b"", goes on.
        """
        if self._copy is not None:
            self._copy.feed(data)
        reader = self._reader
        if reader is None:
            return data
        data = reader.feed(data, last=last)
        self.is_behind = reader.is_behind
        return data

    def end(self, *, complete: bool) -> bytes:
        """The answer has ended, whole or not, or was never sent; returns the withheld bytes. Idempotent."""
        if self._over:
            return b""
        self._over = True
        held = b""
        if self._reader is not None:
            held, self._reading = self._reader.end(complete=complete)
        if self._copy is not None:
            self.take("response", self._copy.whole() if complete else None)
        self._reader = self._copy = None
        return held

    # Queries of meters.

    @property
    def model(self) -> str:
        """The requested model; where that is unknown, the one that answered."""
        if self._ai_request is None:
            return self.text("request", "/model") or ""
        return self._ai_request.model or self.dims.get("model", "")

    @property
    def lacks_model(self) -> bool:
        ai_request = self._ai_request
        if ai_request is None:
            return not self.known("request", "/model")
        return not ai_request.model and (ai_request.differs or not self.known("request"))

    @property
    def lacks_usage(self) -> bool:
        """An over-long body does not count as unreadable: its size is the estimate."""
        return self._unread is ENCODED or (self._ai_request is not None and self._ai_request.differs)

    def tokens(self, kind: str, adapter: str) -> int | None:
        if self._over:
            return self._read(kind, adapter)
        ai_request = self._ai_request
        if ai_request is None or (adapter and ai_request.adapter not in {adapter, "auto"}):
            return None
        if self._estimates is None:
            route = self._route
            self._estimates = estimates(ai_request, default_output=route.default_output, ceiling=route.ceiling)
        return self._estimates.get(kind)

    def _read(self, kind: str, adapter: str) -> int | None:
        """An upstream that never answered used no tokens; the use of a tunnel is unknown."""
        reading = self._reading
        if reading is None:
            return None if self._tunnel else 0
        return reading.fields.get(kind) if not adapter or reading.adapter == adapter else None

    # Values for records.

    @property
    def quality(self) -> str:
        """The quality of the tokens, "" where the route has no AI usage."""
        if self._reading is not None:
            return self._reading.quality
        return "partial" if self._tunnel and self._route.usage else ""

    @property
    def usage_lines(self) -> list[dict[str, Any]]:
        """The usage of each billed model: `model`, and `kinds` with tokens; empty where nothing was used."""
        reading = self._reading
        if reading is None:
            return []
        kinds = {kind: units for kind, units in reading.fields.items() if kind not in SUMS}
        return [{"model": reading.dims.get("model", ""), "kinds": kinds}] if any(kinds.values()) else []

    @property
    def dims(self) -> dict[str, str]:
        """The model and the service tier."""
        if self._reading is not None:
            return self._reading.dims
        return {"model": self._ai_request.model} if self._ai_request is not None and self._ai_request.model else {}


def _is_upload(fields: Mapping[bytes, bytes], body: bytes | None) -> bool:
    """Whether a body is multipart, by its type and by its first bytes: then no server reads it as JSON or as a form."""
    return (
        body is not None and body.startswith(b"--") and fields.get(b"content-type", b"")[:10].lower() == b"multipart/"
    )


class _Copy:
    """An answer's body without its content codings, up to `most` bytes; None where it is longer or broken."""

    __slots__ = ("_decoder", "_left", "_pieces")

    def __init__(self, encoding: bytes, most: int) -> None:
        layers = layers_of(encoding)
        self._decoder = None if layers == [] else Decoder(layers)
        self._left = most
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> None:
        if self._left < 0:
            return
        if self._decoder is None:
            self._take(data)
        else:
            self._decoder.feed(data)
            self._read(self._decoder)

    def _read(self, decoder: Decoder) -> None:
        while self._left >= 0 and (piece := decoder.read()):
            self._take(piece)

    def _take(self, piece: bytes) -> None:
        self._left -= len(piece)
        if self._left < 0:
            self._pieces.clear()
        else:
            self._pieces.append(piece)

    def whole(self) -> bytes | None:
        if self._decoder is not None:
            self._decoder.feed(b"", last=True)
            self._read(self._decoder)
        if self._left < 0 or (self._decoder is not None and self._decoder.unread):
            return None
        return b"".join(self._pieces)
