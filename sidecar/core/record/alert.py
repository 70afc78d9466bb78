"""Alerts: a limit's threshold was passed, told once in each of its periods, however many workers saw it.

An alert is named by what it is about: customer, limit, scope, period and percent. Its claim's key and its record's id
are made of these alone, so that two who tell the same one tell it by the same id, and a copy can be known for one.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sidecar.core.counter import escaped
from sidecar.core.record.events import _whole  # one form for all records that are rare

if TYPE_CHECKING:
    from sidecar.core.counter import Checks
    from sidecar.core.decision import Decision
    from sidecar.core.identity import Identity
    from sidecar.core.policy import Limit

TOLD_US: Final = 2 * 366 * 86_400_000_000  # a balance's period has no end; so long after its grant it is told again
_DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Alert(NamedTuple):
    """`used` of `amount` units stand at or past `percent` of a limit, in the period that ends at `until_us`.

    Units are the meter's; of a balance nano-units: what there was after the last top-up, and what is gone of that.
    `id` (26 ASCII bytes) is the record's, dated with the period's start; `counter` the key under which the limit is
    counted in that period.
    """

    id: bytes
    counter: str
    identity: Identity
    limit: Limit
    period: str
    until_us: int
    percent: int
    used: int
    amount: int

    @property
    def customer(self) -> str:
        """Who pays, and the record's partition key."""
        return self.identity.customer

    @property
    def key(self) -> str:
        """Where the alert is claimed, beside the customer's counters."""
        return claim_key(self.counter, self.percent)


def window_alert(decision: Decision, index: int, percent: int) -> Alert:
    """The alert that the limit at `index`, one with a window, stands at or past `percent`."""
    checks = decision.checks
    limit = checks.limits[index]
    counter = checks.keys[index][0]
    return Alert(
        alert_id(claim_key(counter, percent), checks.starts_us[index]),
        counter,
        checks.identity,
        limit,
        checks.windows[index],
        checks.ends_us[index],
        percent,
        limit.amount - decision.remaining[index],
        limit.amount,
    )


class TopUp(NamedTuple):
    """The newest grant of a wallet that has started: its id, when it was made, what could be spent then (nano-units).

    `counter` stands for a counter's key, one for each grant: a balance's period is from one grant to the next.
    """

    grant: str
    made_us: int
    amount: int
    counter: str


def balance_alert(decision: Decision, index: int, percent: int, topped: TopUp) -> Alert:
    """The alert that the balance at `index` stands at or past `percent` of what there was after the last top-up."""
    checks = decision.checks
    return Alert(
        alert_id(claim_key(topped.counter, percent), topped.made_us),
        topped.counter,
        checks.identity,
        checks.limits[index],
        topped.grant,
        topped.made_us + TOLD_US,
        percent,
        topped.amount - decision.remaining[index],
        topped.amount,
    )


def balance_counter(checks: Checks, index: int, grant: str) -> str:
    """What stands for the key of a counter of the balance at `index`, in the form of one that has a window."""
    customer = escaped(checks.customer)
    return f"sc:{{{customer}}}:{escaped(checks.limits[index].id)}:c{customer}:g{escaped(grant)}"


def claim_key(counter: str, percent: int) -> str:
    """Where an alert is claimed: the counter's own key, behind `alert`. No counter's key has as many parts."""
    customer, _, rest = counter.partition("}:")  # within the braces all that could end them is escaped
    return f"{customer}}}:alert:{rest}:{percent}"


def alert_id(key: str, start_us: int) -> bytes:
    """The id of the alert that is claimed at `key`: as if made at `start_us`, and for the rest the key's digest."""
    number = (start_us // 1000 << 80) + int.from_bytes(sha256(key.encode()).digest()[:10], "big")
    return "".join(_DIGITS[number >> shift & 31] for shift in range(125, -1, -5)).encode()


def alert_record(alert: Alert, plan: str, time_us: int, source: str, sequence: int) -> bytes:
    """The record of an alert, on the records' stream. `plan` is a label like "pro@3"; `time_us` since the epoch."""
    limit, identity = alert.limit, alert.identity
    who: dict[str, str] = {"key_id": identity.key_id} if limit.scope == "key" and limit.kind != "balance" else {}
    subject = "" if limit.scope == "customer" or limit.kind == "balance" else identity.subject
    data: dict[str, Any] = {
        "customer": identity.customer,
        **who,
        "plan": plan,
        "limit": limit.id,
        "scope": limit.scope if limit.kind != "balance" else "customer",
        **({"unit": limit.unit} if limit.kind == "balance" else {"meter": limit.meter}),
        "period": alert.period,
        "percent": alert.percent,
        "used": alert.used,
        "amount": alert.amount,
        **({"link": limit.link} if limit.link else {}),
    }
    envelope = {
        "id": alert.id.decode(),
        "subject": subject or identity.customer,
        "partitionkey": identity.customer,
    }
    return _whole("alert", envelope, (time_us, source, sequence), data)
