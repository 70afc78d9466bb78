"""The usage of an exchange: measured, judged billable or not, recorded, and settled with the counters.

Functions of an exchange (exchange.py), which calls each of them once, at its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from sidecar.core.decision import settled
from sidecar.core.record import WITHHELD, Alert, alert_record, short_record, usage_record
from sidecar.core.record.frame import RECORD_MAX
from sidecar.core.usage.billing import billing

if TYPE_CHECKING:
    from sidecar.gateway.context import WorkerContext
    from sidecar.gateway.exchange import RequestExchange


def measure(exchange: RequestExchange) -> None:
    """Set usage, whether it is billable and why, and the upstream's id. An exchange that it never saw uses nothing."""
    terms, identity = exchange.terms, exchange.identity
    exchange.usage = terms.measure(exchange) if exchange.attempts else terms.unused
    plan, test = (identity.plan, identity.test) if identity is not None else ("", False)
    excluded = terms.excluded(exchange, identity, retry=exchange.repeated) if terms.exclusions else ""
    exchange.excluded = excluded
    exchange.billable, exchange.billable_reason = billing(
        plan, status=exchange.status, test=test, outcome=exchange.outcome, excluded=excluded
    )
    head = exchange.head
    if head is not None and head.request_id and head.request_id != exchange.id.decode():  # many repeat ours
        exchange.upstream_request_id = head.request_id


def record(exchange: RequestExchange, source: str, sequence: int) -> bytes:
    """The record; its usage is added to the totals together with its number, so that a checkpoint matches."""
    text = usage_record(exchange, exchange.arrived_us + exchange.duration_us, source, sequence)
    if len(text) > RECORD_MAX:  # a path or names from a body, beyond what a frame holds
        exchange.quality = "partial"
        text = short_record(exchange, exchange.arrived_us + exchange.duration_us, source, sequence)
    exchange.context.totals.add(exchange.usage)
    return text


def settle(exchange: RequestExchange, usage: dict[str, int] | None) -> bool:
    """Replace the reservation by the actual units; None: nothing was used. False: the store was not asked."""
    checks, decision = exchange.checks, exchange.decision
    if checks is None or decision is None or not decision.allowed:
        return False
    terms = exchange.terms
    units: Sequence[int]
    if not usage:
        units = (0,) * len(checks.costs)
    elif exchange.billable:
        units = terms.actual_units(usage)
    else:  # recorded like the rest, and not charged
        units = terms.actual_units(usage, billable=False, excluded=bool(exchange.excluded))
    if units == checks.costs and not checks.must_settle:
        return False
    context = exchange.context
    context.counters.settle(exchange.id, checks, units)
    if checks.alerting and (changed := settled(decision, units)) is not None:
        context.alerts.evaluate(changed, exchange.on_alert)
    return True


def release(exchange: RequestExchange, written: bool) -> bool:
    """Settle once the journal has the record, or (False) cannot have it; whether the store was asked."""
    if exchange.inspection is not None:
        exchange.inspection.release(exchange, written)
    usage: dict[str, int] | None = exchange.usage
    if not written:
        exchange.broken = True
        if exchange.context.journal.withheld():  # nobody is to pay for an answer without a record
            usage = None
            exchange.outcome = exchange.billable_reason = WITHHELD
            exchange.billable = False
    return settle(exchange, usage)


def release_all(exchange: RequestExchange) -> None:
    """Settle as unused, also what was asked and not answered yet: the store takes no reservation after it."""
    checks, decision = exchange.checks, exchange.decision
    if checks is not None and (decision is None or decision.allowed):
        exchange.context.counters.settle(exchange.id, checks, (0,) * len(checks.costs))


def write_alert(exchange: RequestExchange, alert: Alert) -> None:
    """Write the record of a threshold that was passed."""
    context = exchange.context
    write = partial(alert_record, alert, exchange.plan, context.clock.now_us())
    context.journal.close("records", alert.id, alert.customer, write, partial(_alert_written, context, alert))


def _alert_written(context: WorkerContext, alert: Alert, written: bool) -> None:
    if written:
        context.alerts.wrote(alert)
