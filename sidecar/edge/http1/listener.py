"""The state shared by all client connections of one worker: limits, timeouts, the drain, the check of deadlines."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from heapq import nsmallest
from typing import Final, NamedTuple

from sidecar.core.http.problem import Problem
from sidecar.core.http.request import HeadLimits, Request
from sidecar.edge.http1.downstream import Downstream
from sidecar.edge.http1.large_heads import LargeHeads
from sidecar.edge.http1.peers import client_of
from sidecar.ports import Client, Exchange

IDLE_S: Final = 1.0  # before that, the request of a new connection may be on its way


class Timeouts(NamedTuple):
    """Seconds, and bytes per second. `stalled_s`: a client that reads nothing of its answer for so long is cut off."""

    head_s: float = 10.0
    idle_s: float = 75.0
    body_grace_s: float = 10.0
    body_min_bytes_per_s: int = 100
    stalled_s: float = 75.0


class Listener:
    """The connections of one worker. `serve(request, client)` creates the exchange of a request.

    `pseudonym` is this node's name in Via (RFC 9110 §7.6.3). `refused(problem)` is called for each refused head.
    """

    def __init__(
        self,
        serve: Callable[[Request, Client], Exchange],
        *,
        limits: HeadLimits | None = None,
        timeouts: Timeouts | None = None,
        max_body_bytes: int = 1 << 40,
        pseudonym: bytes = b"sidecar",
        refused: Callable[[Problem], None] = lambda _problem: None,
    ) -> None:
        self.serve = serve
        self.connections: set[Downstream] = set()
        self.large_heads = LargeHeads()
        self.limits = limits or HeadLimits()
        self.timeouts = timeouts or Timeouts()
        self.max_body_bytes = max_body_bytes
        self.via = b"1.1 " + pseudonym
        self.refused = refused
        self.now = 0.0
        self.draining = False
        self.empty = asyncio.Event()
        self.empty.set()

    def __call__(self) -> Downstream:
        return Downstream(self)

    @property
    def limits(self) -> HeadLimits:
        """The bounds of a head. A change makes every connection parse its cached head again."""
        return self._limits

    @limits.setter
    def limits(self, limits: HeadLimits) -> None:
        self._limits = limits
        for connection in self.connections:
            connection.forget_head()

    def check_deadlines(self, now: float, late_s: float = 0.0) -> None:
        """Check all connections. Call it a few times a second; there is no timer per request.

        `late_s`: how late this call is. For so long nothing was read, so the clients have as much longer.
        """
        self.now = now
        due = now - late_s
        for connection in list(self.connections):
            if due > connection.deadline:
                connection.end_overdue(due)
            elif now > connection.forget_at:
                connection.forget_head()

    def idle(self, number: int) -> list[Downstream]:
        """Up to `number` connections that wait for a request, in the order in which they are to be closed.

        First those of the client that has the most connections, and of these first the ones that wait for longest: so a
        client that takes all connections closes its own.
        """
        of_client = Counter([client_of(each.peer) for each in self.connections])
        idle = [each for each in self.connections if each.idle_since() <= self.now - IDLE_S]
        return nsmallest(number, idle, key=lambda each: (-of_client[client_of(each.peer)], each.idle_since()))

    def exchanges(self) -> list[Exchange]:
        """The exchanges in progress."""
        return [each._exchange for each in self.connections if each._exchange is not None]

    def drain(self) -> None:
        """Close idle connections soon, and busy ones after their answer."""
        self.draining = True
        for connection in list(self.connections):
            connection.on_drain()

    async def gone(self) -> None:
        """Wait until every connection is closed, and its written bytes are sent."""
        await self.empty.wait()

    def abort(self) -> None:
        """Close all connections immediately: the drain's deadline has passed."""
        for connection in list(self.connections):
            connection.on_abort()
