"""The normal form of a request target. It is both matched with routes and forwarded, so no spelling avoids a meter.

    /v1/%63hat//./x  is  /v1/chat/x

A path that two servers could read differently has no normal form, and is refused: encoded slashes, back-slashes,
control characters, overlong UTF-8, dot segments that climb over the root or have parameters (`/..;/`).
RFC 3986 §5.2.4 (dot segments), §6.2.2 (case and percent-encoding), RFC 3629 §3 (overlong forms).
"""

from __future__ import annotations

import re
from functools import lru_cache

_PLAIN = re.compile(rb"(?:/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9_~!$&'()*+,=:@.-]*)*/?")
_PCHAR = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(/[^?#]*)?(\?.*)?", re.IGNORECASE)
_SLASHES = re.compile(r"/{2,}")
_CACHED_BYTES = 512  # longer targets are rare; caching them would let a client fill the memory


class NoNormalForm(ValueError):  # noqa: N818 - a finding, not a failure
    """The target can be read in more than one way. The message says how."""


def read_target(target: bytes) -> tuple[str, str, bytes]:
    """Split a request target into (normal path, query without `?`, authority of the absolute form or b"").

    Raises NoNormalForm. Origin-form and absolute-form only: RFC 9112 §3.2.
    """
    if _PLAIN.fullmatch(target):  # the usual case, and faster than a cache
        return target.decode("ascii") or "/", "", b""
    return _read_cached(target) if len(target) <= _CACHED_BYTES else _read(target)


def _read(target: bytes) -> tuple[str, str, bytes]:
    authority = b""
    if b"#" in target:
        raise NoNormalForm("a fragment is never sent to a server (RFC 9112 §3.2.1)")
    if target[:1] != b"/":
        match = _ABSOLUTE.fullmatch(target)
        if match is None:
            raise NoNormalForm("the target is neither a path nor an absolute URL")
        authority = match[1]
        if not authority or b"@" in authority:
            raise NoNormalForm("the target's authority is empty or carries user information")
        target = (match[2] or b"/") + (match[3] or b"")
    path, _, query = target.partition(b"?")
    return normal_path(path), query.decode("ascii"), authority


_read_cached = lru_cache(maxsize=4096)(_read)


def normal_path(raw: bytes) -> str:
    """The normal form of a path. Raises NoNormalForm."""
    if _PLAIN.fullmatch(raw):
        return raw.decode("ascii") or "/"
    return _without_dots(_SLASHES.sub("/", _recoded(raw)))


def _recoded(raw: bytes) -> str:
    """Decode characters that need no encoding, encode the others in upper-case hex, and refuse ambiguous ones."""
    decoded = bytearray()  # the path as an upstream decodes it, to check its UTF-8
    out: list[str] = []
    at = 0
    while at < len(raw):
        byte = raw[at]
        width = 1
        if byte == 0x25:
            byte = _hex(raw, at)
            width = 3
        _refuse_ambiguous(byte, encoded=width == 3)
        decoded.append(byte)
        plain = byte in (_UNRESERVED if width == 3 else _PCHAR)
        out.append(chr(byte) if plain else f"%{byte:02X}")
        at += width
    try:
        decoded.decode("utf-8")
    except UnicodeDecodeError:
        raise NoNormalForm("the path is not UTF-8, or spells a character in an overlong way") from None
    return "".join(out)


def _hex(raw: bytes, at: int) -> int:
    pair = raw[at + 1 : at + 3]
    if len(pair) != 2 or not pair.isalnum():
        raise NoNormalForm("a percent sign is not followed by two hexadecimal digits")
    try:
        return int(pair, 16)
    except ValueError:
        raise NoNormalForm("a percent sign is not followed by two hexadecimal digits") from None


def _refuse_ambiguous(byte: int, *, encoded: bool) -> None:
    if byte < 0x20 or byte == 0x7F:
        raise NoNormalForm("the path holds a control character")
    if byte == 0x5C:
        raise NoNormalForm("a back-slash is a slash to some servers")
    if encoded and byte == 0x2F:
        raise NoNormalForm("an encoded slash is a slash to some servers")


def _without_dots(path: str) -> str:
    """RFC 3986 §5.2.4, except that climbing over the root, or a dot segment with parameters, is refused."""
    if not path.startswith("/"):
        raise NoNormalForm("the path does not begin with a slash")
    normal: list[str] = []
    segments = path.split("/")[1:]
    for place, segment in enumerate(segments):
        name, parameters, _ = segment.partition(";")
        if name in {".", ".."} and parameters:
            raise NoNormalForm("a dot segment with parameters is a dot segment to some servers")
        if segment == "..":
            if not normal:
                raise NoNormalForm("the path climbs over the root")
            normal.pop()
        elif segment != ".":
            normal.append(segment)
            continue
        if place == len(segments) - 1:
            normal.append("")
    return "/" + "/".join(normal)
