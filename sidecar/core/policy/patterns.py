"""Match heads to routes and names to globs. The most specific route wins, in whatever order a file lists them.

Two patterns that could tie are refused on load (`ties`). Matching takes linear time for every path and name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from itertools import combinations
from typing import Final
from urllib.parse import unquote_to_bytes

from sidecar.core.policy.model import Route

ANY: Final = "*"
REST: Final = "**"

_NOT_EMPTY: Final = "/[^/]+"
_ANY_NUMBER: Final = "(?:/[^/]*)*"
_LEFTMOST: Final = "(?>(?:/[^/]*)*?{0}(?=/|$))"
_PORT: Final = re.compile(rb":\d+$")

HeadTest = Callable[[bytes, Mapping[bytes, bytes]], bool]  # of the Host field and all fields by lower-case name


def segments(pattern: str) -> tuple[str, ...]:
    """A pattern's segments: `/a/*/**` is ("a", "*", "**"); a last slash is an empty last segment."""
    return tuple(pattern[1:].split("/"))


def regex(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """A matcher of whole paths: `*` is one segment that is not empty, `**` any number of segments, zero included.

    The text between two `**` is matched leftmost, without backtracking (an atomic group), so matching takes linear
    time.
    """
    if pattern == f"/{REST}":
        return re.compile("(?s:.*)").fullmatch
    pieces = "/".join(("", *segments(pattern))).split(f"/{REST}")
    first, *between = [re.sub("/[*](?=/|$)", _NOT_EMPTY, re.sub("[^/*]+", _escaped, piece)) for piece in pieces]
    if not between:
        return re.compile(first).fullmatch
    *between, last = between
    return re.compile(f"{first}{''.join(map(_LEFTMOST.format, between))}{_ANY_NUMBER}{last}").fullmatch


@lru_cache(maxsize=4096)
def glob(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """A matcher of whole names (models, JSON-RPC methods), case-sensitive: `*` is any run of characters, also empty."""
    first, *between = pattern.split(ANY)
    if not between:
        return re.compile(re.escape(pattern)).fullmatch
    *between, last = map(re.escape, between)
    middle = "".join(f"(?>.*?{piece})" for piece in between if piece)
    return re.compile(f"(?s:{re.escape(first)}{middle}.*{last})").fullmatch


def model_key(name: str) -> str:
    """The key by which names of models are compared: APIs ignore case and surrounding blanks."""
    return name.strip().casefold()


@lru_cache(maxsize=1024)
def host_name(field: bytes) -> str:
    """The name or address in a Host field: lower case, without port and last dot, nothing percent-encoded."""
    return unquote_to_bytes(_PORT.sub(b"", field)).decode("latin-1").lower().removesuffix(".")


def head_test(route: Route) -> HeadTest | None:
    """Whether a head has the host and the headers of a route; None: the route has neither."""
    host, suffix, headers = route.host, route.host.removeprefix(ANY), route.headers
    if not host and not headers:
        return None

    def matches(field: bytes, fields: Mapping[bytes, bytes]) -> bool:
        if host:
            name = host_name(field)
            if name != host and (suffix == host or not name.endswith(suffix) or len(name) == len(suffix)):
                return False
        return all(name in fields and (not values or fields[name] in values) for name, values in headers)

    return matches


def specificity(route: Route) -> tuple[tuple[bool, bool, int], tuple[int, ...], bool, tuple[int, int]]:
    """Greater is more specific. First the host: exact > `*.` with more labels > with fewer > any.

    Then the path, from the left: literal > `*` > end > `**`. Then a route with methods > one without. Then the number
    of headers, and of those with values.
    """
    wild = route.host.startswith(ANY)
    host = (bool(route.host), bool(route.host) and not wild, route.host.count(".") if wild else 0)
    ranks = tuple({ANY: 2, REST: 0}.get(segment, 3) for segment in segments(route.pattern))
    headers = len(route.headers), sum(bool(values) for _, values in route.headers)
    return host, (*ranks, 1), bool(route.methods), headers


def _escaped(match: re.Match[str]) -> str:
    return re.escape(match[0])


def ties(routes: Iterable[Route]) -> list[tuple[Route, Route]]:
    """Pairs that are equally specific although some request matches both, so that neither wins."""
    return [
        (one, other)
        for one, other in combinations(routes, 2)
        if specificity(one) == specificity(other)
        and (one.methods & other.methods or not one.methods)
        and one.host == other.host
        and _headers_meet(one, other)
        and _meet(segments(one.pattern), segments(other.pattern))
    ]


def _headers_meet(one: Route, other: Route) -> bool:
    """Whether some request has the headers of both; a header has one value."""
    given = dict(other.headers)
    return all(not values or not given.get(name) or not values.isdisjoint(given[name]) for name, values in one.headers)


@lru_cache(maxsize=4096)
def _meet(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether some path matches both patterns."""
    if not one or not other:
        return all(segment == REST for segment in one + other)
    if one[0] == REST:
        return _meet(one[1:], other) or _meet(one, other[1:])
    if other[0] == REST:
        return _meet(other, one)
    return (one[0] == other[0] or ANY in (one[0], other[0])) and _meet(one[1:], other[1:])
