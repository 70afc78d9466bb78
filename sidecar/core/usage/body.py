"""Read JSON bodies by pointer and as JSON-RPC calls. No input raises: a value that cannot be read is unknown.

A body is parsed once, on the first access. Values that parsers could read differently are unknown in a request
(json_text.py). Of JSON-RPC calls each reading is counted: a call with several `method` members counts once for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

from sidecar.core.usage.json_text import MISSING, UNKNOWN, JsonText, every
from sidecar.core.usage.rules import MAX_UNITS

MAX_CALLS: Final = 1_000  # of one JSON-RPC batch

_POINTER: Final = re.compile(r"(?:/(?:[^/~]|~[01])*)*")
_METHOD: Final = "method"
_UNREAD: Final = object()
_UNSEEN: Final = JsonText(None)  # shared by all exchanges: it has no content


@lru_cache(maxsize=4096)
def steps(pointer: str) -> tuple[str, ...]:
    """The names and indices of an RFC 6901 pointer; () is the whole document. ValueError: it is not a pointer."""
    if not _POINTER.fullmatch(pointer):
        raise ValueError("a JSON pointer is empty, or starts with / and has no ~ but in ~0 (for ~) and ~1 (for /)")
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])


class Bodies:
    """The JSON bodies of one exchange, each known after `take`. The methods implement those of `core.policy.Tap`."""

    __slots__ = ("_calls", "_sides", "_ambiguous")

    def __init__(self) -> None:
        self._sides = {"request": _UNSEEN, "response": _UNSEEN}
        self._calls: Any = _UNREAD
        self._ambiguous = False

    def take(self, side: str, body: bytes | None) -> JsonText:
        """Set the whole body of the "request" or the "response", decoded; None: too large, or cut."""
        if side == "request":
            self._calls = _UNREAD
        text = self._sides[side] = _UNSEEN if body is None else JsonText(body)
        return text

    def rest(self) -> None:
        """Drop the parsed values until the next access: an answer may take long."""
        for text in self._sides.values():
            text.rest()

    def known(self, side: str, pointer: str = "") -> bool:
        """Whether the value at a pointer is known; a known absence counts."""
        return self._at(side, pointer) is not UNKNOWN

    @property
    def calls(self) -> Sequence[str] | None:
        """The methods of the request's JSON-RPC calls, "" for an item of a batch that is not a call; () without calls.

        None: unknown, or more than MAX_CALLS.
        """
        if self._calls is _UNREAD:
            self._calls, self._ambiguous = _calls_of(self._sides["request"])
        return self._calls  # type: ignore[no-any-return] # the mark that it is unread is gone

    @property
    def lacks_calls(self) -> bool:
        """Whether the calls are unknown, or one has two methods, or one that is not a text."""
        return self.calls is None or self._ambiguous

    def lacks_number(self, side: str, pointer: str, length: bool = False) -> bool:
        """Whether the value at a pointer is unknown, or not a number (array), which an API might still accept."""
        value = self._at(side, pointer)
        return value is not MISSING and value is not None and self.number(side, pointer, length) is None

    def number(self, side: str, pointer: str, length: bool = False) -> int | None:
        """The whole number from 0 to MAX_UNITS at a pointer, or the count of an array's items; else None.

        JSON has one kind of number (RFC 8259 §6), so 12.0 is 12; "12" is a text, and true is not a number.
        """
        value = self._at(side, pointer)
        if length:
            return len(value) if isinstance(value, list) else None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return value if type(value) is int and 0 <= value <= MAX_UNITS else None

    def text(self, side: str, pointer: str) -> str | None:
        """The scalar at a pointer as text (true, false, null as in JSON), "[]" for an array, "{}" for an object."""
        value = self._at(side, pointer)
        if value is MISSING or value is UNKNOWN:
            return None
        if isinstance(value, str):
            return _printable(value)
        if isinstance(value, float):
            return str(int(value)) if value.is_integer() else repr(value)
        return _TEXTS.get(type(value), str)(value)

    def _at(self, side: str, pointer: str) -> Any:
        """Responses are read loosely: upstreams gain nothing from ambiguity, and may use names that differ in case."""
        text, path = self._sides[side], steps(pointer)
        return text.at(path) if side == "request" else text.loosely_at(path)


_TEXTS: Final[dict[type, Callable[[Any], str]]] = {
    bool: lambda value: "true" if value else "false",
    type(None): lambda _: "null",
    list: lambda _: "[]",
    dict: lambda _: "{}",
}


def _calls_of(text: JsonText) -> tuple[Sequence[str] | None, bool]:
    """The methods, and whether a call has several, or one that is not a text: a server might still run it."""
    document = text.value
    if document is UNKNOWN or (isinstance(document, list) and len(document) > MAX_CALLS):
        return None, False
    calls = _methods(document)
    if not text.is_certain(_METHOD, sum(map(len, calls))):
        document = text.everything
        if document is UNKNOWN:
            return None, False
        calls = _methods(document)
    none = [""] if isinstance(document, list) else []
    named = [[_printable(method) for method in methods if isinstance(method, str)] or none for methods in calls]
    uncertain = any(len(methods) > 1 or not isinstance(methods[0], str | None) for methods in calls if methods)
    return tuple(method for methods in named for method in methods), uncertain


def _methods(document: Any) -> list[list[Any]]:
    """The values of `method` in each call, in upper or lower case."""
    return [every(item, _METHOD) for item in (document if isinstance(document, list) else [document])]


def _printable(text: str) -> str:
    """The text without lone surrogates, which records cannot contain."""
    return text if text.isascii() else text.encode(errors="replace").decode()
