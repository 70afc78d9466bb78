"""The forms that an answer's bytes come in: a stream of events, JSON, or what has no words in it.

A form takes the bytes as they pass, gives what a client is to see of them, and tells `Seen` what they say. Only a
stream whose usage was asked for on the client's behalf is ever changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from sidecar.core.usage.ai.documents import Document, Elements, parsed
from sidecar.core.usage.ai.injection import is_extra, without_null
from sidecar.core.usage.ai.seen import Seen
from sidecar.core.usage.ai.sse import Events, data_of
from sidecar.core.usage.ai.vendors import read

_BLANK: Final = b" \t\r\n\xef\xbb\xbf"  # before a document, with the mark that some put there
_DONE: Final = b"[DONE]"  # OpenAI's last event


class Form(Protocol):
    """`feed` gives what to pass on of `data`, the same object where that is all of it; `end` what was held back."""

    def feed(self, data: bytes) -> bytes: ...
    def end(self, *, complete: bool) -> bytes: ...


class Wordless:
    """Sound, pictures, or no answer at all."""

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
            self._hear(event, whole=whole)
        return data

    def end(self, *, complete: bool) -> bytes:
        self._last(complete=complete)
        return b""

    def _last(self, *, complete: bool) -> bytes:
        """Take what came behind the last event: a stream may end without its empty line, or in the midst."""
        event, whole = self._events.rest()
        before = self._seen.unread
        kept = self._keep(event, whole=whole)
        if not complete:
            self._seen.unread = before  # half an event is nothing that was said
        return kept

    def _keep(self, event: bytes, *, whole: bool) -> bytes:
        self._hear(event, whole=whole)
        return event

    def _hear(self, event: bytes, *, whole: bool) -> Mapping[str, Any] | None:
        """Take an event; gives what it says, where that is an object."""
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
    """Server-sent events with a usage that the client did not ask for. Half an event is held back."""

    __slots__ = ()

    def feed(self, data: bytes) -> bytes:
        kept = [self._keep(event, whole=whole) for event, whole in self._events.feed(data)]
        return kept[0] if len(kept) == 1 else b"".join(kept)

    def end(self, *, complete: bool) -> bytes:
        return self._last(complete=complete)

    def _keep(self, event: bytes, *, whole: bool) -> bytes:
        value = self._hear(event, whole=whole)
        if value is None or "usage" not in value:
            return event
        if value["usage"] is None:
            return without_null(event, value)
        return b"" if is_extra(value) else event


class Json:
    """A document, or an array whose elements come one by one. `asked`: a model was named, so words are expected."""

    __slots__ = ("_asked", "_form", "_seen")

    def __init__(self, seen: Seen, *, asked: bool) -> None:
        self._asked = asked
        self._form: Document | Elements | None = None
        self._seen = seen

    def feed(self, data: bytes) -> bytes:
        if self._form is None:
            begun = data.lstrip(_BLANK)
            if begun:
                self._form = Elements() if begun.startswith(b"[") else Document()
                self._take(self._form, begun)
        else:
            self._take(self._form, data)
        return data

    def end(self, *, complete: bool) -> bytes:  # noqa: ARG002 - an array or a document says itself whether it is whole
        seen, form = self._seen, self._form
        if isinstance(form, Elements):
            seen.unread += form.unread
            seen.finished = seen.finished or form.ended
        elif form is not None:
            value = form.value()
            if type(value) is dict:
                read(value, seen)
                seen.finish()
            silent = self._asked and not (seen.text or seen.counts or seen.ending)
            if silent or type(value) is not dict:
                seen.unread += form.length
        return b""

    def _take(self, form: Document | Elements, data: bytes) -> None:
        for value in form.feed(data):
            if type(value) is dict:
                read(value, self._seen)
