"""Removes the sidecar's keys from request heads before they are forwarded, so that no upstream sees them.

The source of the credential is always removed. Clients send the same key in several places, as in `X-Api-Key` and
`Authorization`, or in the query too. So a header field, cookie or parameter is also removed if its text contains the
request's credential, or a key that `sidecar keys new` made. The text is searched as it is, percent-decoded once, and
decoded from base64 after `Basic`. Other tokens belong to the API, and are forwarded. In the places from which a route
reads credentials, any key is removed that `is_registered` knows.

    X-Api-Key: msk_7Hq…          the source of the credential: removed
    Authorization: Bearer msk_7Hq…   the same key: removed
    Cookie: a=1; k=msk_7Hq…      forwarded as `Cookie: a=1`
    X-Session: 9f3c…             another token: forwarded
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from sidecar.core.http import Request
from sidecar.core.identity import PREFIX, Source, has_valid_checksum

# A shorter credential is often part of another word, so it counts only without a letter or digit next to it.
MIN_CONTAINED_BYTES: Final = 8

_PREFIX: Final = PREFIX.encode()
_MADE: Final = re.compile(rb"(?=(%b(?:test_)?[0-9A-Za-z]{33}))" % _PREFIX)  # then `has_valid_checksum` decides
_BASIC: Final = re.compile(rb"(?i)basic[\s+]+([0-9A-Za-z+/_-]+)")
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
# Fields from which single items are removed, with the separator of items.
_SEPARATORS: Final = {b"cookie": b";", b"sec-websocket-protocol": b","}
_NOTHING: frozenset[bytes] = frozenset()


class Stripped(NamedTuple):
    """The header fields to remove, by lower-case name, the fields to forward in place of them, and the query."""

    dropped: frozenset[bytes]
    fields: list[tuple[bytes, bytes]]
    query: str


def strip_keys(
    request: Request, source: Source | None, sources: Sequence[Source], is_registered: Callable[[bytes], bool]
) -> Stripped:
    """Strip the head of a request. `source`, one of its route's `sources`, had the credential; None: it had none."""
    credential = source.read(source, request) if source is not None else None
    keys = _Keys(credential if isinstance(credential, bytes) else b"", is_registered)
    field = source.field if source is not None else b""
    carriers = {each.field for each in sources if each.field} - {field}
    values = [value for name, (_, value) in zip(request.names, request.headers, strict=True) if name != field]
    dropped = {field} if field else set()
    fields: list[tuple[bytes, bytes]] = []
    # Most heads have their key only once, so one search of all fields is enough.
    if carriers & request.fields.keys() or keys.may_be_in(b"\n".join(values)):
        others = [(name, each) for name, each in zip(request.names, request.headers, strict=True) if name != field]
        removed = {name for name, (_, value) in others if keys.must_remove(value, carried=name in carriers)}
        for name, (spelled, value) in others:
            if name in removed and name in _SEPARATORS:
                rest = keys.without(value, _SEPARATORS[name], carried=name in carriers)
                if rest:
                    fields.append((spelled, rest))
        dropped |= removed
    query = _query(request.query, source, sources, keys) if request.query else ""
    return Stripped(frozenset(dropped) if dropped else _NOTHING, fields, query)


class _Keys:
    """The sidecar's keys: the request's `own` credential, keys with our prefix and checksum, and registered keys."""

    def __init__(self, own: bytes, is_registered: Callable[[bytes], bool]) -> None:
        self._own = own
        self._is_registered = is_registered

    def may_be_in(self, text: bytes) -> bool:
        """Whether `are_in` can be true for a part of this text."""
        for each in _readings(text):
            if _PREFIX in each or (self._own and self._own in each) or b"basic" in each.lower():
                return True
        return False

    def must_remove(self, value: bytes, *, carried: bool) -> bool:
        """Whether a value must be removed. `carried`: routes read keys there, so registered keys are removed too."""
        return self.are_in(value) or (carried and any(self._is_registered(part) for part in _parts(value)))

    def are_in(self, value: bytes) -> bool:
        """Whether a value contains the request's own key, or one with our prefix and checksum."""
        return any(
            self._are_in_text(each) or any(self._are_in_text(pair) for pair in _basic_pairs(each))
            for each in _readings(value)
        )

    def without(self, value: bytes, separator: bytes, *, carried: bool) -> bytes:
        """The value without the items that contain keys; b"" if several items together are a key."""
        items = [item for item in value.split(separator) if not self.must_remove(item, carried=carried)]
        rest = separator.join(items).strip()
        return b"" if self.are_in(rest) else rest

    def _are_in_text(self, text: bytes) -> bool:
        if self._own and self._own in text and self._own_is_in(text):
            return True
        return _PREFIX in text and any(has_valid_checksum(match[1]) for match in _MADE.finditer(text))

    def _own_is_in(self, text: bytes) -> bool:
        size = len(self._own)
        if size >= MIN_CONTAINED_BYTES:
            return True
        at = text.find(self._own)
        while at >= 0:
            if not (text[max(at - 1, 0) : at].isalnum() or text[at + size : at + size + 1].isalnum()):
                return True
            at = text.find(self._own, at + 1)
        return False


def _readings(value: bytes) -> Sequence[bytes]:
    """A text as it is, and percent-decoded if it has a percent sign."""
    return (value, unquote_to_bytes(value)) if b"%" in value else (value,)


def _basic_pairs(text: bytes) -> Iterable[bytes]:
    """The decoded base64 after each `Basic`, with or without padding, in either alphabet."""
    for match in _BASIC.finditer(text):
        packed = match[1].translate(_STANDARD)
        packed = packed[: len(packed) - (len(packed) % 4 == 1)]  # a single last letter is less than a byte
        yield b64decode(packed + b"=" * (-len(packed) % 4))


def _parts(value: bytes) -> Iterable[bytes]:
    """The parts of a value that may be a credential: all of it, the rest after a scheme, user and password of Basic."""
    value = value.strip(b' "')
    yield value
    words = value.split(None, 1)
    if len(words) == 2:
        yield words[1]
    for pair in _basic_pairs(value):
        user, _, password = pair.partition(b":")
        yield user
        yield password


def _query(query: str, source: Source | None, sources: Sequence[Source], keys: _Keys) -> str:
    """The query without the parameter of `source` and without keys, otherwise unchanged."""
    taken = source.name if source is not None and source.kind == "query" else None
    carriers = {each.name for each in sources if each.kind == "query"}
    if not carriers and not keys.may_be_in(query.encode()):
        return query
    parts = []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        carrier = unquote_to_bytes(name)
        carried = carrier in carriers and keys.must_remove(unquote_to_bytes(value), carried=True)
        if carrier != taken and not carried and not keys.are_in(part.encode()):
            parts.append(part)
    return "&".join(parts)
