"""Spellings of a target other than its normal form: the first deviation, and the paths that servers may read.

Servers differ in whether they decode a path before they match it, whether an encoded slash or back-slash separates
segments, and whether several slashes are one. `readings` combines all of these. Dot segments, which only some servers
resolve, and a leading `//`, which some take for the begin of a host, are refused.

    /files//a%2Fb   may be   /files//a%2Fb   /files/a%2Fb   /files//a/b   /files/a/b

A server that decodes a path twice is not among them: `/%252F` is its own normal form.
"""

from __future__ import annotations

import re
from typing import Final

from sidecar.core.http.path import NoNormalForm, merged, recoded
from sidecar.core.http.problem import Problem

MAX_SEGMENTS: Final = 200  # in all readings: each of them is matched with the routes, before a key is looked up
_SEPARATOR: Final = re.compile(rb"/|%2[Ff]|%5[Cc]")
_DOTS: Final = re.compile(r"/\.\.?(?:[/;]|%3B|$)")


def readings(target: bytes) -> set[str]:
    """The paths that servers may take a target for, its normal form among them.

    Raises NoNormalForm where one of them has a dot segment, begins with two slashes, or has too many segments.
    """
    path = target.partition(b"?")[0]
    if len(_SEPARATOR.findall(path)) > MAX_SEGMENTS:
        raise NoNormalForm(f"a path that is not in normal form has at most {MAX_SEGMENTS} segments here")
    decoded = recoded(path)
    separated = decoded.replace("%2F", "/").replace("%5C", "/")  # has the segments of all readings
    if separated.startswith("//"):
        raise NoNormalForm("a path that begins with two slashes begins with a host to some servers")
    if _DOTS.search(separated):
        raise NoNormalForm("a dot segment is resolved by some servers, and kept by others")
    paths = {path.decode("ascii"), decoded}
    for upper, lower in (("%2F", "%2f"), ("%5C", "%5c")):
        paths |= {each.replace(upper, "/").replace(lower, "/") for each in paths}
    return paths | {merged(each) for each in paths}


def _deviation(slug: str, name: str) -> Problem:
    detail = f"the target has {name}; send it in its normal form (RFC 3986, section 6.2.2): this API takes no other"
    return Problem(400, slug, detail)


# Tried in this order. A target that is not in normal form, and has none of these, has an empty query.
_DEVIATIONS: Final = [
    (re.compile(pattern), _deviation(slug, name))
    for pattern, slug, name in (
        (rb"%2[Ff]", "path-encoded-slash", "an encoded slash (%2F)"),
        (rb"%5[Cc]", "path-encoded-backslash", "an encoded back-slash (%5C)"),
        (rb"/(?:\.|%2[Ee]){1,2}(?:/|$)", "path-dot-segment", "a dot segment"),
        (rb"//", "path-double-slash", "several slashes in a row"),
        (
            rb"%(?:2[DdEe]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff]|7[Ee])",
            "path-encoded-character",
            "an encoded letter, digit, dash, dot, underscore or tilde",
        ),
        (rb"%(?:[a-f]|.[a-f])", "path-lower-case-code", "a percent-encoding in lower case"),
        (rb"[^A-Za-z0-9._~!$&'()*+,;=:@/%-]", "path-unencoded-character", "a character that has to be percent-encoded"),
    )
]
_EMPTY_QUERY: Final = _deviation("path-empty-query", "a question mark without a query")


def deviation(target: bytes) -> Problem:
    """The refusal of a target that is not in its normal form; its slug says in what it deviates."""
    path = target.partition(b"?")[0]
    return next((problem for pattern, problem in _DEVIATIONS if pattern.search(path)), _EMPTY_QUERY)
