"""What is known of one exchange, grouped by when it becomes known: what meters measure and records state.

Only fields and their first values: what changes them is the story in exchange.py, ending.py and reading.py.
"""

from __future__ import annotations

from sidecar.core.counter import Checks
from sidecar.core.http.request import Request
from sidecar.core.http.response import ResponseHead
from sidecar.core.policy import Route, Tap, Terms
from sidecar.gateway.arrival import Arrival
from sidecar.ports import Client, Exchange, House, Leg, Upstream

NOTHING: dict[str, int] = {}
NO_TRAILERS: list[tuple[bytes, bytes]] = []


class Facts(Exchange):
    """One exchange, as meters (`core.policy.Facts`) read it, and with what its record states."""

    __slots__ = (
        "house", "request", "client", "arrived_us", "started_us",  # on arrival
        "arrival", "way", "terms", "checks",  # the way in
        "upstream", "leg", "sent_us", "body", "body_ended", "request_trailers",  # up
        "head", "chunked", "out", "trailers",  # down
        "opened", "ended", "gone", "broken", "tunnelled", "close_after",  # the laws
    )  # fmt: skip

    arrival: Arrival
    way: Route
    terms: Terms
    # What only an exchange whose bodies are read, or that may be a retry, knows of itself (reading.py); `dims` is one.
    tap: Tap | None = None
    rewritten = 0  # bytes of the body that goes up where it is not the client's own
    repeated = False  # an earlier exchange had this Idempotency-Key
    continued = False  # the client was told to go on before the decision

    def __init__(self, house: House, request: Request, client: Client) -> None:
        self.house = house
        self.request = request
        self.client = client
        self.method = request.method
        self.path = request.path
        self.arrived_us = now_us = house.clock.now_us()
        self.started_us = house.clock.mono_us()
        self.id = house.mint(now_us // 1000)
        self.route = self.plan = self.traceparent = ""
        self.identity = None
        self.checks: Checks | None = None
        self.decision = None
        self.upstream: Upstream | None = None
        self.leg: Leg | None = None
        self.head: ResponseHead | None = None
        self.body: list[bytes] | None = [] if request.length else None
        self.request_trailers = self.trailers = NO_TRAILERS
        self.out: list[bytes] = []
        self.body_ended = request.length == 0
        self.close_after = not request.keep_alive
        self.opened = self.ended = self.gone = self.broken = self.chunked = self.tunnelled = False
        self.client_disconnected = False
        self.status = self.attempts = self.bytes_in = self.bytes_out = self.sent_us = self.upstream_us = 0
        self.duration_us = 0
        self.outcome = "ok"
        self.spelled = b""
        self.quality = "exact"
        self.usage = NOTHING

    @property
    def customer(self) -> str:
        return self.identity.customer if self.identity is not None else ""

    @property
    def request_bytes(self) -> int:
        return self.bytes_in

    @property
    def response_bytes(self) -> int:
        return self.bytes_out

    def request_header(self, name: bytes) -> bytes | None:
        return self.request.fields.get(name)

    def response_header(self, name: bytes) -> bytes | None:
        return self.head.fields.get(name) if self.head is not None else None
