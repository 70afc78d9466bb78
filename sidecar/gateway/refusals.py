"""Answers of our own in place of the upstream's: each counted by its reason, and a few of them logged.

A line says why one request was refused and whose it was; it holds no key, path, query or address. One line in ten
seconds for each reason and customer, with the number of those that had none: a flood of wrong keys must not fill the
disk, and one customer's refusals must not hide another's. Requests without a known customer share their lines, and so
do customers beyond CALLERS_MAX at once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from sidecar.core.http.problem import Problem
from sidecar.core.http.vendor_errors import with_vendor_error
from sidecar.ports import Clock, Probe

if TYPE_CHECKING:
    from sidecar.gateway.exchange import RequestExchange

LINE_EVERY_US: Final = 10_000_000  # for each reason and customer
CALLERS_MAX: Final = 100  # reasons and customers with lines of their own at once: ten lines a second
log = logging.getLogger("sidecar.refusals")


def presented(problem: Problem, exchange: RequestExchange) -> Problem:
    """A problem with what the callers of its route need to read it: an error of the AI vendor, CORS for browsers."""
    if not exchange.route:  # no route matched, or routing itself failed
        return problem
    routed = exchange.routed
    if routed.route.usage and problem.status != 204:
        problem = with_vendor_error(problem, routed.route.usage)
    origins, origin = exchange.context.origins, routed.origin
    cors = origins.fields(exchange.route, origin) if origin else routed.cors
    return problem._replace(headers=(*problem.headers, *cors)) if cors else problem


class Refusals:
    """`head`: a request that was refused before there was an exchange; `exchange`: one whose exchange ends with it."""

    def __init__(self, clock: Clock, probe: Probe) -> None:
        self._clock = clock
        self._probe = probe
        self._next_us: dict[tuple[str, str], int] = {}  # of a reason and a customer: when its next line may be written
        self._unlogged: dict[tuple[str, str], int] = {}

    def head(self, problem: Problem) -> None:
        """The head or the body of a request is wrong in itself."""
        self._probe.count("refused|" + problem.slug)
        of = (problem.slug, "")
        if self._has_line(of):
            self._write(problem, of, "", {})

    def exchange(self, problem: Problem, exchange: RequestExchange) -> None:
        """A request was answered before the upstream saw it. A denial by a limit has its record, and no line.

        Nor has an answer to OPTIONS, which refuses nothing.
        """
        self._probe.count("refused|" + problem.slug)
        decision, identity = exchange.decision, exchange.identity
        if problem.status == 204 or (decision is not None and not decision.allowed):
            return
        of = self._line_of(problem.slug, identity.customer if identity is not None else "")
        if not self._has_line(of):
            return
        caller: dict[str, Any] = {"method": exchange.method, "route": exchange.route}
        if identity is not None:
            caller |= {"customer": identity.customer, "key": identity.key_id, "plan": identity.plan}
        self._write(problem, of, exchange.id.decode(), caller)

    def _line_of(self, reason: str, customer: str) -> tuple[str, str]:
        """The reason and the customer whose lines are counted together; "" for requests that share the lines."""
        of = (reason, customer)
        if of in self._next_us or len(self._next_us) < CALLERS_MAX:
            return of
        now_us = self._clock.mono_us()
        ended = [each for each, next_us in self._next_us.items() if next_us <= now_us]
        for each in ended:
            del self._next_us[each]
            unlogged = self._unlogged.pop(each, 0)
            if unlogged:
                shared = (each[0], "")
                self._unlogged[shared] = self._unlogged.get(shared, 0) + unlogged
        return of if ended else (reason, "")

    def _has_line(self, of: tuple[str, str]) -> bool:
        now_us = self._clock.mono_us()
        if now_us < self._next_us.get(of, 0):
            self._unlogged[of] = self._unlogged.get(of, 0) + 1
            return False
        self._next_us[of] = now_us + LINE_EVERY_US
        return True

    def _write(self, problem: Problem, of: tuple[str, str], request: str, caller: dict[str, Any]) -> None:
        fields = {"reason": problem.slug, "status": problem.status, **caller}
        fields["unlogged"] = self._unlogged.pop(of, 0)
        level = logging.WARNING if problem.status >= 500 else logging.INFO
        log.log(level, "refused: %s", problem.detail, extra={"request": request, "fields": fields})
