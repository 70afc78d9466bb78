"""What a client is told of its limits: RateLimit fields (draft-ietf-httpapi-ratelimit-headers-10) and denials.

Never more generous than the truth: `r` is not below zero and not above what is left, `t` and Retry-After round up.
Shadow limits are not spoken of, nor is money: a balance shows in its own answers alone. Runs on every response, so all
that holds for a window is rendered once per Checks.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from sidecar.core.digits import decimal
from sidecar.core.http.problem import Problem

if TYPE_CHECKING:
    from sidecar.core.counter import Checks
    from sidecar.core.decision import Decision
    from sidecar.core.policy import Limit

_SECOND_US: Final = 1_000_000
_UNTOLD: Final = frozenset({"priced", "balance"})
_INTEGER_MAX: Final = 999_999_999_999_999  # RFC 9651 §3.3.1: fifteen digits


class _Fields:
    """The lines of one Checks. `shown`: the indexes of the limits that clients hear of.

    `lines` is all of the text, with r and t of each of them at every second place.
    """

    __slots__ = ("lines", "shown")

    def __init__(self, checks: Checks) -> None:
        self.shown = tuple(
            i for i, limit in enumerate(checks.limits) if limit.stage != "shadow" and limit.kind not in _UNTOLD
        )
        items = [_policy_item(checks, i) for i in self.shown]
        self.lines = [b"RateLimit-Policy: %b\r\nRateLimit: " % b", ".join(items)]
        for i in self.shown:
            self.lines[-1] += _string(checks.limits[i].id) + b";r="
            self.lines += (b"", b";t=", b"", b", ")
        self.lines[-1] = b"\r\n"


def ratelimit_fields(decision: Decision) -> bytes:
    """The RateLimit-Policy and RateLimit lines of a response, each ended by CRLF; b"" where no limit was asked."""
    checks = decision.checks
    fields: _Fields = checks.fields or _rendered(checks)
    if not fields.shown:
        return b""
    remaining, reset_us = decision.remaining, decision.reset_us
    lines, at = fields.lines, 1
    for i in fields.shown:
        left = remaining[i]
        lines[at] = decimal(0 if left < 0 else min(left, _INTEGER_MAX))
        lines[at + 2] = decimal(-(-reset_us[i] // _SECOND_US))
        at += 4
    return b"".join(lines)


def x_ratelimit_fields(decision: Decision) -> bytes:
    """The X-RateLimit-Limit, -Remaining and -Reset (seconds from now) of the limit nearest to its end; b"" for none."""
    checks = decision.checks
    fields: _Fields = checks.fields or _rendered(checks)
    if not fields.shown:
        return b""
    remaining = decision.remaining
    tightest = decision.violated
    if tightest not in fields.shown:
        tightest = min(fields.shown, key=lambda i: remaining[i] / checks.limits[i].amount)
    return b"X-RateLimit-Limit: %d\r\nX-RateLimit-Remaining: %d\r\nX-RateLimit-Reset: %d\r\n" % (
        checks.limits[tightest].amount,
        max(remaining[tightest], 0),
        -(-decision.reset_us[tightest] // _SECOND_US),
    )


def retry_after(decision: Decision) -> int:
    """Whole seconds until asking again makes sense, at least 1: not before the limit that denied has reset."""
    return max(1, -(-decision.reset_us[decision.violated] // _SECOND_US))


def denial_problem(decision: Decision) -> Problem:
    """The answer to a denied request: 402 for an exhausted balance ("top up"), else 429 ("slow down", "used up").

    503 where the balance cannot be asked for: who has funds must not be told to buy more.
    """
    limit = decision.checks.limits[decision.violated]
    unknown = limit.kind == "balance" and decision.mode == "degraded"
    status, slug, title, detail = _UNKNOWN if unknown else _DENIALS.get(limit.kind, _QUOTA)
    cost = decision.checks.costs[decision.violated]
    if cost > limit.amount:
        detail = "this request asks for {cost} units; limit {id} never holds more than {amount}"
    return Problem(
        status,
        slug,
        detail.format(id=limit.id, amount=limit.amount, meter=limit.meter, cost=cost),
        title=title,
        extra={"violated-policies": [limit.id], **({"link": limit.link} if limit.link else {})},
        headers=((b"Retry-After", b"%d" % retry_after(decision)),) if status != 402 else (),
    )


_QUOTA: Final = (
    429,
    "quota-exceeded",
    "Request cannot be satisfied as assigned quota has been exceeded",
    "limit {id} of {amount} {meter} is used up for now",
)
_UNKNOWN: Final = (
    503,
    "balance-unknown",
    "Balance cannot be looked at now",
    "the balance {id} cannot be asked for now: nothing was charged, try again",
)
_DENIALS: Final = {
    "concurrency": (
        429,
        "temporary-reduced-capacity",
        "Request cannot be satisfied due to temporary server capacity constraints",
        "limit {id} of {amount} exchanges at once is reached",
    ),
    "balance": (402, "balance-exhausted", "Balance exhausted", "the balance {id} is used up: top it up to go on"),
}


def warning_fields(decision: Decision) -> bytes:
    """A Sidecar-Warning line for each limit in stage soft that only would have denied; b"" for none.

    A field of our own, without X- (RFC 6648): `Warning` is obsolete (RFC 9111 §5.5), and RateLimit cannot say that a
    request passed a limit that is used up.
    """
    limits = [decision.checks.limits[index] for index in decision.shadowed]
    return b"".join([_warning(limit) for limit in limits if limit.stage == "soft"])


@lru_cache(maxsize=1024)
def _warning(limit: Limit) -> bytes:
    more = b"; see %b" % _text(limit.link) if limit.link else b""
    return b"Sidecar-Warning: limit %b is used up%b\r\n" % (_string(limit.id), more)


def _rendered(checks: Checks) -> _Fields:
    fields = checks.fields = _Fields(checks)
    return fields


def _policy_item(checks: Checks, index: int) -> bytes:
    limit = checks.limits[index]
    unit = _unit(limit)
    window = _window_seconds(limit, checks.starts_us[index], checks.ends_us[index])
    return b"".join(
        (
            b"%b;q=%d" % (_string(limit.id), min(limit.amount, _INTEGER_MAX)),
            b";w=%d" % window if window else b"",
            b";qu=%b" % _string(unit) if unit else b"",
        )
    )


def _unit(limit: Limit) -> str:
    """The draft's word for the unit, "" for its default, `request`.

    A unit of our own goes by its meter's name: left out, it would be taken for requests.
    """
    if limit.kind == "concurrency":
        return "concurrent-requests"
    if limit.meter.endswith("_bytes"):
        return "content-bytes"
    return "" if limit.meter == "requests" else limit.meter


def _window_seconds(limit: Limit, start_us: int, end_us: int) -> int:
    """The window in whole seconds, rounded up; a rate's is the time in which its whole burst comes back."""
    if limit.kind == "rate":
        return -(-limit.amount * limit.period_us // (limit.per * _SECOND_US))
    return -(-(end_us - start_us) // _SECOND_US)


def _string(value: str) -> bytes:
    r"""A String of RFC 9651 §3.3.3: quoted, with \ before " and \; what is not printable ASCII is percent-encoded."""
    return b'"%b"' % _text(value).replace(b"\\", b"\\\\").replace(b'"', b'\\"')


def _text(value: str) -> bytes:
    """`value` on one line of ASCII: what is not printable is percent-encoded, as UTF-8."""
    plain = "".join(
        char if " " <= char <= "~" else "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
        for char in value
    )
    return plain.encode("ascii")
