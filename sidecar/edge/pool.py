"""The addresses of one named upstream: pooled connections, passive ejection, one safe retry.

An address that fails to connect, or closes without answering, a few times in a row is left out for a while; when all
are out, all are in again, since a guess is better than a certain 502. A request is sent again once at most, and only
where the first attempt cannot have been acted on, or the method is idempotent and its body is still held
(RFC 9110 §9.2.2).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final, NamedTuple, cast
from urllib.parse import urlsplit

from sidecar.core.errors import UpstreamError
from sidecar.core.http.request import Request
from sidecar.core.http.response import ResponseHead
from sidecar.ports import Caller, Connection, Owner

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
FAILURES_TO_EJECT: Final = 3
EJECTED_S: Final = 5.0
EJECTED_MAX_S: Final = 60.0


class PoolLimits(NamedTuple):
    """Seconds, and connections per address."""

    connect_s: float = 3.0
    first_byte_s: float = 60.0
    between_bytes_s: float = 60.0
    total_s: float = 3600.0
    idle_s: float = 4.0  # below what servers keep: Node closes after 5 s
    connections: int = 1024


class Address:
    """Where one server of the upstream listens, what is open to it, and how it has behaved. Bad URLs: ValueError."""

    __slots__ = ("ejected_until", "ejections", "failures", "host", "idle", "open", "path", "port", "tls", "url")

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path not in {"", "/"}:
            raise ValueError(f"{url!r} is not http://host:port or https://host:port")
        self.url = url
        self.tls = parts.scheme == "https"
        self.host = parts.hostname
        self.port = parts.port or (443 if self.tls else 80)
        self.idle: list[Connection] = []  # the last used last
        self.open = 0
        self.failures = 0
        self.ejections = 0
        self.ejected_until = 0.0


class Pool(Owner):
    """`ports.Upstream` over TCP or TLS. `make_leg(pool, address)` builds the protocol of one connection."""

    def __init__(
        self,
        name: str,
        urls: list[str],
        make_leg: Callable[[Pool, Address], Connection],
        *,
        limits: PoolLimits | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.name = name
        self.limits = limits or PoolLimits()
        self.first_byte_s = self.limits.first_byte_s
        self.between_bytes_s = self.limits.between_bytes_s
        self.total_s = self.limits.total_s
        self.now = 0.0
        self.heads: dict[bytes, ResponseHead] = {}
        self.attempts = self.retries = self.ejections = 0
        self._addresses = [Address(url) for url in urls]
        self._make_leg = make_leg
        self._tls = tls
        self._turn = 0
        self._busy: set[Connection] = set()
        self._connecting: dict[Caller, asyncio.Task[None]] = {}

    @property
    def connections(self) -> int:
        """Open connections to all addresses, idle ones included."""
        return sum(address.open for address in self._addresses)

    # What the gateway asks.

    def send(self, request: Request, head: bytes, caller: Caller) -> None:
        """Carry the request on an idle connection if there is one, else on a new one."""
        self._send(self._pick(), request, head, caller, attempt=1)

    def forget(self, caller: Caller) -> None:
        """The caller is gone before it had a connection."""
        task = self._connecting.pop(caller, None)
        if task is not None:
            task.cancel()

    def _send(self, address: Address, request: Request, head: bytes, caller: Caller, *, attempt: int) -> None:
        self.attempts += 1
        idle = address.idle
        while idle:
            leg = idle.pop()  # the last used: the others may close in peace
            if not leg.closed and not leg.transport.is_closing():
                self._busy.add(leg)
                leg.start(request, head, caller, attempt)
                return
        if address.open >= self.limits.connections:
            detail = f"upstream {self.name!r} has all of its {address.open} connections in use; see `pool.connections`"
            caller.on_upstream_failed(UpstreamError(503, "upstream-saturated", detail))
            return
        task = asyncio.get_running_loop().create_task(self._connect(address, request, head, caller, attempt))
        self._connecting[caller] = task

    def _pick(self, avoid: Address | None = None) -> Address:
        """The next in turn that is not ejected; `avoid` has just failed, so only if there is no other."""
        addresses = self._addresses
        count = len(addresses)
        self._turn = (self._turn + 1) % count
        for step in range(count):
            address = addresses[(self._turn + step) % count]
            if address is not avoid and address.ejected_until <= self.now:
                return address
        return addresses[self._turn if addresses[self._turn] is not avoid else (self._turn + 1) % count]

    async def _connect(self, address: Address, request: Request, head: bytes, caller: Caller, attempt: int) -> None:
        """Open a connection for `caller`. Owned by `_connecting`, and ended by `forget` or `aclose`."""
        address.open += 1
        try:
            async with asyncio.timeout(self.limits.connect_s):
                _, made = await asyncio.get_running_loop().create_connection(
                    lambda: cast("asyncio.BaseProtocol", self._make_leg(self, address)),
                    address.host,
                    address.port,
                    ssl=self._tls if address.tls else None,
                    server_hostname=address.host if address.tls else None,
                )
        except (OSError, TimeoutError) as error:
            address.open -= 1
            self._connecting.pop(caller, None)
            self._blame(address)
            self._again_or_fail(address, request, head, caller, self._unreachable(error), attempt)
            return
        except asyncio.CancelledError:
            address.open -= 1
            raise
        self._connecting.pop(caller, None)
        leg = cast("Connection", made)
        if leg.closed or leg.transport.is_closing():  # accepted and dropped: nobody would tell us a second time
            address.open -= 1
            self._blame(address)
            gone = UpstreamError(502, "upstream-closed", "the upstream closed the connection before it answered")
            self._again_or_fail(address, request, head, caller, gone, attempt)
            return
        self._busy.add(leg)
        leg.start(request, head, caller, attempt)

    def _unreachable(self, error: Exception) -> UpstreamError:
        if isinstance(error, TimeoutError):
            detail = f"upstream {self.name!r} did not accept a connection in `timeouts.connect`"
            return UpstreamError(504, "upstream-unreachable", detail)
        if isinstance(error, ssl.SSLCertVerificationError):
            detail = f"the certificate of upstream {self.name!r} is not trusted ({error.verify_message}); see `tls.ca`"
        elif isinstance(error, ssl.SSLError):
            detail = f"upstream {self.name!r} could not agree with us on TLS ({error.reason})"
        elif isinstance(error, socket.gaierror):
            detail = f"the host of upstream {self.name!r} is not known ({error.strerror})"
        else:
            detail = f"upstream {self.name!r} refused the connection"
        return UpstreamError(502, "upstream-unreachable", detail)

    # What the connections tell.

    def release(self, leg: Connection, *, reusable: bool) -> None:
        address: Address = leg.address
        known = leg in self._busy
        self._busy.discard(leg)
        if reusable:
            address.failures = address.ejections = 0
            leg.idle_since = self.now
            address.idle.append(leg)
            return
        if leg in address.idle:
            address.idle.remove(leg)
            known = True
        if known:
            address.open -= 1

    def lost(self, leg: Connection, caller: Caller, error: UpstreamError, *, untouched: bool) -> None:
        stale = untouched and leg.served > 1 and error.slug == "upstream-closed"
        if untouched and not stale:  # a server may close what is idle: that is no fault
            self._blame(leg.address)
        if stale and leg.attempt == 1 and leg.request.method in IDEMPOTENT and caller.replayable():
            for idle in list(leg.address.idle):  # its neighbours may be as dead: a fresh connection is the point
                idle.cancel()
            self.retries += 1
            caller.on_retry()
            self._send(leg.address, leg.request, leg.head, caller, attempt=2)
        else:
            caller.on_upstream_failed(error)

    def _again_or_fail(
        self, failed: Address, request: Request, head: bytes, caller: Caller, error: UpstreamError, attempt: int
    ) -> None:
        if attempt > 1:
            caller.on_upstream_failed(error)
            return
        self.retries += 1
        self._send(self._pick(avoid=failed), request, head, caller, attempt=attempt + 1)

    def _blame(self, address: Address) -> None:
        address.failures += 1
        if address.failures >= FAILURES_TO_EJECT:
            address.failures = 0
            address.ejections += 1
            self.ejections += 1
            address.ejected_until = self.now + min(EJECTED_S * address.ejections, EJECTED_MAX_S)

    # Time and end.

    def sweep(self, now: float) -> None:
        """The wheel's turn: deadlines of busy connections, idle ones closed before the server closes them."""
        self.now = now
        for leg in list(self._busy):
            leg.sweep(now)
        for address in self._addresses:
            while address.idle and now - address.idle[0].idle_since > self.limits.idle_s:
                address.idle[0].cancel()

    async def aclose(self) -> None:
        """Close every connection. To be called when no exchange is open: nobody is told."""
        for task in list(self._connecting.values()):
            task.cancel()
        await asyncio.gather(*self._connecting.values(), return_exceptions=True)
        for leg in [*self._busy, *(leg for address in self._addresses for leg in address.idle)]:
            leg.cancel()
