"""Which route a path takes, whatever the order of a file: the most specific pattern wins. And globs over names.

Two patterns that could tie are refused on load (`ties`). No path and no name takes more than linear time.
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
    """Matches whole paths: `*` is one segment that is not empty, `**` any number of any, none included.

    What stands between two `**` is looked for leftmost and never again (an atomic group), so no path takes more than
    linear time.
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
    """Matches whole names (models, JSON-RPC methods), letter by letter: `*` is any run of characters, none included."""
    first, *between = pattern.split(ANY)
    if not between:
        return re.compile(re.escape(pattern)).fullmatch
    *between, last = map(re.escape, between)
    found = "".join(f"(?>.*?{piece})" for piece in between if piece)
    return re.compile(f"(?s:{re.escape(first)}{found}.*{last})").fullmatch


def specificity(route: Route) -> tuple[tuple[int, ...], bool]:
    """Greater is more specific. From the left, a literal beats `*`, that the end, that `**`; then methods beat none."""
    ranks = tuple({ANY: 2, REST: 0}.get(segment, 3) for segment in segments(route.pattern))
    return (*ranks, 1), bool(route.methods)


def _escaped(found: re.Match[str]) -> str:
    return re.escape(found[0])


def ties(routes: Iterable[Route]) -> list[tuple[Route, Route]]:
    """Pairs that are equally specific though some request matches both: the policy does not say which one wins."""
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
