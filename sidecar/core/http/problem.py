"""Answers of our own: problem+json (RFC 9457), never cached, saying what is wrong and how to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import orjson

from sidecar.core.errors import UpstreamError

_IANA: Final = "https://iana.org/assignments/http-problem-types#"
_TYPES: Final = {  # registered by draft-ietf-httpapi-ratelimit-headers §10
    "quota-exceeded": _IANA + "quota-exceeded",
    "temporary-reduced-capacity": _IANA + "temporary-reduced-capacity",
}
PROBLEM_JSON: Final = b"application/problem+json"


class Problem(NamedTuple):
    """An answer of our own. `slug` is the last part of its type URI; `extra` its further members."""

    status: int
    slug: str
    detail: str
    title: str = ""
    extra: dict[str, Any] = {}  # noqa: RUF012 - a NamedTuple's default, never written to
    headers: Sequence[tuple[bytes, bytes]] = ()


INTERNAL: Final = Problem(500, "internal-error", "the gateway failed; the instance names what its log says of it")


def phrase(status: int) -> bytes:
    """The reason phrase of a status, b"" for one that nobody registered."""
    return _PHRASES.get(status, b"")


_PHRASES: Final = {int(status): status.phrase.encode() for status in HTTPStatus}


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


def too_large(most_bytes: int) -> Problem:
    """The body is longer than the listener or its route allows."""
    return Problem(413, "body-too-large", f"the body is longer than {most_bytes} bytes")


def too_long_to_read(most_bytes: int) -> Problem:
    """The body decides what is charged, and is longer than what its route reads."""
    detail = f"This request is charged by its body, which may have at most {most_bytes} bytes."
    return Problem(413, "body-too-large", detail)


@lru_cache(maxsize=1024)
def no_key(places: tuple[str, ...]) -> Problem:
    """The route needs a key, and none of the `places` where one may be sent has one."""
    detail = f"this API needs a key: send it {' or '.join(places)}"
    return Problem(401, "key-missing", detail, headers=_AUTHENTICATE)


def no_feature(plans: Sequence[str]) -> Problem:
    """The caller's plan lacks what a route or a model asks for; `plans` are the ids of those that have it."""
    detail = "the plan of this key does not include this part of the API"
    return Problem(403, "feature-missing", f"{detail}; `plans` do" if plans else detail, extra={"plans": [*plans]})


def too_many_failures(wait_s: int) -> Problem:
    """This client presented too many unknown keys; in `wait_s` seconds it may present another one."""
    detail = "too many unknown keys came from this address: no further one is looked up now"
    headers = ((b"Retry-After", b"%d" % wait_s),)
    return Problem(429, "too-many-failed-authentications", detail, headers=headers)


def upstream_problem(error: UpstreamError) -> Problem:
    """No answer of the upstream: where this node has no connection for it now, another may be free in a second."""
    reason = error.reason
    headers = ((b"Retry-After", b"%d" % reason.retry_after_s),) if reason.retry_after_s else ()
    return Problem(reason.status, reason.slug, error.detail, headers=headers)


# Answers that are the same for everybody.
_AUTHENTICATE: Final = ((b"WWW-Authenticate", b'Bearer realm="api"'),)
NO_ROUTE: Final = Problem(404, "no-route", "no route of the policy matches this method and path")
# The answer to OPTIONS that must not be forwarded (RFC 9110 §7.6.2, §9.3.7): it has no body, and so no problem.
OPTIONS_ANSWER: Final = Problem(
    204, "max-forwards", "", headers=((b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),)
)
BAD_MAX_FORWARDS: Final = Problem(400, "malformed-request", "Max-Forwards is not one plain number")
BAD_KEY: Final = Problem(401, "key-unknown", "this key is not known, or was revoked", headers=_AUTHENTICATE)
KEYS_AWAY: Final = Problem(503, "keys-unavailable", "keys cannot be verified now", headers=((b"Retry-After", b"1"),))
NO_PLAN: Final = Problem(403, "plan-unknown", "the plan of this key is not in the policy")
JOURNAL_FULL: Final = Problem(503, "journal-full", "usage cannot be recorded now", headers=((b"Retry-After", b"5"),))
LOOP: Final = Problem(508, "loop", "this request has been through this gateway before")
NOT_RECORDED: Final = Problem(503, "journal-failed", "usage cannot be recorded now", headers=((b"Retry-After", b"5"),))
