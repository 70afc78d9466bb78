"""What JSON bodies say, by pointer and as JSON-RPC calls. No bytes make it fail: what cannot be read is not known.

A body is parsed when it is first asked for something, and once. What two parsers could read differently is counted in
each reading: a call whose `method` comes again in other letters (Go's parser takes either) is as many calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import orjson

from sidecar.core.usage.rules import MAX_UNITS

MAX_CALLS: Final = 1_000  # of one JSON-RPC batch

_POINTER: Final = re.compile(r"(?:/(?:[^/~]|~[01])*)*")
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")
_NOTHING: Final = object()  # nothing is there: the pointer leads nowhere, or the body is empty
_UNKNOWN: Final = object()  # the body was not seen whole, or is no JSON
_UNREAD: Final = object()


@lru_cache(maxsize=4096)
def steps(pointer: str) -> tuple[str, ...]:
    """The names and indices that an RFC 6901 pointer goes by; () is the whole document. ValueError: it is none."""
    if not _POINTER.fullmatch(pointer):
        raise ValueError("a JSON pointer is empty, or starts with / and has no ~ but in ~0 (for ~) and ~1 (for /)")
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])


class Bodies:
    """The JSON bodies of one exchange, each known once it was taken whole. Answers are those of `core.policy.Tap`.

    What is held is the bytes, and while it is being read up to some thirty times as much; `rest` lets that go.
    """

    __slots__ = ("_calls", "_raw", "_read")

    def __init__(self) -> None:
        self._raw: dict[str, bytes | None] = {}
        self._read: dict[str, Any] = {}
        self._calls: Any = _UNREAD

    def take(self, side: str, body: bytes | None) -> None:
        """All of the body of the "request" or the "response", decoded; None: too large, or cut off."""
        self._raw[side] = body
        self._read.pop(side, None)
        if side == "request":
            self._calls = _UNREAD

    def rest(self) -> None:
        """Forget what was parsed, until something is asked again: an answer may be long in coming."""
        self._read.clear()

    def known(self, side: str) -> bool:
        """Whether the body is known whole, as JSON or as empty: what is not found in it is not there."""
        return self._document(side) is not _UNKNOWN

    @property
    def calls(self) -> Sequence[str] | None:
        """The methods of the request's JSON-RPC calls, "" for an item of a batch that is no call; () where it is none.

        None: not known, or more than MAX_CALLS.
        """
        if self._calls is _UNREAD:
            self._calls = _calls_of(self._document("request"))
        return self._calls  # type: ignore[no-any-return] # the mark that it is unread is gone

    def number(self, side: str, pointer: str, length: bool = False) -> int | None:
        """The whole number from 0 to MAX_UNITS at a pointer, or the count of an array's items; else None.

        JSON has one kind of number (RFC 8259 §6), so 12.0 is 12; "12" is a text, and true is no number.
        """
        found = self._at(side, pointer)
        if length:
            return len(found) if isinstance(found, list) else None
        if isinstance(found, float) and found.is_integer():
            found = int(found)
        return found if type(found) is int and 0 <= found <= MAX_UNITS else None

    def text(self, side: str, pointer: str) -> str | None:
        """The scalar at a pointer as text (true, false, null as in JSON), "[]" for an array, "{}" for an object."""
        found = self._at(side, pointer)
        if found is _NOTHING or found is _UNKNOWN:
            return None
        if isinstance(found, str):
            return _printable(found)
        if isinstance(found, float):
            return str(int(found)) if found.is_integer() else repr(found)
        return _WORDS.get(type(found), str)(found)

    def _at(self, side: str, pointer: str) -> Any:
        found = self._document(side)
        for step in steps(pointer):
            if isinstance(found, dict):
                found = found.get(step, _NOTHING)
            elif isinstance(found, list) and _INDEX.fullmatch(step) and int(step) < len(found):
                found = found[int(step)]
            else:
                return _NOTHING
        return found

    def _document(self, side: str) -> Any:
        found = self._read.get(side, _UNREAD)
        if found is _UNREAD:
            found = self._read[side] = _parsed(self._raw.get(side))
        return found


_WORDS: Final[dict[type, Callable[[Any], str]]] = {
    bool: lambda value: "true" if value else "false",
    type(None): lambda _: "null",
    list: lambda _: "[]",
    dict: lambda _: "{}",
}


def _parsed(body: bytes | None) -> Any:
    """The document; what the strict parser refuses is tried by the lenient one, as an upstream may well take it."""
    if body is None:
        return _UNKNOWN
    if not body:
        return _NOTHING
    try:
        return orjson.loads(body)
    except ValueError:
        pass
    try:
        return json.loads(body)  # lone surrogates, NaN, a byte order mark, UTF-16
    except (ValueError, RecursionError):
        return _UNKNOWN


def _calls_of(document: Any) -> Sequence[str] | None:
    if document is _UNKNOWN:
        return None
    if not isinstance(document, list):
        return tuple(_methods(document))
    if len(document) > MAX_CALLS:
        return None
    return tuple(method for item in document for method in _methods(item) or ("",))


def _methods(item: Any) -> list[str]:
    return [_printable(value) for value in _spelt(item, "method") if isinstance(value, str)]


def _spelt(item: Any, name: str) -> Iterable[Any]:
    """Every value of an object whose name is `name` in whatever letters."""
    return [value for key, value in item.items() if key.lower() == name] if isinstance(item, dict) else ()


def _printable(text: str) -> str:
    """Without lone surrogates, which no record could carry."""
    return text if text.isascii() else text.encode(errors="replace").decode()
