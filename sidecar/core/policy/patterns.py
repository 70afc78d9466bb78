"""Match paths to routes and names to globs. The most specific pattern wins, in whatever order a file lists them.

Two patterns that could tie are refused on load (`ties`). Matching takes linear time for every path and name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import combinations
from typing import Final

from sidecar.core.policy.model import Route

ANY: Final = "*"
REST: Final = "**"

_NOT_EMPTY: Final = "/[^/]+"
_ANY_NUMBER: Final = "(?:/[^/]*)*"
_LEFTMOST: Final = "(?>(?:/[^/]*)*?{0}(?=/|$))"


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


def specificity(route: Route) -> tuple[tuple[int, ...], bool]:
    """Greater is more specific. From the left: literal > `*` > end > `**`; then a route with methods > one without."""
    ranks = tuple({ANY: 2, REST: 0}.get(segment, 3) for segment in segments(route.pattern))
    return (*ranks, 1), bool(route.methods)


def _escaped(match: re.Match[str]) -> str:
    return re.escape(match[0])


def ties(routes: Iterable[Route]) -> list[tuple[Route, Route]]:
    """Pairs that are equally specific although some request matches both, so that neither wins."""
    return [
        (one, other)
        for one, other in combinations(routes, 2)
        if specificity(one) == specificity(other)
        and (one.methods & other.methods or not one.methods)
        and _meet(segments(one.pattern), segments(other.pattern))
    ]


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
