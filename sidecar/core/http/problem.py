"""Answers of our own: problem+json (RFC 9457), never cached, saying what is wrong and how to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson

_IANA = "https://iana.org/assignments/http-problem-types#"
_TYPES = {  # registered by draft-ietf-httpapi-ratelimit-headers §10
    "quota-exceeded": _IANA + "quota-exceeded",
    "temporary-reduced-capacity": _IANA + "temporary-reduced-capacity",
}
PROBLEM_JSON = b"application/problem+json"


class Problem(NamedTuple):
    """An answer of our own. `slug` is the last part of its type URI; `extra` its further members."""

    status: int
    slug: str
    detail: str
    title: str = ""
    extra: dict[str, Any] = {}  # noqa: RUF012 - a NamedTuple's default, never written to
    headers: Sequence[tuple[bytes, bytes]] = ()


def phrase(status: int) -> bytes:
    """The reason phrase of a status, b"" for one that nobody registered."""
    return _PHRASES.get(status, b"")


_PHRASES = {int(status): status.phrase.encode() for status in HTTPStatus}


def problem_body(problem: Problem, instance: str) -> bytes:
    """The JSON of a problem; `instance` is the request id, so that a log line can be found from an answer."""
    members = {
        "type": _TYPES.get(problem.slug) or f"urn:problem:sidecar:{problem.slug}",
        "title": problem.title or phrase(problem.status).decode(),
        "status": problem.status,
        "detail": problem.detail,
        **problem.extra,
    }
    if instance:
        members["instance"] = f"urn:request:{instance}"
    return orjson.dumps(members) + b"\n"


def problem_answer(problem: Problem, instance: str = "", *, close: bool, bodyless: bool = False) -> bytes:
    """The whole HTTP/1.1 answer. `bodyless` for HEAD: the length stands, the body stays away."""
    body = problem_body(problem, instance)
    fields = [
        b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nCache-Control: no-store\r\n"
        % (problem.status, phrase(problem.status), PROBLEM_JSON, len(body)),
        *[b"%b: %b\r\n" % field for field in problem.headers],
        b"X-Request-Id: %b\r\n" % instance.encode() if instance else b"",
        b"Connection: close\r\n\r\n" if close else b"\r\n",
        b"" if bodyless else body,
    ]
    return b"".join(fields)
