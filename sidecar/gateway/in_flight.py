"""The exchanges of a worker that are open, so that a drain knows when the last has ended; and their log."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sidecar.core.decision import Decision
from sidecar.gateway.guard import end_faulty
from sidecar.ports import Clock, Probe

if TYPE_CHECKING:
    from sidecar.gateway.exchange import RequestExchange

LINES_A_SECOND: Final = 10
_EXPECTED: Final = frozenset({"ok", "tunnel", "client_gone"})  # outcomes that are not logged
log = logging.getLogger("sidecar.exchange")


class ExchangeLog:
    """Log lines for exchanges that ended badly, a few a second: an upstream's outage must not fill the disk."""

    def __init__(self, clock: Clock, probe: Probe) -> None:
        self._clock = clock
        self._probe = probe
        self._second = self._lines = 0

    def finished(self, exchange: RequestExchange) -> None:
        """Count the answer, and log it where its outcome is a failure."""
        took_us = exchange.duration_us or self._clock.mono_us() - exchange.started_us
        self._probe.answered(exchange.route, exchange.status, took_us - exchange.upstream_us)
        if exchange.outcome not in _EXPECTED and self._has_line(exchange.started_us):
            figures = {"route": exchange.route, "status": exchange.status, "upstream_us": exchange.upstream_us}
            why = f": {exchange.refusal.detail}" if exchange.refusal is not None else ""
            log.warning(
                "exchange failed: %s%s",
                exchange.outcome,
                why,
                extra={"request": exchange.id.decode(), "fields": figures},
            )

    def fault(self, id: bytes, error: Exception) -> None:
        """A step of this exchange raised: count it, and log the traceback. Never raises."""
        try:
            self._probe.count("exchange_faults")
            if self._has_line(self._clock.mono_us()):
                log.error("internal error: this exchange is ended", exc_info=error, extra={"request": id.decode()})
        except Exception:  # the caller is ending an exchange, and has to go on
            log.exception("an internal error could not be counted")

    def count_shadowed(self, decision: Decision) -> None:
        """Count what limits in stage shadow or soft would have denied."""
        for index in decision.shadowed:
            self._probe.denied(decision.checks.entries[index].limit.id, shadow=True)

    def _has_line(self, mono_us: int) -> bool:
        second = mono_us // 1_000_000
        self._lines = self._lines + 1 if second == self._second else 1
        self._second = second
        return self._lines <= LINES_A_SECOND


class OpenExchanges:
    """`settling`: exchanges of this batch of the journal whose last bytes wait until their settles have been sent.

    `detached`: those whose answer is read on though their client has left. `flush` sends what the store was asked.
    Answers whose reading takes longer continue in later turns of the loop, one of them in every other turn.
    """

    def __init__(self, clock: Clock, log: ExchangeLog, flush: Callable[[], None]) -> None:
        self.number = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.settling: list[RequestExchange] = []
        self.detached: set[RequestExchange] = set()
        self._behind: deque[RequestExchange] = deque()
        self._has_turn = False
        self._clock = clock
        self._log = log
        self._flush = flush

    def started(self) -> None:
        """One more is open."""
        self.number += 1
        if self.number == 1:
            self.idle.clear()

    def finished(self, exchange: RequestExchange) -> None:
        """Called once per exchange, when nothing of it is open any more."""
        self.number -= 1
        if not self.number:
            self.idle.set()
        if self.detached:
            self.detached.discard(exchange)
        self._log.finished(exchange)

    def read_later(self, exchange: RequestExchange) -> None:
        """Continue to read this exchange's answer in a later turn."""
        self._behind.append(exchange)
        if not self._has_turn:
            self._has_turn = True
            asyncio.get_running_loop().call_soon(self._rest)

    def _rest(self) -> None:
        """A turn for the other exchanges alone."""
        asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        exchange = self._behind.popleft()
        if not exchange.ended:
            _read_on(exchange)
        self._has_turn = bool(self._behind)
        if self._has_turn:
            asyncio.get_running_loop().call_soon(self._rest)

    def deliver(self) -> None:
        """After a batch of the journal: send its settles in one write, and then the last bytes of its answers."""
        settling = self.settling
        if settling:
            self.settling = []
            try:
                self._flush()
            except Exception:  # their records are written, so their answers leave
                log.exception("settles could not be sent with their batch")
            for exchange in settling:
                exchange.deliver()

    def end_overdue(self, late_us: int = 0) -> None:
        """End answers that were read on long enough without their clients; called a few times a second.

        `late_us`: how late this call is; nothing was read for so long.
        """
        if self.detached:
            now_us = self._clock.mono_us() - late_us
            for exchange in list(self.detached):
                if exchange.inspection is not None and now_us > exchange.inspection.due_us:
                    _end_drain(exchange)

    def abort(self) -> None:
        """The drain's deadline has passed."""
        for exchange in list(self.detached):
            _end_drain(exchange)


def _read_on(exchange: RequestExchange) -> None:
    try:
        if exchange.inspection is not None:
            exchange.inspection.read_on(exchange)
    except Exception as error:  # noqa: BLE001 - as in every step
        end_faulty(exchange, error)


def _end_drain(exchange: RequestExchange) -> None:
    try:
        if exchange.inspection is not None:
            exchange.inspection.end_drain(exchange)
    except Exception as error:  # noqa: BLE001 - as in every step
        end_faulty(exchange, error)
