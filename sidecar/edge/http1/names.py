"""The addresses that the hosts of an upstream resolve to: looked up beside requests, never for one.

A host that resolves to several addresses gets requests at all of them, in turn. They are looked up every ten seconds,
and soon after a connection failed; those of the last answer count. Where the name server does not answer, the addresses
stay as they are. Until the first answer a connection is made by name.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence

from sidecar.edge.http1.address import Address

EVERY_S = 10.0
AGAIN_S = 1.0

log = logging.getLogger("sidecar.upstreams")


async def look_up(host: str, port: int) -> list[str]:
    """The addresses of a host, each once, in the order of the system's preference. OSError: it cannot be resolved."""
    answers = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
    return list({str(answer[4][0]): None for answer in answers})


class Names:
    """The names of one upstream. `take(address, ips)` is called with each answer."""

    def __init__(self, upstream: str, addresses: Sequence[Address], take: Callable[[Address, list[str]], None]) -> None:
        self.failures = 0
        self.look_up: Callable[[str, int], Awaitable[list[str]]] = look_up
        self._upstream = upstream
        self._named = [address for address in addresses if address.is_name]
        self._take = take
        self._due_s = self._earliest_s = 0.0
        self._failed: set[str] = set()
        self._resolved: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def check(self, now: float) -> None:
        """Look the names up where that is due; `now` is the loop's time, s."""
        if self._named and now >= self._due_s and (self._task is None or self._task.done()):
            self._due_s, self._earliest_s = now + EVERY_S, now + AGAIN_S
            self._task = asyncio.get_running_loop().create_task(self._resolve())

    def resolve_soon(self) -> None:
        """A connection failed: its address may be of a server that was replaced."""
        self._due_s = min(self._due_s, self._earliest_s)

    async def aclose(self) -> None:
        """Stop looking up."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _resolve(self) -> None:
        for address in self._named:
            try:
                ips = await self.look_up(address.host, address.port)
            except (OSError, UnicodeError) as error:
                self.failures += 1
                if address.host not in self._failed:
                    self._failed.add(address.host)
                    log.warning(
                        "upstream %s: the host %s cannot be resolved (%s): %s",
                        self._upstream, address.host, getattr(error, "strerror", None) or error,
                        "its last addresses stay in use" if address.host in self._resolved
                        else f"requests to it are answered 502; check upstreams.{self._upstream}.urls",
                    )  # fmt: skip
                continue
            if address.host in self._failed:
                self._failed.discard(address.host)
                log.info("upstream %s: the host %s can be resolved again", self._upstream, address.host)
            self._resolved.add(address.host)
            self._take(address, ips)
