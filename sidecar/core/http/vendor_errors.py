"""Refusals on AI routes in the shape that the vendor's own libraries read, beside the members of the problem.

OpenAI's library shows `error.message` of a body and no other member, Google's `error.message` and `error.status`. Those
of OpenAI and Anthropic wait for Retry-After before they try again, by themselves and without a word: Anthropic's even
for the rest of a month. Both look at `x-should-retry` first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sidecar.core.http.problem import Problem

LONGEST_WAIT_S: Final = 60  # a library may wait this long on its own; after that its caller has to know
_POINTLESS: Final = frozenset({401, 402, 403})
_NO_RETRY: Final = (b"x-should-retry", b"false")

# By status, in the words of each vendor: OpenAI and Anthropic `type`, Google `status` (google.rpc.Code).
_OPENAI: Final = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    429: "rate_limit_error",
}
_ANTHROPIC: Final = {
    401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error",
}  # fmt: skip
_GEMINI: Final = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 402: "FAILED_PRECONDITION", 403: "PERMISSION_DENIED",
    404: "NOT_FOUND", 413: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip


def with_vendor_error(problem: Problem, vendor: str) -> Problem:
    """The problem with the member `error` of a vendor (`usage` of the route; auto: OpenAI's).

    It has `x-should-retry: false` where waiting is pointless.

    Anthropic's `type: error` beside it is left out: `type` is the problem's (RFC 9457 §3.1.1).
    """
    link = problem.extra.get("link")
    message = f"{problem.detail}; see {link}" if link else problem.detail
    error = _ERRORS.get(vendor, _openai)(problem, message)
    return problem._replace(
        extra={**problem.extra, "error": error},
        headers=(*problem.headers, _NO_RETRY) if _is_pointless(problem) else problem.headers,
    )


def _is_pointless(problem: Problem) -> bool:
    waits = (int(value) for name, value in problem.headers if name == b"Retry-After")
    return problem.status in _POINTLESS or any(wait_s > LONGEST_WAIT_S for wait_s in waits)


def _openai(problem: Problem, message: str) -> dict[str, Any]:
    kind = _OPENAI.get(problem.status) or ("server_error" if problem.status >= 500 else "invalid_request_error")
    return {"message": message, "type": kind, "param": None, "code": problem.slug}


def _anthropic(problem: Problem, message: str) -> dict[str, Any]:
    kind = _ANTHROPIC.get(problem.status) or ("api_error" if problem.status >= 500 else "invalid_request_error")
    return {"type": kind, "message": message}


def _gemini(problem: Problem, message: str) -> dict[str, Any]:
    kind = _GEMINI.get(problem.status) or ("INTERNAL" if problem.status >= 500 else "FAILED_PRECONDITION")
    return {"code": problem.status, "message": message, "status": kind}


_ERRORS: Final[Mapping[str, Callable[[Problem, str], dict[str, Any]]]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "gemini": _gemini,
}
