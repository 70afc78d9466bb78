"""Limits as clients see them: RateLimit fields (draft-ietf-httpapi-ratelimit-headers-10) and denials.

Never more generous than the counters: `r` is not below zero and not above what is left, `t` and Retry-After round up.
Shadow limits are not spoken of, nor is money: a balance shows in its own answers alone. Runs on every response, so all
that holds for a window is rendered once per Checks.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from sidecar.core.decision import Decision
from sidecar.core.digits import decimal
from sidecar.core.http.problem import Problem
from sidecar.core.instants import instant
from sidecar.core.limits import Checks, Derived, Limit
from sidecar.core.limits.base import SLOTS, WALLET, Check, HeaderItem
from sidecar.core.price.decimals import decimal_of

Field = tuple[bytes, bytes]
_SECOND_US: Final = 1_000_000
_LOST_RETRY_S: Final = 60
_INTEGER_MAX: Final = 999_999_999_999_999  # RFC 9651 §3.3.1: fifteen digits


class _Fields:
    """The RateLimit fields of one Checks. `shown`: the indexes of the limits that they name.

    `parts` is the value of RateLimit, with r and t of each of them at every second place.
    """

    __slots__ = ("parts", "policy", "shown")

    def __init__(self, checks: Checks) -> None:
        shown, items = [], []
        for index, check in enumerate(checks.entries):
            item = check.kind.header_item(check.limit, check.window)
            if item is not None and check.limit.stage != "shadow":
                shown.append(index)
                items.append(_policy_item(check.limit, item))
        self.shown = tuple(shown)
        self.policy = (b"RateLimit-Policy", b", ".join(items))
        self.parts = [b""]
        for i in self.shown:
            self.parts[-1] += _string(checks.entries[i].limit.id) + b";r="
            self.parts += (b"", b";t=", b"", b", ")
        self.parts[-1] = b""


_FIELDS: Final = Derived(_Fields, by_costs=False)


def ratelimit_fields(decision: Decision) -> list[Field]:
    """The RateLimit-Policy and RateLimit fields of a response; none where no limit was asked."""
    checks = decision.checks
    fields = _FIELDS.of(checks)
    if not fields.shown:
        return []
    if decision.unknown:
        return _only_violated(decision, fields)
    remaining, reset_us = decision.remaining, decision.reset_us
    parts, at = fields.parts, 1
    for i in fields.shown:
        left = remaining[i]
        parts[at] = decimal(0 if left < 0 else min(left, _INTEGER_MAX))
        parts[at + 2] = decimal(-(-reset_us[i] // _SECOND_US))
        at += 4
    return [fields.policy, (b"RateLimit", b"".join(parts))]


def _only_violated(decision: Decision, fields: _Fields) -> list[Field]:
    """The remaining units of the others are unknown, so RateLimit names only the limit that denies."""
    index = decision.violated
    if index not in fields.shown:
        return [fields.policy]
    name, left_s = _string(decision.checks.entries[index].limit.id), -(-decision.reset_us[index] // _SECOND_US)
    return [fields.policy, (b"RateLimit", b"%b;r=0;t=%d" % (name, left_s))]


def x_ratelimit_fields(decision: Decision) -> list[Field]:
    """The X-RateLimit-Limit, -Remaining and -Reset (seconds from now) of the limit nearest to its end, if any."""
    checks = decision.checks
    fields = _FIELDS.of(checks)
    if not fields.shown:
        return []
    remaining = decision.remaining
    tightest = decision.violated
    if tightest not in fields.shown:
        if decision.unknown:
            return []
        tightest = min(fields.shown, key=lambda i: remaining[i] / checks.entries[i].limit.amount)
    return [
        (b"X-RateLimit-Limit", b"%d" % checks.entries[tightest].limit.amount),
        (b"X-RateLimit-Remaining", b"%d" % max(remaining[tightest], 0)),
        (b"X-RateLimit-Reset", b"%d" % -(-decision.reset_us[tightest] // _SECOND_US)),
    ]


def retry_after(decision: Decision) -> int:
    """Whole seconds until asking again makes sense, at least 1: not before the limit that denied has reset.

    After a loss of the store at most a minute: the operator may accept it at any time.
    """
    seconds = max(1, -(-decision.reset_us[decision.violated] // _SECOND_US))
    return min(seconds, _LOST_RETRY_S) if decision.unknown == "lost" else seconds


def denial_problem(decision: Decision) -> Problem:
    """The answer to a denied request: 402 for an exhausted balance ("top up"), else 429 ("slow down", "used up").

    503 where the wallet cannot be read: a customer with funds must not be asked to buy more. `usage-unknown` where the
    counters cannot be read: a customer with units left must not read that they are used up.
    """
    check = decision.checks.entries[decision.violated]
    limit, cost = check.limit, check.cost
    status, slug, title, detail = check.kind.denial(decision.mode)
    if decision.unknown and status != 503:  # of a wallet that cannot be read the kind knows more
        status, slug, title, detail = _USAGE_UNKNOWN[decision.unknown]
    if cost > limit.amount:
        detail = "this request asks for {cost} units; limit {id} never holds more than {amount}"
    extra: dict[str, Any] = {"violated-policies": [limit.id]}
    if not decision.unknown and decision.mode in _EXACT:
        extra["limit"] = _figures(decision, check)
    if limit.link:
        extra["link"] = limit.link
    return Problem(
        status,
        slug,
        detail.format(id=limit.id, amount=limit.amount, meter=limit.meter, cost=cost),
        title=title,
        extra=extra,
        headers=((b"Retry-After", b"%d" % retry_after(decision)),) if status != 402 else (),
    )


def _figures(decision: Decision, check: Check) -> dict[str, Any]:
    """The figures of the limit that denied, by the names of `sidecar customers limits --json`; of a balance its amount.

    `resets` is when all units are there again, RFC 3339: of slots that is not known.
    """
    limit, index = check.limit, decision.violated
    left = decision.remaining[index]
    if check.kind.stored_as == WALLET:
        return {"id": limit.id, "unit": limit.unit, "available": decimal_of(left - limit.amount, limit.digits)}
    figures = {"id": limit.id, "meter": limit.meter, "scope": limit.scope, "used": limit.amount - left}
    figures |= {"limit": limit.amount, "remaining": left}
    if check.window.end_us:
        figures["period"] = check.window.id
    if check.kind.stored_as != SLOTS:
        figures["resets"] = instant(decision.now_us + decision.reset_us[index])
    return figures


_EXACT: Final = ("exact", "leased")  # else the limit is a worker's share of it
_USAGE_UNKNOWN: Final = {
    "away": (
        429,
        "usage-unknown",
        "Usage cannot be looked at now",
        "usage of limit {id} is unknown: the counter store does not answer; nothing was charged, try again",
    ),
    "lost": (
        429,
        "usage-unknown",
        "Usage was lost",
        "usage of limit {id} is unknown after a loss of the counter store; the operator has to accept the loss",
    ),
}


def warning_fields(decision: Decision) -> list[Field]:
    """A Sidecar-Warning field for each limit in stage soft that only would have denied.

    A field of our own, without X- (RFC 6648): `Warning` is obsolete (RFC 9111 §5.5), and RateLimit cannot say that a
    request passed a limit that is used up.
    """
    limits = [decision.checks.entries[index].limit for index in decision.shadowed]
    return [_warning(limit) for limit in limits if limit.stage == "soft"]


@lru_cache(maxsize=1024)
def _warning(limit: Limit) -> Field:
    more = b"; see %b" % _text(limit.link) if limit.link else b""
    return (b"Sidecar-Warning", b"limit %b is used up%b" % (_string(limit.id), more))


def _policy_item(limit: Limit, item: HeaderItem) -> bytes:
    return b"".join(
        (
            b"%b;q=%d" % (_string(limit.id), min(limit.amount, _INTEGER_MAX)),
            b";w=%d" % item.window_s if item.window_s else b"",
            b";qu=%b" % _string(item.unit) if item.unit else b"",
        )
    )


def _string(value: str) -> bytes:
    r"""A String of RFC 9651 §3.3.3: quoted, with \ before " and \; percent-encoded where not printable ASCII."""
    return b'"%b"' % _text(value).replace(b"\\", b"\\\\").replace(b'"', b'\\"')


def _text(value: str) -> bytes:
    """`value` on one line of ASCII: what is not printable is percent-encoded, as UTF-8."""
    plain = "".join(
        char if " " <= char <= "~" else "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
        for char in value
    )
    return plain.encode("ascii")
