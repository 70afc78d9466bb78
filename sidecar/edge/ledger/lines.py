"""Batches as text for DuckDB: a line for each record, with its offset before it.

A record that is not one line of clean UTF-8 is written as another text of the same JSON, or, where it is not JSON, as a
JSON string: that is not a record, so it is rejected, with its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson

Pair = tuple[int, bytes]
SEPARATOR: Final = "\x01"
_NOT_IN_LINES: Final = bytes(range(32))  # JSON has none of them in a text, and between texts only for the eye


def encode(pairs: Sequence[Pair]) -> bytes:
    """The lines of these offsets and records."""
    if not _is_printable(b"".join([value for _, value in pairs])):
        pairs = [(offset, _clean(value)) for offset, value in pairs]
    return b"".join([b"%d\x01%b\n" % pair for pair in pairs])


def _is_printable(text: bytes) -> bool:
    """Whether all of it may be in a line. The quick answer: False for some texts that may be, too."""
    try:
        return text.decode().isprintable()
    except UnicodeDecodeError:
        return False


def _clean(value: bytes) -> bytes:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return orjson.dumps(value.decode("utf-8", "backslashreplace"))
    if len(value.translate(None, _NOT_IN_LINES)) == len(value):
        return value
    try:
        return orjson.dumps(orjson.loads(value))
    except orjson.JSONDecodeError:
        return orjson.dumps(text)
