"""The formats of an answer's body: a stream of events, JSON, or an opaque body.

A format reads the bytes as they pass, returns those for the client, and updates `Seen`. Only a stream whose usage was
requested on the client's behalf is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from sidecar.core.usage.ai.documents import Document, Elements, parsed
from sidecar.core.usage.ai.injection import is_extra, without_null
from sidecar.core.usage.ai.seen import Seen
from sidecar.core.usage.ai.sse import Events, data_of
from sidecar.core.usage.ai.vendors import read

_BLANK: Final = b" \t\r\n\xef\xbb\xbf"  # before a document, with a byte order mark
_DONE: Final = b"[DONE]"  # OpenAI's last event


class ResponseFormat(Protocol):
    """`feed` returns the part of `data` to pass on, the same object where it is all; `end` the withheld bytes."""

    def feed(self, data: bytes) -> bytes: ...
    def end(self, *, complete: bool) -> bytes: ...


class OpaqueBody:
    """Sound, pictures, or no body at all."""

    __slots__ = ("_seen",)

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def feed(self, data: bytes) -> bytes:
        return data

    def end(self, *, complete: bool) -> bytes:
        self._seen.finished = complete
        return b""


class Stream:
    """Server-sent events."""

    __slots__ = ("_events", "_seen")

    def __init__(self, seen: Seen) -> None:
        self._events = Events()
        self._seen = seen

    def feed(self, data: bytes) -> bytes:
        for event, whole in self._events.feed(data):
            self._read_event(event, whole=whole)
        return data

    def end(self, *, complete: bool) -> bytes:
        self._last(complete=complete)
        return b""

    def _last(self, *, complete: bool) -> bytes:
        """Read the bytes after the last event: a stream may end without its empty line, or within an event."""
        event, whole = self._events.rest()
        before = self._seen.unread
        passed = self._passed(event, whole=whole)
        if not complete:
            self._seen.unread = before  # a cut event does not count as text
        return passed

    def _passed(self, event: bytes, *, whole: bool) -> bytes:
        self._read_event(event, whole=whole)
        return event

    def _read_event(self, event: bytes, *, whole: bool) -> Mapping[str, Any] | None:
        """Read an event; returns its value where that is an object."""
        data = data_of(event) if whole else event
        value = parsed(data) if whole and b"{" in data else None
        if type(value) is dict:
            read(value, self._seen)
            return value
        words = data.strip()
        if words == _DONE:
            self._seen.finish()
        else:
            self._seen.unread += len(words)
        return None


class FilteredStream(Stream):
    """Server-sent events with a usage that the client did not request. An incomplete event is withheld."""

    __slots__ = ()

    def feed(self, data: bytes) -> bytes:
        passed = [self._passed(event, whole=whole) for event, whole in self._events.feed(data)]
        return passed[0] if len(passed) == 1 else b"".join(passed)

    def end(self, *, complete: bool) -> bytes:
        return self._last(complete=complete)

    def _passed(self, event: bytes, *, whole: bool) -> bytes:
        value = self._read_event(event, whole=whole)
        if value is None or "usage" not in value:
            return event
        if value["usage"] is None:
            return without_null(event, value)
        return b"" if is_extra(value) else event


class Json:
    """A document, or a streamed array. `expects_text`: the request names a model, so the answer should have text."""

    __slots__ = ("_document", "_expects_text", "_seen")

    def __init__(self, seen: Seen, *, expects_text: bool) -> None:
        self._expects_text = expects_text
        self._document: Document | Elements | None = None
        self._seen = seen

    def feed(self, data: bytes) -> bytes:
        if self._document is None:
            begun = data.lstrip(_BLANK)
            if begun:
                self._document = Elements() if begun.startswith(b"[") else Document()
                self._take(self._document, begun)
        else:
            self._take(self._document, data)
        return data

    def end(self, *, complete: bool) -> bytes:  # noqa: ARG002 - JSON itself shows whether it is whole
        seen, document = self._seen, self._document
        if isinstance(document, Elements):
            seen.unread += document.unread
            seen.finished = seen.finished or document.ended
        elif document is not None:
            value = document.value()
            if type(value) is dict:
                read(value, seen)
                seen.finish()
            silent = self._expects_text and not (seen.text or seen.counts or seen.ending)
            if silent or type(value) is not dict:
                seen.unread += document.length
        return b""

    def _take(self, document: Document | Elements, data: bytes) -> None:
        for value in document.feed(data):
            if type(value) is dict:
                read(value, self._seen)
