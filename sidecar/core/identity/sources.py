"""The places of a request that may hold a credential, and how it is read there."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NotBase64
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from sidecar.core.http import Problem, Request

if TYPE_CHECKING:
    from collections.abc import Callable

AMBIGUOUS = Problem(400, "ambiguous-credential", "The credential was sent more than once; send it once.")
MALFORMED = Problem(400, "malformed-credential", "Basic credentials are base64 of `user:password` (RFC 7617).")

ReadResult = bytes | Problem | None


class Source:
    """A place of a request that may hold the credential: kind `header`, `bearer`, `basic` or `query`.

    `name` is that of the header or parameter; the default of bearer and basic is `Authorization`. `field` is the header
    name in lower case, which is removed together with the credential; b"" for a parameter. `place` completes the
    sentence "send it …".
    """

    __slots__ = ("field", "kind", "name", "place", "read")

    def __init__(self, kind: str, name: str = "") -> None:
        if kind not in _READERS:
            raise ValueError(f"a credential comes from one of {', '.join(_READERS)}")
        if not name and kind in {"header", "query"}:
            raise ValueError(f"a credential from a {kind} needs the name of the {kind}")
        self.kind = kind
        self.name = (name or "Authorization").encode()
        self.field = b"" if kind == "query" else self.name.lower()
        self.place = _PLACES[kind].format(self.name.decode())
        self.read: Callable[[Source, Request], ReadResult] = _READERS[kind]

    def __repr__(self) -> str:
        return f"Source({self.kind!r}, {self.name.decode()!r})"


def _from_header(source: Source, request: Request) -> ReadResult:
    value = request.fields.get(source.field)
    if value is None:
        return None
    if source.field in request.repeated:
        return AMBIGUOUS
    return value or None


def _from_bearer(source: Source, request: Request) -> ReadResult:
    return _after_scheme(b"bearer ", _from_header(source, request))


def _from_basic(source: Source, request: Request) -> ReadResult:
    """The password, or the user name if the password is empty (RFC 7617 §2: the first colon separates them)."""
    value = _after_scheme(b"basic ", _from_header(source, request))
    if not isinstance(value, bytes):
        return value
    try:
        user, colon, password = b64decode(value, validate=True).partition(b":")
    except NotBase64:
        return MALFORMED
    return (password or user or None) if colon else MALFORMED


def _after_scheme(scheme: bytes, value: ReadResult) -> ReadResult:
    """The credential after the scheme, which is case-insensitive (RFC 9110 §11.1); None for another scheme."""
    if not isinstance(value, bytes):
        return value
    return value[len(scheme) :].strip() or None if value[: len(scheme)].lower() == scheme else None


def _from_query(source: Source, request: Request) -> ReadResult:
    """A parameter's value, percent-decoded. `+` is not decoded: it is a character of base64, and no key has spaces."""
    parts = [part for part in request.query.split("&") if _parameter(part) == source.name]
    if len(parts) > 1:
        return AMBIGUOUS
    return unquote_to_bytes(parts[0].partition("=")[2]) or None if parts else None


def _parameter(part: str) -> bytes:
    return unquote_to_bytes(part.partition("=")[0])


_READERS: dict[str, Callable[[Source, Request], ReadResult]] = {
    "header": _from_header,
    "bearer": _from_bearer,
    "basic": _from_basic,
    "query": _from_query,
}

_PLACES = {
    "header": "in the header {}",
    "bearer": "in the header {}, after the word Bearer",
    "basic": "as the password of Basic in the header {}",
    "query": "in the query's parameter {}",
}
