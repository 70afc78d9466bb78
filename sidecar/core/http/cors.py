"""CORS of a route (WHATWG Fetch §3.3): which pages may call it from a browser, and which fields their scripts may read.

A browser sends a preflight without the caller's key, and hides an answer, its status included, from a page of another
origin unless the answer names that origin. Refusals would reach scripts as network errors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from sidecar.core.http.problem import Problem
from sidecar.core.http.request import Request
from sidecar.core.http.response import ResponseHead

Field = tuple[bytes, bytes]
ANY_ORIGIN: Final = "*"
ORIGINS_MAX: Final = 1_000  # remembered of upstreams
ORIGIN_BYTES: Final = 256  # longer ones are not remembered
NO_FIELDS: Final[Sequence[Field]] = ()
EXPOSED: Final = (
    b"Access-Control-Expose-Headers",
    b", ".join((
        b"Retry-After", b"RateLimit", b"RateLimit-Policy", b"X-RateLimit-Limit", b"X-RateLimit-Remaining",
        b"X-RateLimit-Reset", b"Sidecar-Warning", b"X-Request-Id", b"X-Should-Retry",
    )),
)  # fmt: skip
_VARY: Final = (b"Vary", b"Origin")
_PREFLIGHT_VARY: Final = (b"Vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
_CREDENTIALS: Final = (b"Access-Control-Allow-Credentials", b"true")
_METHOD: Final = re.compile(rb"[A-Za-z-]{1,32}")
_NAMES: Final = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, \t-]{1,4096}")


class Cors(NamedTuple):
    """`origins` as browsers write them, or only `*`. `headers`: the request fields that pages may set; (): all.

    `credentials`: pages may send cookies. `max_age_s`: how long a browser may remember the answer to a preflight.
    """

    origins: frozenset[str]
    headers: tuple[str, ...] = ()
    credentials: bool = False
    max_age_s: int = 600

    def answer_fields(self, request: Request) -> Sequence[Field]:
        """The fields of an answer to `request`: without an Origin that is allowed, only Vary."""
        if ANY_ORIGIN in self.origins:
            return ((b"Access-Control-Allow-Origin", b"*"), EXPOSED) if b"origin" in request.fields else NO_FIELDS
        origin = self._allowed(request)
        if not origin:
            return (_VARY,)
        own = ((b"Access-Control-Allow-Origin", origin), EXPOSED, _VARY)
        return (*own, _CREDENTIALS) if self.credentials else own

    def preflight(self, request: Request) -> Problem:
        """The answer to a preflight. For an origin that is not allowed it allows nothing, and the browser says so."""
        fields: list[Field] = [_PREFLIGHT_VARY]
        origin = b"*" if ANY_ORIGIN in self.origins else self._allowed(request)
        if origin:
            fields += (
                (b"Access-Control-Allow-Origin", origin),
                (b"Access-Control-Allow-Methods", request.fields[b"access-control-request-method"]),
                (b"Access-Control-Max-Age", b"%d" % self.max_age_s),
            )
            names = ", ".join(self.headers).encode() or request.fields.get(b"access-control-request-headers", b"")
            if _NAMES.fullmatch(names):
                fields.append((b"Access-Control-Allow-Headers", names))
            if self.credentials:
                fields.append(_CREDENTIALS)
        return Problem(204, "preflight", "", headers=fields)

    def _allowed(self, request: Request) -> bytes:
        """The one Origin of a request where it is in the list, else b""."""
        origin = request.fields.get(b"origin", b"")
        return origin if origin.decode("latin-1") in self.origins and b"origin" not in request.repeated else b""


class UpstreamOrigins:
    """The origins that upstreams allow, by route, for our own answers on routes without `cors`.

    An upstream with CORS of its own lets a page read the answers of a route. A refusal in their place lets it as well:
    else the page would see a network error where it is to wait. An answer that allows it counts, whatever its status,
    until one with a status below 300 does not.
    """

    def __init__(self) -> None:
        self._fields: dict[tuple[str, bytes], Sequence[Field]] = {}

    def learn(self, route: str, origin: bytes, head: ResponseHead) -> None:
        """Remember whether this answer to a request of `origin` lets its page read it."""
        allowed = head.fields.get(b"access-control-allow-origin", b"")
        if allowed in {origin, b"*"}:
            self._remember((route, allowed), head.fields.get(b"access-control-allow-credentials") == b"true")
        elif head.status < 300:
            self._fields.pop((route, origin), None)
            self._fields.pop((route, b"*"), None)

    def _remember(self, key: tuple[str, bytes], credentials: bool) -> None:
        own: Sequence[Field] = ((b"Access-Control-Allow-Origin", key[1]), EXPOSED)
        if key[1] != b"*":
            own = (*own, _VARY, _CREDENTIALS) if credentials else (*own, _VARY)
        if key not in self._fields and len(self._fields) >= ORIGINS_MAX:
            del self._fields[next(iter(self._fields))]
        self._fields[key] = own

    def fields(self, route: str, origin: bytes) -> Sequence[Field]:
        """The fields of our answer on this route to a request of `origin`."""
        return self._fields.get((route, origin)) or self._fields.get((route, b"*"), NO_FIELDS)


def origin_of(request: Request) -> bytes:
    """The Origin of a request, b"" where it has none, several, or an overlong one."""
    origin = request.fields.get(b"origin", b"")
    return origin if len(origin) <= ORIGIN_BYTES and b"origin" not in request.repeated else b""


def preflighted_method(request: Request) -> str:
    """The method that a preflight asks for (WHATWG Fetch §3.3.2); "" for any other request."""
    wanted = request.fields.get(b"access-control-request-method", b"")
    return wanted.decode() if b"origin" in request.fields and _METHOD.fullmatch(wanted) else ""


def with_cors(fields: Sequence[Field], cors: Sequence[Field], head: ResponseHead) -> Sequence[Field]:
    """The further fields of an upstream's answer. One that speaks for itself is passed on as it is."""
    return fields if b"access-control-allow-origin" in head.fields else (*fields, *cors)
