"""The settles that a start sends again: of exchanges that ended before it and that Redis has not acknowledged."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import orjson

from sidecar.core.decision import changes_nothing
from sidecar.core.policy import Policy
from sidecar.core.record import Settlement, Settlements
from sidecar.edge.journal import Ended

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
log = logging.getLogger("sidecar.settlements")


def unsettled(ended: Sequence[Ended], policy: Policy) -> list[Settlement]:
    """The settlements of exchanges that have `ended` which the store needs, under the current policy.

    Settlements that change nothing are left out. So are leased exchanges that used less than was leased for them: those
    units are returned in sums, which cannot be repeated; the customer's window loses them, no limit is exceeded. The
    charge for an exchange during an outage is sent by the owner of that debt (edge/degraded), its settlement here.
    """
    reader = Settlements(policy)
    settlements = []
    for each in ended:
        try:
            settlement = reader.read(each.id, each.opened, each.closed, _ended_us(each.closed))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.error("exchange %r cannot be settled again: %r; its counters keep what it reserved", each.id, error)  # noqa: TRY400 - damage, not our stack
            continue
        if settlement is not None and _matters(settlement):
            settlements.append(settlement)
    return settlements


def _matters(settlement: Settlement) -> bool:
    if settlement.mode == "leased":
        return max(settlement.actual) > 0
    return not changes_nothing(settlement.checks, settlement.actual)


def _ended_us(closed: bytes) -> int:
    return (datetime.fromisoformat(orjson.loads(closed)["time"]) - _EPOCH) // timedelta(microseconds=1)
