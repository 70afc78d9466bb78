"""Read JSON answers incrementally: one document, or the elements of a streamed array. Memory is bounded.

A document up to MAX_DOCUMENT bytes is parsed. Of a longer one the end is retained and searched for the last usage,
since usage follows the generated text. An array's elements are returned one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import orjson

from sidecar.core.usage.json_text import parse

MAX_DOCUMENT: Final = 1 << 20  # bytes
TAIL: Final = 64 * 1024  # bytes of the end of a longer document
MAX_ELEMENT: Final = 1 << 20  # bytes of an element that is read
_BETWEEN: Final = b", \t\r\n"  # elements
MAX_DEPTH: Final = 10_000  # of a streamed array: no server reads deeper ones, and each bracket costs a microsecond
_TRIES: Final = 8  # candidates for a usage, from the end
_BRACKETS: Final = 1_024  # looked at for each of them

# The content of a string. Atomic groups: possessive quantifiers match too much before Python 3.11.5 (cpython #106052).
_STRING: Final = rb"""(?>(?:(?>[^"\\]+)|\\.)*)"""
# Up to the next bracket outside of strings, or to a string that does not end here (group 2).
_TURN: Final = re.compile(rb"""(?>(?:(?>[^"{}\[\]]+)|"%b")*)([{}\[\]]|("%b))""" % (_STRING, _STRING), re.DOTALL)
_IN_STRING: Final = re.compile(_STRING + rb'("?)', re.DOTALL)
_USAGE: Final = re.compile(rb'"(usage|usageMetadata)"\s*:\s*(?=\{)')


def parsed(body: bytes) -> Any:
    """The value of a JSON text; None where it is not JSON."""
    try:
        return parse(body)
    except ValueError:
        return None


class Document:
    """One JSON document."""

    __slots__ = ("_held", "length")

    def __init__(self) -> None:
        self._held = bytearray()
        self.length = 0  # bytes fed

    def feed(self, data: bytes) -> tuple[()]:
        """Take a piece. The document is read by `value`."""
        self._held += data
        self.length += len(data)
        if self.length > MAX_DOCUMENT and len(self._held) > 2 * TAIL:
            del self._held[:-TAIL]
        return ()

    def value(self) -> Any:
        """The document, or of an over-long one an object with its usage; None where it is cut, or not JSON."""
        if self.length <= MAX_DOCUMENT:
            return parsed(bytes(self._held))
        return _last_usage(bytes(self._held[-TAIL:]))


class Elements:
    """The objects in a JSON array, in the order in which they end."""

    __slots__ = (
        "_depth", "_element", "_escaped", "_in_string", "_reading", "_too_deep", "_too_long", "ended", "unread",
    )  # fmt: skip

    def __init__(self) -> None:
        self._depth = 0
        self._element = bytearray()
        self._escaped = False  # the last byte was a backslash in a string
        self._in_string = False
        self._reading = False  # an element has begun
        self._too_deep = False  # for good: the rest is not read
        self._too_long = False
        self.ended = False  # the array's own bracket has closed
        self.unread = 0  # bytes of elements that were too long, or not JSON

    def feed(self, data: bytes) -> list[Any]:
        if self._too_deep:
            self.unread += len(data)
            return []
        element = self._single(data)
        if element is not None:
            return [element]
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
            elif depth > MAX_DEPTH:
                self._too_deep = self._too_long = True
                break
        if self._reading:
            self._hold(data[begin:])
        return elements

    def _single(self, data: bytes) -> Any:
        """The element where `data` is exactly one, as most writes of most servers are; else None."""
        if self._depth != 1 or self._in_string or len(data) > MAX_ELEMENT:
            return None
        try:
            value = orjson.loads(data.strip(_BETWEEN))
        except orjson.JSONDecodeError:
            return None
        return value if type(value) is dict else None

    def _turns(self, data: bytes) -> Iterator[tuple[int, int]]:
        """The end of each bracket outside of strings, and the depth after it."""
        at = self._through_string(data) if self._in_string and data else 0
        while not self._in_string and (turn := _TURN.match(data, at)):
            at = turn.end()
            if turn[2] is None:
                self._depth = max(0, self._depth + _step(turn[1]))
                yield at, self._depth
            else:
                self._in_string = True
                self._escaped = at < len(data)

    def _through_string(self, data: bytes) -> int:
        rest = _IN_STRING.match(data, 1 if self._escaped else 0)
        at = rest.end() if rest else 0
        self._in_string = not (rest and rest[1])
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
    """The usage that is a member of the document itself, as a document with no other member.

    After it, only the document's own bracket closes. A nested one is text of the model or of the user.
    """
    for member in reversed(list(_USAGE.finditer(tail))[-_TRIES:]):
        end = _object_end(tail, member.end())
        usage = parsed(tail[member.end() : end])
        if type(usage) is dict and _depth_of(tail, end) == -1:
            return {member[1].decode(): usage}
    return None


def _object_end(data: bytes, begin: int) -> int:
    """The end of the object that begins at `begin`; `begin` where it is cut."""
    depth = 0
    for end, step in islice(_steps(data, begin), _BRACKETS):
        depth += step
        if depth == 0:
            return end
    return begin


def _depth_of(data: bytes, begin: int) -> int:
    return sum(step for _, step in islice(_steps(data, begin), _BRACKETS))


def _steps(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    """The end of each bracket outside of strings, with 1 for an opening and -1 for a closing one."""
    while (turn := _TURN.match(data, at)) is not None and turn[2] is None:
        at = turn.end()
        yield at, _step(turn[1])


def _step(bracket: bytes) -> int:
    return 1 if bracket in b"{[" else -1
