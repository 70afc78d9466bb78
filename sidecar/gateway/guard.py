"""How an exchange ends where one of its steps raised: it ends, and it alone.

Every method of an exchange that a port or a connection calls catches each exception and calls `end_faulty`, so a fault
of one exchange disturbs no connection, no batch of replies and no other exchange. One that was opened gets a record
with the outcome `internal_error`, which is not billed; its client gets a 500, or where an answer has begun, a cut
connection. Each ending may raise as well: then the next, simpler one is tried.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from sidecar.core.http.problem import INTERNAL
from sidecar.core.record import INTERNAL_ERROR, short_record
from sidecar.gateway import accounting
from sidecar.gateway.states import CLIENT_GONE, ENDED, OPENED, RECORDED

if TYPE_CHECKING:
    from sidecar.gateway.exchange import RequestExchange


def end_faulty(exchange: RequestExchange, error: Exception) -> None:
    """A step raised `error`. An exchange whose record the journal has goes on; every other one ends here."""
    exchange.context.log.fault(exchange.id, error)
    if not exchange.ended and _is_done(exchange, _answer_or_record):
        return
    if exchange.state in {OPENED, ENDED} and _is_done(exchange, _record_bare):
        return
    if exchange.state < RECORDED:
        _abandon(exchange)


def _is_done(exchange: RequestExchange, end: Callable[[RequestExchange], None]) -> bool:
    try:
        end(exchange)
    except Exception as error:  # noqa: BLE001 - the next, simpler ending is tried
        exchange.context.log.fault(exchange.id, error)
        return False
    return True


def _answer_or_record(exchange: RequestExchange) -> None:
    _is_done(exchange, _drop_leg)
    exchange.tunnelled = False
    if exchange.state != OPENED:
        _is_done(exchange, _release_all)
        if exchange.gone:
            exchange.dismiss()
        else:
            exchange.answer(INTERNAL)
    elif exchange.head is None and not exchange.gone:
        exchange.refuse(INTERNAL, INTERNAL_ERROR)
    else:
        exchange.fail(exchange.status or CLIENT_GONE, INTERNAL_ERROR)


def _drop_leg(exchange: RequestExchange) -> None:
    exchange.drop_leg()


def _release_all(exchange: RequestExchange) -> None:
    accounting.release_all(exchange)
    exchange.unclaim()


def _record_bare(exchange: RequestExchange) -> None:
    """Record what is certain, and no usage: nothing can be worked out any more."""
    exchange.broken = True
    exchange.outcome = exchange.billable_reason = INTERNAL_ERROR
    exchange.quality = "partial"
    exchange.billable = False
    exchange.excluded = ""
    exchange.usage = exchange.terms.unused
    exchange.state = ENDED
    exchange.hand_over(partial(_bare_record, exchange))


def _abandon(exchange: RequestExchange) -> None:
    """Not even that can be written: give back what is reserved, and let go. A start finds it open, if it was."""
    _is_done(exchange, _release_all)
    exchange.cut()
    exchange.finish()


def _bare_record(exchange: RequestExchange, source: str, sequence: int) -> bytes:
    record = short_record(exchange, exchange.arrived_us + exchange.duration_us, source, sequence)
    exchange.context.totals.add(exchange.usage)
    return record
