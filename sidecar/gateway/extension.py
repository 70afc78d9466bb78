"""The open exchanges whose slots, holds or marks expire soon: determined twice a second, not per request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from sidecar.core.decision.extension import is_due
from sidecar.core.limits import Checks
from sidecar.gateway.exchange import RequestExchange
from sidecar.ports import Exchange

YOUNG_US = 300_000  # less than a third of the shortest expiry, a second


def exchanges_due(exchanges: Iterable[Exchange], mono_us: int, passed_us: int) -> list[tuple[bytes, Checks]]:
    """Ids and checks of the exchanges whose slots, holds and marks must be extended now.

    `passed_us` is the time since the last call. An exchange on a lease has none of these under its own id.
    """
    due = []
    for exchange in cast("Iterable[RequestExchange]", exchanges):  # `serve` made them
        age_us = mono_us - exchange.started_us
        if age_us < YOUNG_US or exchange.ended:
            continue
        decision, checks = exchange.decision, exchange.checks
        if decision is None or checks is None or not decision.allowed or checks.is_leased:
            continue
        if is_due(checks, age_us, passed_us):
            due.append((exchange.id, checks))
    return due
