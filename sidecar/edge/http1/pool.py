"""The addresses of one named upstream: pooled connections, passive ejection, one safe retry.

An address is ejected for some seconds if it fails to connect, or closes without an answer, several times in a row. If
all addresses are ejected, all are used again, since an attempt is better than a certain 502.

A request is retried once at most, before any byte of an answer (RFC 9110 §9.2.2):

    nothing was sent: the connection failed        any method           at another address, if there is one
    a reused connection was closed                 idempotent methods   at another address without a body, else here
    a new connection was closed                    idempotent methods   at another address, without a body

Which collection of its address (address.py) a connection is in is changed here only.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final, NamedTuple

from sidecar.core.errors import Retry, UpstreamError, UpstreamReason
from sidecar.core.http.forward import UpstreamHead
from sidecar.core.http.response import ResponseHead
from sidecar.edge.http1.address import Address, HeadSettings, apply_settings
from sidecar.edge.http1.connecting import connect, connect_error
from sidecar.edge.http1.names import Names
from sidecar.edge.http1.upstream import CLOSED, Owner, UpstreamLeg, customer_of
from sidecar.ports import Caller

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
FAILURES_TO_EJECT: Final = 3
EJECTED_S: Final = 5.0
EJECTED_MAX_S: Final = 60.0
CLOSING_S: Final = 30.0  # for the last bytes of a tunnel whose upstream does not read
_AS_SENT: Final = HeadSettings()


class PoolLimits(NamedTuple):
    """Seconds, and connections per address."""

    connect_s: float = 3.0
    first_byte_s: float = 60.0
    between_bytes_s: float = 60.0
    total_s: float = 3600.0
    idle_s: float = 4.0  # shorter than the keep-alive of servers: Node.js closes after 5 s
    connections: int = 1024
    per_customer: int = 1024  # of them


class Pool(Owner):
    """`ports.Upstream` over TCP or TLS. `make_leg(pool, address)` builds the protocol of one connection."""

    def __init__(
        self,
        name: str,
        urls: list[str],
        make_leg: Callable[[Pool, Address], UpstreamLeg],
        *,
        limits: PoolLimits | None = None,
        tls: ssl.SSLContext | None = None,
        heads: HeadSettings = _AS_SENT,
    ) -> None:
        self.name = name
        self.limits = limits or PoolLimits()
        self.first_byte_s = self.limits.first_byte_s
        self.between_bytes_s = self.limits.between_bytes_s
        self.total_s = self.limits.total_s
        self.now = 0.0
        self.heads: dict[bytes, ResponseHead] = {}
        self.attempts = self.retries = self.ejections = self.share_refusals = 0
        self._addresses = [Address(url) for url in urls]
        self._retired: list[Address] = []  # no longer of their name, with connections that still end
        self._names = Names(name, self._addresses, self.take_resolved)
        self._make_leg = make_leg
        self.renew(tls, heads)
        self._turn = 0

    def renew(self, tls: ssl.SSLContext | None, heads: HeadSettings) -> None:
        """Use these from now on: certificates for new connections, head settings for the next requests."""
        self.tls = tls
        apply_settings(list({address.origin: None for address in self._all()}), heads)

    def take_resolved(self, origin: Address, ips: list[str]) -> None:
        """Use these addresses of a name from now on; others are retired: their open exchanges go on to their end."""
        current = {address.ip: address for address in self._addresses if address.origin is origin}
        addresses: list[Address] = []
        for address in self._addresses:
            if address.origin is not origin:
                addresses.append(address)
            elif address.ip == next(iter(current)):  # in the place of the first
                addresses += [current.get(ip) or Address(origin.url, ip, origin) for ip in ips]
        self._retired += [address for ip, address in current.items() if ip not in ips]
        self._addresses = addresses

    def _all(self) -> list[Address]:
        return [*self._addresses, *self._retired] if self._retired else self._addresses

    @property
    def failed_look_ups(self) -> int:
        """How often a name could not be resolved."""
        return self._names.failures

    @property
    def connections(self) -> int:
        """The number of connections to all addresses: opening, busy, idle or closing."""
        return sum(address.used + len(address.closing) for address in self._all())

    @property
    def idle_connections(self) -> int:
        """The number of idle connections."""
        return sum(len(address.idle) for address in self._all())

    # Called by the gateway.

    def send(self, head: UpstreamHead, caller: Caller) -> None:
        """Send the request on an idle connection, or open a new one."""
        self._send(self._pick(), head, caller, attempt=1)

    def forget(self, caller: Caller) -> None:
        """The caller has ended before it got a connection."""
        for address in self._all():
            task = address.connecting.pop(caller, None)
            if task is not None:
                task.cancel()

    def _send(self, address: Address, head: UpstreamHead, caller: Caller, *, attempt: int) -> None:
        """Send on an idle connection or open one; a second attempt opens one, since idle ones may be closed too."""
        self.attempts += 1
        most = self.limits.per_customer
        if most <= len(address.busy) + len(address.connecting) and most <= _used_by(address, customer_of(caller)):
            self.share_refusals += 1
            detail = f"this customer has all of its {most} connections to upstream {self.name!r} in use"
            caller.on_upstream_failed(UpstreamError(UpstreamReason.SHARE, detail))
            return
        idle = address.idle
        while idle and (attempt == 1 or address.used >= self.limits.connections):
            leg = idle.pop()  # the most recently used, so that the others can time out
            if not leg.closed and not leg.transport.is_closing():
                address.busy.add(leg)
                leg.start(head, caller, attempt)
                return
            self._close(address, leg)  # the upstream has closed it; the loop reports that in its next iteration
        if address.used >= self.limits.connections:
            detail = f"upstream {self.name!r} has all of its {address.used} connections in use; see `pool.size`"
            caller.on_upstream_failed(UpstreamError(UpstreamReason.SATURATED, detail))
            return
        task = asyncio.get_running_loop().create_task(self._connect(address, head, caller, attempt))
        address.connecting[caller] = task

    def _pick(self, avoid: Address | None = None) -> Address:
        """The next address in turn that is not ejected; `avoid`, which has just failed, only if there is no other."""
        addresses = self._addresses
        count = len(addresses)
        self._turn = (self._turn + 1) % count
        for step in range(count):
            address = addresses[(self._turn + step) % count]
            if address is not avoid and address.ejected_until <= self.now:
                return address
        return addresses[self._turn if addresses[self._turn] is not avoid else (self._turn + 1) % count]

    async def _connect(self, address: Address, head: UpstreamHead, caller: Caller, attempt: int) -> None:
        """Open a connection for `caller`. The task is in `connecting`; `forget` and `aclose` cancel it."""
        try:
            async with asyncio.timeout(self.limits.connect_s):
                leg = await connect(address, lambda: self._make_leg(self, address), self.tls)
        except Exception as error:  # noqa: BLE001 - also a host name that IDNA refuses; the caller needs an answer
            address.connecting.pop(caller, None)
            self._not_connected(address, head, caller, error, attempt)
            return
        address.connecting.pop(caller, None)
        if leg.closed or leg.transport.is_closing():  # accepted and closed already, which is not reported again
            self._close(address, leg)
            self._blame(address)
            gone = UpstreamError(UpstreamReason.DROPPED, CLOSED)
            self._again_or_fail(address, head, caller, gone, attempt)
            return
        address.busy.add(leg)
        leg.start(head, caller, attempt)

    def _not_connected(
        self, address: Address, head: UpstreamHead, caller: Caller, error: Exception, attempt: int
    ) -> None:
        failure = connect_error(self.name, error)
        if failure.reason is not UpstreamReason.SATURATED:
            self._blame(address)
            self._names.resolve_soon()
        self._again_or_fail(address, head, caller, failure, attempt)

    # Called by connections.

    def release(self, leg: UpstreamLeg, *, reusable: bool) -> None:
        address = leg.address
        address.busy.discard(leg)
        if reusable:
            address.failures = address.ejections = 0
            leg.idle_since = self.now
            address.idle.append(leg)
        else:
            if leg in address.idle:
                address.idle.remove(leg)
            self._close(address, leg)

    def remove(self, leg: UpstreamLeg) -> None:
        address = leg.address
        address.busy.discard(leg)
        address.closing.discard(leg)
        if leg in address.idle:
            address.idle.remove(leg)

    def _close(self, address: Address, leg: UpstreamLeg) -> None:
        """Count the connection as closing, by either side, until the loop reports it as lost."""
        if not leg.lost:
            leg.idle_since = self.now
            address.closing.add(leg)

    def lost(self, leg: UpstreamLeg, caller: Caller, error: UpstreamError, *, untouched: bool) -> None:
        address, head = leg.address, leg.head
        is_repeatable = untouched and error.reason.retry is Retry.IDEMPOTENT
        is_stale = is_repeatable and leg.served > 1
        if untouched and not is_stale:  # closing an idle connection is not a failure
            self._blame(address)
        has_other = len(self._addresses) > 1 and head.length == 0
        if not (is_repeatable and (is_stale or has_other) and leg.attempt == 1 and head.method in IDEMPOTENT) or (
            not caller.replayable()
        ):
            caller.on_upstream_failed(error)
            return
        if is_stale:
            for idle in list(address.idle):  # they may be closed too
                idle.cancel()
        self.retries += 1
        caller.on_retry()
        self._send(self._pick(avoid=address) if has_other else address, head, caller, attempt=2)

    def _again_or_fail(
        self, failed: Address, head: UpstreamHead, caller: Caller, error: UpstreamError, attempt: int
    ) -> None:
        if attempt > 1 or error.reason.retry is not Retry.ALWAYS:
            caller.on_upstream_failed(error)
            return
        self.retries += 1
        self._send(self._pick(avoid=failed), head, caller, attempt=attempt + 1)

    def _blame(self, address: Address) -> None:
        address.failures += 1
        if address.failures >= FAILURES_TO_EJECT:
            address.failures = 0
            address.ejections += 1
            self.ejections += 1
            address.ejected_until = self.now + min(EJECTED_S * address.ejections, EJECTED_MAX_S)

    # Time and end.

    def check_deadlines(self, now: float, late_s: float = 0.0) -> None:
        """End busy connections past their deadline, and close idle ones before the server does.

        `late_s`: how late this call is. For so long nothing was read, so busy connections have as much longer.
        """
        self.now = now
        self._names.check(now)
        for address in self._retired:
            for leg in list(address.idle):
                leg.cancel()
        self._retired = [address for address in self._retired if address.used or address.closing]
        for address in self._all():
            for leg in list(address.busy):
                leg.check_deadline(now - late_s)
            while address.idle and now - address.idle[0].idle_since > self.limits.idle_s:
                address.idle[0].cancel()
            for leg in list(address.closing):
                if now - leg.idle_since > CLOSING_S:
                    leg.transport.abort()

    async def aclose(self) -> None:
        """Close every connection. Call it when no exchange is open, since callers are not notified."""
        await self._names.aclose()
        for address in self._all():
            tasks = list(address.connecting.values())
            address.connecting.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for leg in [*address.busy, *address.idle]:
                leg.cancel()
            for leg in list(address.closing):
                leg.transport.abort()


def _used_by(address: Address, customer: str) -> int:
    """The connections that a customer's exchanges use. Counted only where so many are in use that it may have them."""
    busy = [leg for leg in address.busy if leg.customer == customer]
    return len(busy) + len([caller for caller in address.connecting if customer_of(caller) == customer])
