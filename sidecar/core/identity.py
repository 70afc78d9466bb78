"""The caller of a request: credentials, API keys, and the identity that a key belongs to.

A credential is never stored: only its SHA-256 (with an optional pepper) is looked up, cached or stored, and no error
text contains a credential or a hash. A request with an ambiguous credential is refused.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as NotBase64
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes
from zlib import crc32
from zoneinfo import ZoneInfo

from sidecar.core.http import Problem, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from hashlib import _Hash

AMBIGUOUS = Problem(400, "ambiguous-credential", "The credential was sent more than once; send it once.")
MALFORMED = Problem(400, "malformed-credential", "Basic credentials are base64 of `user:password` (RFC 7617).")


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """The caller that a request is attributed to. Compared and hashed by object, so that caches can use it as a key.

    `zone` is the customer's IANA time zone; `anchor_us` the start of the subscription, in µs since the Unix epoch
    (0: periods begin at calendar boundaries). The key is invalid from `expires_us` (0: it never expires). `plan_since`
    is the time of the last change of plan, RFC 3339 ("": no change); counters do not depend on it.
    """

    key_id: str
    subject: str
    customer: str
    plan: str
    zone: str = "UTC"
    anchor_us: int = 0
    test: bool = False
    expires_us: int = 0
    plan_since: str = ""

    @property
    def account(self) -> str:
        """The root that the customer belongs to: the customer itself."""
        return self.customer

    def same_as(self, other: Identity) -> bool:
        """Whether all fields are equal: a refresh without a change keeps the old object, and the caches that use it."""
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)


# --- Digests ---------------------------------------------------------------------------------------------------------

_EMPTY = sha256()  # a copy of a fresh state is made in 60 % of the time of a new one (OpenSSL 3 looks the algorithm up)
_BLOCK_BYTES = 64
_STORED = re.compile(r"sha256:[0-9a-f]{64}")


def digest(credential: bytes, pepper: bytes = b"") -> bytes:
    """The 32 bytes by which a credential is looked up: SHA-256, or HMAC-SHA256 (RFC 2104) with `pepper`."""
    if not pepper:
        state = _EMPTY.copy()
        state.update(credential)
        return state.digest()
    inner, outer = _keyed(pepper)
    state = inner.copy()
    state.update(credential)
    result = outer.copy()
    result.update(state.digest())
    return result.digest()


@lru_cache(maxsize=4)
def _keyed(pepper: bytes) -> tuple[_Hash, _Hash]:
    """The two hash states of the HMAC after the key. Copying these takes 55 % of the time of `hmac.HMAC.copy`."""
    key = (sha256(pepper).digest() if len(pepper) > _BLOCK_BYTES else pepper).ljust(_BLOCK_BYTES, b"\0")
    return sha256(bytes(byte ^ 0x36 for byte in key)), sha256(bytes(byte ^ 0x5C for byte in key))


def stored(digest: bytes) -> str:
    """A digest as it is stored in files and Redis: `sha256:` and 64 hex digits."""
    return "sha256:" + digest.hex()


# --- New keys --------------------------------------------------------------------------------------------------------

PREFIX = "msk_"
TEST = "test_"  # follows the prefix in a test key
RANDOM_BYTES = 20

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PAIRS = tuple((high + low).encode() for high in _BASE62 for low in _BASE62)
_BODY_CHARS = 27  # 62**27 > 2**160
_CHECK_CHARS = 6  # 62**6 > 2**32
_MADE_CHARS = (_BODY_CHARS + _CHECK_CHARS, len(TEST) + _BODY_CHARS + _CHECK_CHARS)


def make_key(random: bytes, prefix: str = PREFIX) -> str:
    """A new API key: `prefix`, 160 random bits and a CRC32 over both, in base62 (the scheme of GitHub's tokens).

    ValueError: `random` is not 20 bytes, or `prefix` not letters, digits and `_`, ending in `_`.
    """
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"a key is made of {RANDOM_BYTES} random bytes, not {len(random)}")
    if not re.fullmatch(r"[A-Za-z0-9_]*_", prefix):
        raise ValueError("a key's prefix is letters, digits and `_`, and ends in `_`")
    number, digits = int.from_bytes(random, "big"), ""
    for _ in range(_BODY_CHARS):
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    body = prefix + digits
    return body + _checksum(body.encode()).decode()


def has_valid_checksum(credential: bytes, prefix: bytes = PREFIX.encode()) -> bool | None:
    """Whether the checksum of a key with our prefix is right; None for a foreign key, which has no such checksum.

    False: the key was mistyped, and no look-up is needed.
    """
    if not credential.startswith(prefix):
        return None
    if len(credential) - len(prefix) not in _MADE_CHARS:
        return False
    return credential[-_CHECK_CHARS:] == _checksum(credential[:-_CHECK_CHARS])


def _checksum(text: bytes) -> bytes:
    rest, low = divmod(crc32(text), 3844)
    high, middle = divmod(rest, 3844)
    return _PAIRS[high] + _PAIRS[middle] + _PAIRS[low]


# --- The sources of credentials --------------------------------------------------------------------------------------

ReadResult = bytes | Problem | None


class Source:
    """A place of a request that may hold the credential: kind `header`, `bearer`, `basic` or `query`.

    `name` is that of the header or parameter; the default of bearer and basic is `Authorization`. `field` is the header
    name in lower case, which is removed together with the credential; b"" for a parameter.
    """

    __slots__ = ("field", "kind", "name", "read")

    def __init__(self, kind: str, name: str = "") -> None:
        if kind not in _READERS:
            raise ValueError(f"a credential comes from one of {', '.join(_READERS)}")
        if not name and kind in {"header", "query"}:
            raise ValueError(f"a credential from a {kind} needs the name of the {kind}")
        self.kind = kind
        self.name = (name or "Authorization").encode()
        self.field = b"" if kind == "query" else self.name.lower()
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


# --- Registered keys -------------------------------------------------------------------------------------------------

STATUSES = ("active", "revoked")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PRINTABLE = re.compile(r"[!-~](?:[ -~]{0,254}[!-~])?")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A registered API key. `hash` is `sha256:` and 64 hex digits; `anchor` a date.

    `expires` and `plan_since` are RFC 3339 with an offset.
    """

    id: str
    hash: str
    customer: str
    subject: str
    plan: str
    status: str = "active"
    zone: str = "UTC"
    anchor: str = ""
    expires: str = ""
    name: str = ""
    test: bool = False
    plan_since: str = ""

    def __repr__(self) -> str:
        return f"KeyRecord({self.id!r})"

    @property
    def digest(self) -> bytes:
        """The 32 bytes of `hash`."""
        return bytes.fromhex(self.hash.removeprefix("sha256:"))

    def identity(self) -> Identity | None:
        """The identity of the key; None if it is revoked. The anchor is a midnight in the customer's zone."""
        if self.status != "active":
            return None
        anchor_us = (
            _us(datetime.combine(date.fromisoformat(self.anchor), time(), ZoneInfo(self.zone))) if self.anchor else 0
        )
        expires_us = _us(datetime.fromisoformat(self.expires)) if self.expires else 0
        return Identity(
            key_id=self.id,
            subject=self.subject,
            customer=self.customer,
            plan=self.plan,
            zone=self.zone,
            anchor_us=anchor_us,
            test=self.test,
            expires_us=expires_us,
            plan_since=self.plan_since,
        )

    def stored(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as they are stored in files and Redis."""
        values = ((name, getattr(self, name), default) for name, default in DEFAULTS.items())
        return {name: value for name, value, default in values if value != default}


# The fields of a key record, and the defaults of those that have one.
DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(KeyRecord)}


def read_record(raw: Mapping[str, Any]) -> tuple[KeyRecord | None, list[tuple[str, str]]]:
    """A key record from a mapping, or all of its faults: (field, the rule that it breaks)."""
    faults = [(name, f"has an unknown field; a key has {', '.join(_CHECKS)}") for name in raw if name not in _CHECKS]
    for name, (check, right) in _CHECKS.items():
        if name in raw and not check(raw[name]):
            faults.append((name, right))
        elif name not in raw and name in _REQUIRED:
            faults.append((name, "is missing"))
    return (None, faults) if faults else (KeyRecord(**raw), [])


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and _PRINTABLE.fullmatch(value) is not None and not has_valid_checksum(value.encode())


def _is_moment(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _is_date(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value) is not None and _is_moment(value + "T00Z")


def _is_zone(value: Any) -> bool:
    try:
        return bool(ZoneInfo(value).key)
    except (KeyError, OSError, TypeError, ValueError):
        return False


_NAME_RULE = "is 1 to 256 printable ASCII characters, quoted where it could be a number, and never the key itself"
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "id": (_is_name, _NAME_RULE),
    "hash": (lambda value: isinstance(value, str) and _STORED.fullmatch(value) is not None,
             "is `sha256:` and 64 lower-case hex digits; `sidecar keys new` makes one"),
    "customer": (_is_name, _NAME_RULE),
    "subject": (_is_name, _NAME_RULE),
    "plan": (_is_name, _NAME_RULE),
    "status": (lambda value: value in STATUSES, f"is one of {', '.join(STATUSES)}"),
    "zone": (_is_zone, "is an IANA time zone, as in Europe/Berlin"),
    "anchor": (_is_date, "is a date, as in 2026-01-31"),
    "expires": (_is_moment, "is a moment with its offset, as in 2026-12-31T23:59:59Z"),
    "name": (_is_name, _NAME_RULE),
    "test": (lambda value: isinstance(value, bool), "is true or false"),
    "plan_since": (_is_moment, "is a moment with its offset, as `sidecar keys plan` writes it: 2026-11-21T01:03:26Z"),
}  # fmt: skip
_REQUIRED = frozenset({"id", "hash", "customer", "subject", "plan"})
