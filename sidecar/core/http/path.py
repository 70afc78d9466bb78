"""The normal form of a request target. It is both matched with routes and forwarded, so no spelling avoids a meter.

    /v1/%63hat//./x  is  /v1/chat/x

A path that two servers could read differently has no normal form, and is refused: encoded slashes, back-slashes,
control characters, overlong UTF-8, dot segments that climb over the root or have parameters (`/..;/`). Of a target,
encoded slashes are left as they are: its route decides on them (`core.policy.paths`).
RFC 3986 §5.2.4 (dot segments), §6.2.2 (case and percent-encoding), RFC 3629 §3 (overlong forms).
"""

from __future__ import annotations

import re
from functools import lru_cache

_PLAIN = re.compile(rb"(?:/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9_~!$&'()*+,=:@.-]*)*/?")
_PCHAR = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_CONTROLS = frozenset({*range(0x20), 0x7F})
_BYTES = {  # the byte that is encoded, in Latin-1, by its two digits in upper and lower case
    high + low: chr(byte)
    for byte in set(range(256)) - _CONTROLS
    for high in f"{byte >> 4:x}{byte >> 4:X}"
    for low in f"{byte & 15:x}{byte & 15:X}"
}
_CODES = {code: byte if ord(byte) in _UNRESERVED else f"%{code.upper()}" for code, byte in _BYTES.items()}  # its form
_ODD = {chr(byte): f"%{byte:02X}" for byte in set(range(0x20, 0x7F)) - _PCHAR - {0x25}}  # encoded if they are not yet
_HEX = re.compile(r"[0-9A-Fa-f]{2}")
_PRINTABLE = re.compile(rb"[ -\[\]-~]*")  # ASCII, without the back-slash
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_BEYOND = re.compile(rb"[\x80-\xff]")
_NOT_ASCII = re.compile(rb"%[89A-Fa-f]")
_ENCODED_SLASH = re.compile(rb"%(?:2[Ff]|(5[Cc]))")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(/[^?#]*)?(\?.*)?", re.IGNORECASE)
_CACHED_BYTES = 512  # longer targets are rare; caching them would let a client fill the memory


class NoNormalForm(ValueError):  # noqa: N818 - a finding, not a failure
    """The target can be read in more than one way. The message says how."""


def read_target(target: bytes) -> tuple[str, str, bytes, bytes, bool]:
    """Split a request target: (normal path, query without `?`, authority of the absolute form or b"", path and query as
    they are written, whether these are in normal form). Encoded slashes are in no normal form.

    Raises NoNormalForm. Origin-form and absolute-form only: RFC 9112 §3.2.
    """  # noqa: D205
    if _PLAIN.fullmatch(target):  # the usual case, and faster than a cache
        return target.decode("ascii") or "/", "", b"", target, True
    return _read_cached(target) if len(target) <= _CACHED_BYTES else _read(target)


def _read(target: bytes) -> tuple[str, str, bytes, bytes, bool]:
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
    raw, mark, query = target.partition(b"?")
    path = _normalised(raw)
    is_normal = path.encode() == raw and bool(query or not mark) and not slash_fault(raw)
    return path, query.decode("ascii"), authority, target, is_normal


_read_cached = lru_cache(maxsize=4096)(_read)


def normal_path(raw: bytes) -> str:
    """The normal form of a path. Raises NoNormalForm."""
    fault = slash_fault(raw)
    if fault:
        raise NoNormalForm(fault)
    return _normalised(raw)


def slash_fault(raw: bytes) -> str:
    """Why an encoded slash in this path is ambiguous; "" if it has none."""
    match = _ENCODED_SLASH.search(raw)
    if match is None:
        return ""
    return f"{'a back-slash' if match[1] else 'an encoded slash'} is a slash to some servers"


def _normalised(raw: bytes) -> str:
    if _PLAIN.fullmatch(raw):
        return raw.decode("ascii") or "/"
    return _without_dots(merged(recoded(raw)))


def merged(path: str) -> str:
    """The path with several slashes in a row as one."""
    while "//" in path:  # half of a row is left each time; a regular expression is slower where there are many rows
        path = path.replace("//", "/")
    return path


def recoded(raw: bytes) -> str:
    """Decode characters that need no encoding, encode the others in upper-case hex, and refuse control characters.

    Nothing here is done for each byte: that would cost tens of times a request, before any key is looked at.
    """
    if not _PRINTABLE.fullmatch(raw):
        raw = _encoded(raw)
    path = raw.decode("ascii")
    if "%" in path:
        first, *coded = path.split("%")
        try:
            codes = _replaced(coded, _CODES)
        except KeyError as unknown:
            raise _refusal(unknown.args[0]) from None
        if _NOT_ASCII.search(raw):
            _check_utf8(_replaced(coded, _BYTES))
        path = first + codes
    for character, code in _ODD.items():
        if character in path:
            path = path.replace(character, code)
    return path


def _replaced(coded: list[str], table: dict[str, str]) -> str:
    """The text after each percent sign, with the entry of a table in the place of its two digits."""
    return "".join([table[part] if len(part) == 2 else table[part[:2]] + part[2:] for part in coded])


def _check_utf8(path: str) -> None:
    """Refuse a path whose bytes, one to a character, are not UTF-8."""
    try:
        path.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        raise NoNormalForm("the path is not UTF-8, or spells a character in an overlong way") from None


def _encoded(raw: bytes) -> bytes:
    """A path with other characters than printable ASCII, which come from policies: those beyond ASCII encoded."""
    if b"\\" in raw:
        raise NoNormalForm("a back-slash is a slash to some servers")
    if _CONTROL.search(raw):
        raise NoNormalForm("the path holds a control character")
    return _BEYOND.sub(lambda match: b"%%%02X" % match[0][0], raw)


def _refusal(code: str) -> NoNormalForm:
    """Why `%` and these two bytes are refused."""
    if not _HEX.fullmatch(code):
        return NoNormalForm("a percent sign is not followed by two hexadecimal digits")
    return NoNormalForm("the path holds a control character")


def _without_dots(path: str) -> str:
    """RFC 3986 §5.2.4, except that climbing over the root, or a dot segment with parameters, is refused."""
    if not path.startswith("/"):
        raise NoNormalForm("the path does not begin with a slash")
    if "/." not in path:
        return path
    normal: list[str] = []
    segments = path.split("/")[1:]
    if "/.;" in path or "/..;" in path:
        raise NoNormalForm("a dot segment with parameters is a dot segment to some servers")
    for segment in segments:
        if segment == "..":
            if not normal:
                raise NoNormalForm("the path climbs over the root")
            normal.pop()
        elif segment != ".":
            normal.append(segment)
    if segments[-1] in {".", ".."}:
        normal.append("")
    return "/" + "/".join(normal)
