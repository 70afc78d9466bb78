"""Spellings of a route's path that some servers take for the same path, but that another route matches.

Paths are matched in their normal form, so percent-encoding, double slashes and dot segments do not matter here. The
rest depends on the API: Express and ASP.NET ignore case and a slash at the end, Spring and servlets cut parameters,
servers on Windows drop dots and blanks at the end, and all that decode a path before they match it take `%40` for `@`,
which the normal form keeps apart (RFC 3986 §2.2). Such a spelling avoids the demands of the route.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from sidecar.core.policy.model import Route
from sidecar.core.policy.patterns import ANY, REST, segments
from sidecar.core.policy.policy import Policy

_LETTERS: Final = re.compile(r"%..|[A-Za-z]+")
# The sub-delims, `:` and `@` of RFC 3986 §3.3, encoded or not; `*` is never a literal of a pattern.
_DELIMITERS: Final = re.compile(r"%(?:2[146-9A-C]|3[ABD]|40)|[!$&'()+,;=:@]")
_END: Final = {"a dot at the end": ".", "a blank at the end": "%20"}


class Escape(NamedTuple):
    """`other` takes `paths` (each with the name of its spelling), and lacks what `missing` names of `route`."""

    route: Route
    other: Route
    paths: list[tuple[str, str]]
    missing: list[str]


def escapes(policy: Policy) -> list[Escape]:
    """All pairs of routes of which the second takes spellings of the first's path, without all that it demands."""
    pairs: dict[tuple[str, str], Escape] = {}
    for route in policy.routes:
        for spelling, path, other in _taken(policy, route):
            pair = route.id, other.id
            if pair not in pairs:
                pairs[pair] = Escape(route, other, [], sorted(_demands(policy, route) - _demands(policy, other)))
            if (spelling, path) not in pairs[pair].paths:
                pairs[pair].paths.append((spelling, path))
    return [escape for escape in pairs.values() if escape.missing]


def _taken(policy: Policy, route: Route) -> Iterator[tuple[str, str, Route]]:
    """Spellings of a path of the route, each with another route that takes it."""
    host = route.host.replace(ANY, "any").encode()
    fields = {name: min(values, default=b"") for name, values in route.headers}
    for method in sorted(route.methods or {"GET"}.union(*(each.methods for each in policy.routes))):
        if policy.match(method, _sample(route.pattern), host, fields) is not route:
            continue
        for spelling, path in _spellings(route.pattern):
            other = policy.match(method, path, host, fields)
            if other is not None and other is not route:
                yield spelling, path, other


def _sample(pattern: str, parameter: str = "") -> str:
    """A path that the pattern matches; with a parameter behind its last literal segment."""
    parts = segments(pattern)
    parts = tuple(part for part in parts[:-1] if part != REST) + parts[-1:]
    literals = [place for place, part in enumerate(parts) if part not in {ANY, REST, ""}]
    last = literals[-1] if literals else -1
    words = ["any" if part in {ANY, REST} else part for part in parts]
    return "/" + "/".join(word + parameter * (place == last) for place, word in enumerate(words))


def _spellings(pattern: str) -> Iterator[tuple[str, str]]:
    path = _sample(pattern)
    if path.endswith("/"):
        yield "no slash at the end", path[:-1] or "/"
    else:
        yield "a slash at the end", path + "/"
        yield from ((spelling, path + end) for spelling, end in _END.items())
    yield "other upper and lower case", _sample(_LETTERS.sub(_swapped, pattern))
    yield "a parameter", _sample(pattern, ";x=1")
    recoded = _DELIMITERS.sub(_recoded, path)
    if recoded != path:
        yield "delimiters encoded or not", recoded


def _swapped(match: re.Match[str]) -> str:
    return match[0] if match[0][0] == "%" else match[0].swapcase()


def _recoded(match: re.Match[str]) -> str:
    return chr(int(match[0][1:], 16)) if len(match[0]) == 3 else f"%{ord(match[0]):02X}"


def _demands(policy: Policy, route: Route) -> set[str]:
    """The demands of a route and its meters, in words."""
    needs = {f"feature {feature} for models {models}" for models, feature in route.models}
    needs |= {f"feature {route.feature}"} if route.feature else set()
    needs |= {"a key"} if route.unattributed == "deny" else set()
    for plan in ("", *policy.plans):
        terms = policy.terms(plan, route)
        if terms is not None:
            needs |= {f"limit {limit.id}" for limit in terms.limits}
            needs |= {f"meter {meter.id}" for meter in terms.meters}
    return needs
