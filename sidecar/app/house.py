"""What all exchanges of one worker share, and what is prepared once for many of them: `ports.House`.

Nothing here decides: it remembers. Counters' names per identity and window, header lines per peer and route, upstreams
per route; every cache is bounded, and none outlives the policy that it was made from.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, NamedTuple

from sidecar import ports
from sidecar.core.counter import Checks, checks_for
from sidecar.core.decision import Decision
from sidecar.core.headers import ratelimit_fields, warning_fields, x_ratelimit_fields
from sidecar.core.http import forward
from sidecar.core.http.request import Request
from sidecar.core.http.response import ResponseHead
from sidecar.core.identity import Identity, strip_credential
from sidecar.core.policy import Policy, Route, Tap, Terms
from sidecar.core.record import Totals
from sidecar.gateway import Arrival, ReadingExchange, RequestExchange
from sidecar.ports import Alerts, Client, Clock, Counters, Journal, Keys, Probe, Retries, Upstream

CHECKS_CACHED: Final = 50_000
VARIED_CACHED: Final = 4_096  # where a body decides what is asked: calls repeat, estimates of tokens hardly
LINES_A_SECOND: Final = 10
_ID: Final = b"X-Request-Id: "  # ends what is prepared: the id comes after it
_NOT_NEWS: Final = frozenset({"ok", "tunnel", "client_gone"})
log = logging.getLogger("sidecar.exchange")
Network = IPv4Network | IPv6Network
Mint = Callable[[int], bytes]
Question = tuple[Identity, Terms, tuple[int, ...]]


class Manner(NamedTuple):
    """How this node behaves: its name, whom it believes, what it tells."""

    node: str
    pepper: bytes = b""
    trusted: tuple[Network, ...] = ()
    limit_headers: bool = True
    x_limit_headers: bool = False


class Ports(NamedTuple):
    """The edges that exchanges speak to."""

    clock: Clock
    keys: Keys
    counters: Counters
    journal: Journal
    probe: Probe
    retries: Retries
    alerts: Alerts


class House(ports.House):
    """The ports, the policy in force, and the caches. `upstream_of(route)` yields the pool of a route."""

    def __init__(
        self, ports: Ports, policy: Policy, upstream_of: Callable[[Route], Upstream], mint: Mint, manner: Manner
    ) -> None:
        self.clock, self.keys, self.counters, self.journal, self.probe, self.retries, self.alerts = ports
        self.pepper = manner.pepper
        self.mint = mint
        self.draining = False
        self.inflight = 0
        self.totals = Totals()
        self.unheard: set[ReadingExchange] = set()
        self.idle = asyncio.Event()
        self.idle.set()
        self._manner = manner
        self._upstream_of = upstream_of
        self._pseudonym = f"sidecar-{manner.node}".encode()
        self._via_up = {minor: b"Via: 1.%d %b\r\n" % (minor, self._pseudonym) for minor in (0, 1)}
        self._via_down = b"Via: 1.1 %b\r\n" % self._pseudonym
        self._trusts = lru_cache(maxsize=4096)(lambda peer: _within(peer, manner.trusted)) if manner.trusted else None
        self._dropped: dict[bytes, frozenset[bytes]] = {}
        self._second = self._lines = 0
        self.put_in_force(policy)

    def put_in_force(self, policy: Policy) -> None:
        """Swap the policy in whole. Exchanges under way keep their terms; counters go by limit id, so none resets."""
        self.policy = policy
        self._checks: dict[Question, Checks] = {}
        self._varied: dict[Question, Checks] = {}
        self._upstreams: Mapping[str, Upstream] = {route.id: self._upstream_of(route) for route in policy.routes}

    def upstream(self, route: Route) -> Upstream:
        """The pool of a route; one of a policy that is no longer in force is looked up anew."""
        return self._upstreams.get(route.id) or self._upstream_of(route)

    def checks(self, arrival: Arrival, request: Request, now_us: int, tap: Tap | None = None) -> Checks:
        """What this request asks of the counters; the same object for all of a window."""
        terms, identity, found = arrival.terms, arrival.identity, arrival.checks
        assert terms is not None  # noqa: S101 - asked only of whom has terms
        assert identity is not None  # noqa: S101
        costs = terms.fixed_costs or terms.costs(request, tap)
        if tap is not None:
            return self._kept(self._varied, (identity, terms, costs), now_us)
        if found is None or now_us >= found.until_us or found.costs != costs:
            found = arrival.checks = self._kept(self._checks, (identity, terms, costs), now_us)
        return found

    def _kept(self, kept: dict[Question, Checks], asked: Question, now_us: int) -> Checks:
        found = kept.get(asked)
        if found is None or now_us >= found.until_us:
            if len(kept) >= (CHECKS_CACHED if kept is self._checks else VARIED_CACHED):
                kept.clear()
            identity, terms, costs = asked
            found = kept[asked] = checks_for(terms.limits, costs, identity, now_us)
        return found

    # Exchanges under way, so that a drain knows when the last has ended.

    def started(self) -> None:
        self.inflight += 1
        if self.inflight == 1:
            self.idle.clear()

    def finished(self, exchange: RequestExchange) -> None:
        self.inflight -= 1
        if not self.inflight:
            self.idle.set()
        took_us = exchange.duration_us or self.clock.mono_us() - exchange.started_us
        self.probe.answered(exchange.route, exchange.status, took_us - exchange.upstream_us)
        if exchange.opened and exchange.outcome not in _NOT_NEWS:
            self._tell(exchange)

    def sweep(self) -> None:
        """The wheel's turn: answers that were read on long enough without their clients."""
        if self.unheard:
            now_us = self.clock.mono_us()
            for exchange in [each for each in self.unheard if now_us > each.due_us]:
                exchange.on_overdue()

    def abort(self) -> None:
        """The drain's deadline has passed."""
        for exchange in list(self.unheard):
            exchange.on_overdue()

    def _tell(self, exchange: RequestExchange) -> None:
        """A line for an exchange that ended badly, a few a second: an upstream's outage must not fill the disk."""
        second = exchange.started_us // 1_000_000
        self._lines = self._lines + 1 if second == self._second else 1
        self._second = second
        if self._lines <= LINES_A_SECOND:
            figures = {"route": exchange.route, "status": exchange.status, "upstream_us": exchange.upstream_us}
            log.warning("%s", exchange.outcome, extra={"request": exchange.id.decode(), "fields": figures})

    def shadowed(self, decision: Decision) -> None:
        for index in decision.shadowed:
            self.probe.denied(decision.checks.limits[index].id, shadow=True)

    # Heads for the next hop.

    def is_loop(self, request: Request) -> bool:
        """Our own pseudonym in Via (RFC 9110 §7.6.3): a gateway that forwards to itself would never end."""
        pairs = zip(request.names, request.headers, strict=True)
        return any(
            name == b"via" and self._pseudonym in value.replace(b",", b" ").split() for name, (_, value) in pairs
        )

    def head_up(self, exchange: RequestExchange) -> bytes:
        up = exchange.arrival.up
        if not up or exchange.rewritten:
            up = self._rebuilt(exchange)
        return b"".join((up, exchange.id, b"\r\n\r\n"))

    def _rebuilt(self, exchange: RequestExchange) -> bytes:
        request, arrival = exchange.request, exchange.arrival
        source = arrival.source if not arrival.way.keep_credential else None
        query = request.query
        if source is not None and not source.field:
            query = strip_credential(request, source)[1]
        lines = [
            self._via_up[request.minor] if b"via" not in request.fields else forward.via(request, self._pseudonym),
            self._forwarded(request, exchange.client),
        ]
        dropped = self._drops(source.field if source is not None else b"")
        if b"traceparent" in request.fields and not arrival.traceparent:
            dropped = dropped | {b"traceparent", b"tracestate"}
        if exchange.rewritten:  # what is taken out of the answer again has to be read there
            dropped = dropped | {b"accept-encoding"}
            lines.append(b"Accept-Encoding: identity\r\n")
        who = exchange.identity
        if arrival.way.identity_headers and who is not None:
            lines.append(forward.identity_lines(who.customer, who.subject, who.key_id, exchange.plan))
        lines.append(_ID)
        up = forward.request_head(request, query, dropped, b"".join(lines), length=exchange.rewritten)
        # Whom the key stands for may change while the head stays, and so may what is sent for its body.
        if not (arrival.way.identity_headers or exchange.rewritten):
            arrival.up = up
        return up

    def _drops(self, field: bytes) -> frozenset[bytes]:
        dropped = self._dropped.get(field)
        if dropped is None:
            dropped = self._dropped[field] = forward.dropped_with(field)
        return dropped

    def _forwarded(self, request: Request, client: Client) -> bytes:
        if self._trusts is not None and self._trusts(client.peer):
            return forward.forwarded_on(request, client.peer, tls=client.tls)
        return forward.forwarded(client.peer, request.host, tls=client.tls)

    def head_down(self, exchange: RequestExchange, head: ResponseHead) -> bytes:
        minor = exchange.request.minor
        if head.length < 0 and not minor:
            exchange.close_after = True  # an HTTP/1.0 client knows the end by the close
        if self.draining:
            exchange.close_after = True
        decision = exchange.decision
        limits = self.limit_fields(decision) if decision is not None and b"ratelimit" not in head.fields else b""
        if decision is not None and decision.shadowed:
            limits += warning_fields(decision)
        shape = (minor, exchange.close_after)
        prepared = head.prepared.get(shape)
        if prepared is None:
            prepared = head.prepared[shape] = self._prepared(exchange, head, *shape)
        fixed, exchange.chunked = prepared
        return b"".join((fixed, exchange.id, b"\r\n", limits, b"\r\n"))

    def _prepared(self, exchange: RequestExchange, head: ResponseHead, minor: int, close: bool) -> tuple[bytes, bool]:
        if head.status == 101:
            return forward.switching_head(head, exchange.request.upgrade) + self._via_down + _ID, False
        fixed, chunked = forward.response_head(head, minor, close=close)
        return fixed + self._via_down + _ID, chunked

    def limit_fields(self, decision: Decision) -> bytes:
        if not self._manner.limit_headers:
            return b""
        fields = ratelimit_fields(decision)
        return fields + x_ratelimit_fields(decision) if self._manner.x_limit_headers else fields


def _within(peer: str, networks: tuple[Network, ...]) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    return any(address in network for network in networks)
