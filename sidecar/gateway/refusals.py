"""Answers of our own in place of the upstream's: each counted by its reason, and a few of them logged.

A line says why one request was refused and whose it was; it holds no key, path, query or address. One line in ten
seconds for each reason, with the number of those that had none: a flood of wrong keys must not fill the disk.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from sidecar.core.http.problem import Problem
from sidecar.core.http.vendor_errors import with_vendor_error
from sidecar.ports import Clock, Probe

if TYPE_CHECKING:
    from sidecar.gateway.exchange import RequestExchange

LINE_EVERY_US: Final = 10_000_000  # for each reason
log = logging.getLogger("sidecar.refusals")


def presented(problem: Problem, exchange: RequestExchange) -> Problem:
    """A problem with what the callers of its route need to read it: an error of the AI vendor, CORS for browsers."""
    if not exchange.route:  # no route matched, or routing itself failed
        return problem
    routed = exchange.routed
    if routed.route.usage and problem.status != 204:
        problem = with_vendor_error(problem, routed.route.usage)
    cors = routed.cors
    return problem._replace(headers=(*problem.headers, *cors)) if cors else problem


class Refusals:
    """`head`: a request that was refused before there was an exchange; `exchange`: one whose exchange ends with it."""

    def __init__(self, clock: Clock, probe: Probe) -> None:
        self._clock = clock
        self._probe = probe
        self._next_us: dict[str, int] = {}  # when the next line of a reason may be written
        self._unlogged: dict[str, int] = {}

    def head(self, problem: Problem) -> None:
        """The head or the body of a request is wrong in itself."""
        self._probe.count("refused|" + problem.slug)
        if self._has_line(problem.slug):
            self._write(problem, "", {})

    def exchange(self, problem: Problem, exchange: RequestExchange) -> None:
        """A request was answered before the upstream saw it. A denial by a limit has its record, and no line.

        Nor has an answer to OPTIONS, which refuses nothing.
        """
        self._probe.count("refused|" + problem.slug)
        decision = exchange.decision
        if problem.status == 204 or (decision is not None and not decision.allowed) or not self._has_line(problem.slug):
            return
        caller: dict[str, Any] = {"method": exchange.method, "route": exchange.route}
        identity = exchange.identity
        if identity is not None:
            caller |= {"customer": identity.customer, "key": identity.key_id, "plan": identity.plan}
        self._write(problem, exchange.id.decode(), caller)

    def _has_line(self, reason: str) -> bool:
        now_us = self._clock.mono_us()
        if now_us < self._next_us.get(reason, 0):
            self._unlogged[reason] = self._unlogged.get(reason, 0) + 1
            return False
        self._next_us[reason] = now_us + LINE_EVERY_US
        return True

    def _write(self, problem: Problem, request: str, caller: dict[str, Any]) -> None:
        fields = {"reason": problem.slug, "status": problem.status, **caller}
        fields["unlogged"] = self._unlogged.pop(problem.slug, 0)
        level = logging.WARNING if problem.status >= 500 else logging.INFO
        log.log(level, "refused: %s", problem.detail, extra={"request": request, "fields": fields})
