"""JSON answers, as their bytes come: one document, or the elements of an array that is streamed. Memory is bounded.

A document up to MAX_DOCUMENT bytes is parsed; of a longer one the end is kept, and its last usage is looked for there,
for a usage stands behind what was generated. An array's elements come out one by one, as whole as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import orjson

MAX_DOCUMENT: Final = 1 << 20  # bytes
TAIL: Final = 64 * 1024  # bytes of the end of a longer document
MAX_ELEMENT: Final = 1 << 20  # bytes of an element that is read
_BETWEEN: Final = b", \t\r\n"  # elements
_TRIES: Final = 8  # of the last places that look like a usage

# What stands in a string. Atomic groups: possessive quantifiers match too much before Python 3.11.5 (cpython #106052).
_STRING: Final = rb"""(?>(?:(?>[^"\\]+)|\\.)*)"""
# Up to the next bracket outside of strings, or to a string that does not end here (group 2).
_TURN: Final = re.compile(rb"""(?>(?:(?>[^"{}\[\]]+)|"%b")*)([{}\[\]]|("%b))""" % (_STRING, _STRING), re.DOTALL)
_IN_STRING: Final = re.compile(_STRING + rb'("?)', re.DOTALL)
_USAGE: Final = re.compile(rb'"(usage|usageMetadata)"\s*:\s*(?=\{)')


def parsed(body: bytes) -> Any:
    """The value of a JSON text; None where it is none.

    What the strict parser refuses (a lone surrogate, NaN, UTF-16) is given to Python's own, because upstreams that use
    it would understand the request, and what they understand is metered.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


class Document:
    """One JSON document."""

    __slots__ = ("_held", "length")

    def __init__(self) -> None:
        self._held = bytearray()
        self.length = 0  # bytes, of all that came

    def feed(self, data: bytes) -> tuple[()]:
        """Nothing comes out before `value` is asked for."""
        self._held += data
        self.length += len(data)
        if self.length > MAX_DOCUMENT and len(self._held) > 2 * TAIL:
            del self._held[:-TAIL]
        return ()

    def value(self) -> Any:
        """The document, of a longer one an object with its usage; None where it is cut, or no JSON."""
        if self.length <= MAX_DOCUMENT:
            return parsed(bytes(self._held))
        return _last_usage(bytes(self._held[-TAIL:]))


class Elements:
    """What the objects in a JSON array say, in the order in which they end."""

    __slots__ = ("_depth", "_element", "_escaped", "_in_string", "_reading", "_too_long", "ended", "unread")

    def __init__(self) -> None:
        self._depth = 0
        self._element = bytearray()
        self._escaped = False  # the last byte was a backslash in a string
        self._in_string = False
        self._reading = False  # an element has begun
        self._too_long = False
        self.ended = False  # the array's own bracket has closed
        self.unread = 0  # bytes of elements that were too long, or no JSON

    def feed(self, data: bytes) -> list[Any]:
        alone = self._alone(data)
        if alone is not None:
            return [alone]
        elements: list[Any] = []
        begin = 0
        for position, depth in self._turns(data):
            if depth == 2 and not self._reading:
                self._reading, begin = True, position - 1
            elif depth == 1 and self._reading:
                self._hold(data[begin:position])
                elements += self._whole()
            elif depth == 0:
                self.ended = True
        if self._reading:
            self._hold(data[begin:])
        return elements

    def _alone(self, data: bytes) -> Any:
        """What `data` says where it is one element and nothing else, as most writes of most servers are."""
        if self._depth != 1 or self._in_string or len(data) > MAX_ELEMENT:
            return None
        try:
            value = orjson.loads(data.strip(_BETWEEN))
        except orjson.JSONDecodeError:
            return None
        return value if type(value) is dict else None

    def _turns(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Where a bracket outside of strings ends, and how deep we are behind it."""
        at = self._through_string(data) if self._in_string and data else 0
        while not self._in_string and (found := _TURN.match(data, at)):
            at = found.end()
            if found[2] is None:
                self._depth = max(0, self._depth + _step(found[1]))
                yield at, self._depth
            else:
                self._in_string = True
                self._escaped = at < len(data)

    def _through_string(self, data: bytes) -> int:
        found = _IN_STRING.match(data, 1 if self._escaped else 0)
        at = found.end() if found else 0
        self._in_string = not (found and found[1])
        self._escaped = self._in_string and at < len(data)
        return at

    def _hold(self, piece: bytes) -> None:
        self._element += piece
        if self._too_long or len(self._element) > MAX_ELEMENT:
            self._too_long = True
            self.unread += len(self._element)
            self._element.clear()

    def _whole(self) -> list[Any]:
        value = None if self._too_long else parsed(bytes(self._element))
        if value is None:
            self.unread += len(self._element)
        self._element.clear()
        self._reading = self._too_long = False
        return [] if value is None else [value]


def _last_usage(tail: bytes) -> dict[str, Any] | None:
    """The usage that is a member of the document itself, as a document that has nothing else.

    Behind it, only the document's own bracket closes. One further down was written by the model, or by who asked it.
    """
    for found in reversed(list(_USAGE.finditer(tail))[-_TRIES:]):
        end = _object_end(tail, found.end())
        usage = parsed(tail[found.end() : end])
        if type(usage) is dict and _depth_of(tail, end) == -1:
            return {found[1].decode(): usage}
    return None


def _object_end(data: bytes, begin: int) -> int:
    """Where the object that stands at `begin` ends; `begin` where it does not."""
    depth = 0
    for end, step in _steps(data, begin):
        depth += step
        if depth == 0:
            return end
    return begin


def _depth_of(data: bytes, begin: int) -> int:
    return sum(step for _, step in _steps(data, begin))


def _steps(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Where each bracket outside of strings ends, with 1 where it opens and -1 where it closes."""
    while (found := _TURN.match(data, at)) is not None and found[2] is None:
        at = found.end()
        yield at, _step(found[1])


def _step(bracket: bytes) -> int:
    return 1 if bracket in b"{[" else -1
