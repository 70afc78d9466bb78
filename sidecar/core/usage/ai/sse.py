"""Split a stream of bytes into server-sent events. Every byte is returned, in its order, as part of one event.

Lines end with CRLF, LF or CR, and an empty line ends an event, however the bytes are split. At most MAX_EVENT bytes
are buffered. Source: html.spec.whatwg.org/multipage/server-sent-events.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

MAX_EVENT: Final = 1 << 20  # bytes of an event that is read; a longer one is not buffered

Event = tuple[bytes, bool]
"""The bytes of an event with the lines that end it, and whether it is whole: one longer than MAX_EVENT is returned in
pieces that are not read."""

_LINE_END: Final = rb"(?:\r\n|\n|\r(?=[^\n]))"  # whether a CR ends its line depends on the next byte
_END: Final = re.compile(_LINE_END * 2)
_TAIL: Final = 2  # bytes before a piece that can belong to an end within it: CR of CRLF, and a line end


class Events:
    """The events of one stream."""

    __slots__ = ("_held", "_tail", "_too_long")

    def __init__(self) -> None:
        self._held = bytearray()  # the bytes of the current event, unless it is too long
        self._tail = b""  # the last bytes of it
        self._too_long = False

    def feed(self, data: bytes) -> list[Event]:
        """The events that end in `data`; where `data` is exactly one event, it is returned as the same object."""
        if not self._tail and data.find(b"\n\n") == len(data) - 2 >= 0 and b"\r" not in data:
            return [(data, len(data) <= MAX_EVENT)]  # most writes of most servers are one event
        before = len(self._tail)
        events: list[Event] = []
        begin = 0
        for end in list(_ends(self._tail + data if before else data)):
            events.append(self._ended(data[begin : end - before]))
            begin = end - before
        if begin < len(data):
            self._hold(data[begin:], events)
        return events

    def rest(self) -> Event:
        """The bytes after the last event: a stream may end without the empty line."""
        return self._ended(b"")

    def _ended(self, piece: bytes) -> Event:
        if not self._tail:
            return piece, len(piece) <= MAX_EVENT
        event = bytes(self._held) + piece, not self._too_long and len(self._held) + len(piece) <= MAX_EVENT
        self._held.clear()
        self._tail, self._too_long = b"", False
        return event

    def _hold(self, piece: bytes, events: list[Event]) -> None:
        self._tail = (self._tail + piece)[-_TAIL:]
        self._held += piece
        if self._too_long or len(self._held) > MAX_EVENT:
            self._too_long = True
            events.append((bytes(self._held), False))
            self._held.clear()


def data_of(event: bytes) -> bytes:
    """The event's data: the text after the colon of its `data:` lines; b"" without such lines."""
    if event.startswith(b"data:") and event.find(b"\n") >= len(event) - 2 and b"\r" not in event:
        return event[5:]  # one line; JSON ignores its line end
    lines = [line[5:] for line in event.splitlines() if line.startswith(b"data:")]
    return lines[0] if len(lines) == 1 else b"\n".join(lines)


def _ends(data: bytes) -> Iterator[int]:
    """The ends of events in `data`. Where all lines end alike, as usual, no regular expression is needed."""
    returns = data.count(b"\r")
    if returns and not returns == data.count(b"\n") == data.count(b"\r\n"):
        yield from (match.end() for match in _END.finditer(data))
        return
    mark = b"\r\n\r\n" if returns else b"\n\n"
    end = data.find(mark)
    while end >= 0:
        yield end + len(mark)
        end = data.find(mark, end + len(mark))
