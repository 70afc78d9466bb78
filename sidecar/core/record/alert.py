"""Alerts: a limit's threshold was passed. Each is recorded once per period, however many workers saw it.

An alert is identified by customer, limit, scope, period and percent. The key of its claim and the id of its record are
made of these alone, so two workers that record the same alert use the same id, and consumers drop the copy.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sidecar.core.decision import Decision
from sidecar.core.identity import Identity
from sidecar.core.limits import KINDS, Checks, Limit, account_stem, escaped
from sidecar.core.limits.base import WALLET
from sidecar.core.price.decimals import DIGITS
from sidecar.core.record.ids import derived_id
from sidecar.core.record.text import whole_record

REPEAT_AFTER_US: Final = 2 * 366 * 86_400_000_000  # after its grant; the period of a balance has no end


class Alert(NamedTuple):
    """`used` of `amount` units are at or past `percent` of a limit, in the period that ends at `until_us`.

    Units are the meter's; of a balance amounts: what there was after the last top-up, and what is gone of that.
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
        """The customer who pays, and the record's partition key."""
        return self.identity.customer

    @property
    def key(self) -> str:
        """Where the alert is claimed, beside the customer's counters."""
        return claim_key(self.counter, self.percent)


def window_alert(decision: Decision, index: int, percent: int) -> Alert:
    """The alert that the limit at `index`, one with a window, is at or past `percent`."""
    checks = decision.checks
    check = checks.entries[index]
    counter, window, limit = check.keys[0], check.window, check.limit
    return Alert(
        derived_id(claim_key(counter, percent), window.start_us),
        counter,
        checks.identity,
        limit,
        window.id,
        window.end_us,
        percent,
        limit.amount - decision.remaining[index],
        limit.amount,
    )


class TopUp(NamedTuple):
    """The newest grant of a wallet that has started: its id, when it was made, what could be spent then.

    `counter` stands for a counter's key, one for each grant: a balance's period is from one grant to the next.
    """

    grant: str
    made_us: int
    amount: int
    counter: str


def balance_alert(decision: Decision, index: int, percent: int, topped: TopUp) -> Alert:
    """The alert that the balance at `index` is at or past `percent` of the balance after the last top-up."""
    checks = decision.checks
    return Alert(
        derived_id(claim_key(topped.counter, percent), topped.made_us),
        topped.counter,
        checks.identity,
        checks.entries[index].limit,
        topped.grant,
        topped.made_us + REPEAT_AFTER_US,
        percent,
        topped.amount - decision.remaining[index],
        topped.amount,
    )


def balance_counter(checks: Checks, index: int, grant: str) -> str:
    """A key for the balance at `index` in the format of a counter's key, whose window is the grant.

    It has the unit's scale where that is not the default: a grant may be made again in a wallet of another scale.
    """
    check, identity = checks.entries[index], checks.identity
    limit = check.limit
    name = f"{check.kind.code}={escaped(limit.id)}:c{escaped(identity.customer)}:g{escaped(grant)}"
    scale = "" if limit.digits == DIGITS else f":{limit.digits}"
    return f"{account_stem(identity.account)}:{name}{scale}"


def claim_key(counter: str, percent: int) -> str:
    """Where an alert is claimed: the counter's own key, behind `alert`. No counter's key has as many parts."""
    customer, _, rest = counter.partition("}:")  # within the braces all that could end them is escaped
    return f"{customer}}}:alert:{rest}:{percent}"


def alert_record(alert: Alert, plan: str, time_us: int, source: str, sequence: int) -> bytes:
    """The record of an alert, on the records' stream. `plan` is a label like "pro@3"; `time_us` since the epoch."""
    limit, identity = alert.limit, alert.identity
    is_wallet = KINDS[limit.kind].stored_as == WALLET
    scope = "customer" if is_wallet else limit.scope
    who: dict[str, str] = {"key_id": identity.key_id} if scope == "key" else {}
    subject = "" if scope == "customer" else identity.subject
    data: dict[str, Any] = {
        "customer": identity.customer,
        "account": identity.account,
        **who,
        "plan": plan,
        "limit": limit.id,
        "scope": scope,
        **(_unit(limit) if is_wallet else {"meter": limit.meter}),
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
    return whole_record("alert", envelope, (time_us, source, sequence), data)


def _unit(limit: Limit) -> dict[str, Any]:
    """The unit of a balance, and its scale where that is not the default."""
    return {"unit": limit.unit} | ({} if limit.digits == DIGITS else {"digits": limit.digits})
