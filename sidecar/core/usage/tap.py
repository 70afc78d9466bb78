"""What is read of one exchange's bodies, on routes that ask for it: the request's JSON, the answer's, and AI usage.

What passes is not delayed, but for the part of an event that may have to be taken out again. What is held is what the
AI reader holds and, where JSON is looked into, at most the route's `body_bytes` of that side. No bytes make it fail:
what cannot be read is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sidecar.core.http.response import ResponseHead
from sidecar.core.policy import Route
from sidecar.core.usage.ai import Asked, Reader, Reading, ask, estimates
from sidecar.core.usage.ai.encodings import Decoder, layers_of
from sidecar.core.usage.body import Bodies


class Tap:
    """`core.policy.Tap` of one exchange, and what the gateway feeds it with: the request, then the answer."""

    __slots__ = ("_asked", "_bodies", "_copy", "_estimates", "_over", "_reader", "_reading", "_tunnel", "_way")

    def __init__(self, way: Route) -> None:
        self._way = way
        self._bodies = Bodies()
        self._asked: Asked | None = None
        self._estimates: Mapping[str, int] | None = None
        self._reader: Reader | None = None
        self._copy: _Copy | None = None
        self._reading: Reading | None = None
        self._over = self._tunnel = False

    # What the gateway tells.

    def request(self, path: str, body: bytes | None, size: int, *, rewrite: bool) -> bytes | None:
        """The request's whole body, or None where it was not read; `size` is as many bytes as are known to come.

        What is to go up instead comes back: the same object, unless the answer is to tell its usage, the client did
        not ask for that, and `rewrite` lets us.
        """
        if "request" in self._way.holds:
            self._bodies.take("request", body)
        if not self._way.usage:
            return body
        asked, sent = ask(self._way.usage, path, body or b"")
        if body is None or not rewrite:
            asked, sent = asked._replace(injected=False, input_bytes=size), body or b""
        self._asked = asked
        return None if body is None else sent

    def rest(self) -> None:
        """Let go of what was parsed: the answer may be long in coming, and what is held of the body is enough."""
        self._bodies.rest()

    def answer(self, head: ResponseHead) -> None:
        """The answer begins. One with a length keeps all of it: nothing can be taken out of it."""
        if head.status == 101:
            self._tunnel = True
            return
        type_, encoding = head.fields.get(b"content-type", b""), head.fields.get(b"content-encoding", b"")
        asked = self._asked
        if asked is not None:
            self._reader = Reader(asked if head.length < 0 else asked._replace(injected=False))
            self._reader.head(head.status, type_, encoding)
        if "response" in self._way.holds and not type_.lower().startswith(b"text/event-stream"):
            self._copy = _Copy(encoding, self._way.body_bytes)

    def feed(self, data: bytes) -> bytes:
        """More of the answer; gives what is to be passed on now."""
        if self._copy is not None:
            self._copy.feed(data)
        return data if self._reader is None else self._reader.feed(data)

    def end(self, *, complete: bool) -> bytes:
        """The answer is over, whole or not, or none will come; gives what was held back. Again: nothing happens."""
        if self._over:
            return b""
        self._over = True
        held = b""
        if self._reader is not None:
            held, self._reading = self._reader.end(complete=complete)
        if self._copy is not None:
            self._bodies.take("response", self._copy.whole() if complete else None)
        self._reader = self._copy = None
        return held

    # What meters ask.

    @property
    def calls(self) -> Sequence[str] | None:
        return self._bodies.calls

    @property
    def model(self) -> str:
        """What the request asked for; where that is not known, what answered it."""
        if self._asked is None:
            return self._bodies.text("request", "/model") or ""
        return self._asked.model or self.dims.get("model", "")

    def known(self, side: str) -> bool:
        return self._bodies.known(side)

    def number(self, side: str, pointer: str, length: bool) -> int | None:
        return self._bodies.number(side, pointer, length)

    def text(self, side: str, pointer: str) -> str | None:
        return self._bodies.text(side, pointer)

    def tokens(self, kind: str, adapter: str) -> int | None:
        if self._over:
            return self._read(kind, adapter)
        asked = self._asked
        if asked is None or (adapter and asked.adapter not in {adapter, "auto"}):
            return None
        if self._estimates is None:
            way = self._way
            self._estimates = estimates(asked, default_output=way.default_output, ceiling=way.ceiling)
        return self._estimates.get(kind)

    def _read(self, kind: str, adapter: str) -> int | None:
        """An upstream that never answered used no tokens; what went through a tunnel, nobody knows."""
        reading = self._reading
        if reading is None:
            return None if self._tunnel else 0
        return reading.fields.get(kind) if not adapter or reading.adapter == adapter else None

    # What records say.

    @property
    def quality(self) -> str:
        """How good the tokens are, "" where none were looked for."""
        if self._reading is not None:
            return self._reading.quality
        return "partial" if self._tunnel and self._way.usage else ""

    @property
    def dims(self) -> dict[str, str]:
        """The model, and the tier that served it."""
        if self._reading is not None:
            return self._reading.dims
        return {"model": self._asked.model} if self._asked is not None and self._asked.model else {}


class _Copy:
    """An answer's body without its content codings, up to `most` bytes: what is longer, or broken, is not known."""

    __slots__ = ("_decoder", "_left", "_pieces")

    def __init__(self, encoding: bytes, most: int) -> None:
        layers = layers_of(encoding)
        self._decoder = None if layers == [] else Decoder(layers, self._take)
        self._left = most
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> None:
        if self._left < 0:
            return
        if self._decoder is None:
            self._take(data)
        else:
            self._decoder.feed(data)

    def _take(self, piece: bytes) -> None:
        self._left -= len(piece)
        if self._left < 0:
            self._pieces.clear()
        else:
            self._pieces.append(piece)

    def whole(self) -> bytes | None:
        if self._decoder is not None and self._left >= 0:
            self._decoder.end()
        if self._left < 0 or (self._decoder is not None and self._decoder.unread):
            return None
        return b"".join(self._pieces)
