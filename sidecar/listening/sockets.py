"""The node's listening sockets. The supervisor owns them; workers accept connections from them.

The sockets stay open when a worker or the supervisor dies: connections wait in the kernel's queue until the next worker
accepts them, and none is refused. Each worker has its own sockets (SO_REUSEPORT), because the kernel distributes
connections evenly over sockets. On a shared socket the process that wakes first would accept all that are waiting.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final

from sidecar.config.addresses import Address
from sidecar.core.errors import SidecarError
from sidecar.listening.accepting import Acceptor

BACKLOG = 4096
LET_GO_SECONDS = 2
_REMEDIES: Final = {
    errno.EADDRINUSE: ": end the process that listens there, or set another address",
    errno.EADDRNOTAVAIL: ": set an address of this machine",
    errno.EACCES: ": set a port above 1023, or permit this user the port",
}


def bind(setting: str, addresses: Sequence[Address], workers: int) -> list[list[socket.socket]]:
    """The sockets of each worker for the `addresses` of `setting`: bound, and not listening yet.

    SidecarError: another process uses an address, or this host does not have it. With SO_REUSEPORT two nodes would
    share a port unnoticed, so each address is first bound without it. Workers of a node that was just killed may hold
    a port a moment longer, so binding is retried for LET_GO_SECONDS.
    """
    deadline = time.monotonic() + LET_GO_SECONDS
    by_worker: list[list[socket.socket]] = [[] for _ in range(workers)]
    with ExitStack() as on_failure:
        for address in addresses:
            for sockets, more in zip(by_worker, _bind_by(deadline, setting, address, workers), strict=True):
                sockets.extend(map(on_failure.enter_context, more))
        on_failure.pop_all()
    return by_worker


def _bind_by(deadline: float, setting: str, address: Address, workers: int) -> list[list[socket.socket]]:
    while True:
        try:
            return _bind(address, workers)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise _refused(setting, address, error) from None
        time.sleep(0.1)


def _bind(address: Address, workers: int) -> list[list[socket.socket]]:
    port = address.port
    by_worker: list[list[socket.socket]] = [[] for _ in range(workers)]
    with ExitStack() as on_failure:
        for family, where in _resolved(address):
            with _bound(family, where, port, shared=False) as exclusive:  # fails if another process has the port
                port = exclusive.getsockname()[1]
            for sockets in by_worker:
                sockets.append(on_failure.enter_context(_bound(family, where, port, shared=workers > 1)))
        on_failure.pop_all()
    return by_worker


def _resolved(address: Address) -> Iterable[tuple[int, tuple[Any, ...]]]:
    """The families and socket addresses of `address`. One IPv6 socket serves both families, where there is IPv6."""
    if not address.host:
        return [(socket.AF_INET6, ("",)) if socket.has_dualstack_ipv6() else (socket.AF_INET, ("0.0.0.0",))]
    infos: list[Any] = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return dict.fromkeys((family, where) for family, _, _, _, where in infos)


def _bound(family: int, address: tuple[Any, ...], port: int, *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, bool(address[0]))  # off for "" alone
        sock.bind((address[0], port, *address[2:]))
    except OSError:
        sock.close()
        raise
    return sock


def listen(setting: str, sockets: Iterable[socket.socket]) -> None:
    """From now on connections wait for the first worker. SidecarError: another socket listens on the address."""
    for each in sockets:
        try:
            each.listen(BACKLOG)
        except OSError as error:
            raise _refused(setting, address_of(each), error) from None


def address_of(sock: socket.socket) -> Address:
    """The address that a socket is bound to, as settings have it."""
    host, port = sock.getsockname()[:2]
    serves_both = sock.family == socket.AF_INET6 and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return Address("" if serves_both else host, port)


def location(address: Address, scheme: str) -> str:
    """An address for the start-up lines: what a wildcard stands for, and a URL that can be opened."""
    return f"{address.scope}{': ' if address.scope else ''}{address.url(scheme)}"


def _refused(setting: str, address: Address, error: OSError) -> SidecarError:
    return SidecarError(f"{setting}: {address} cannot be bound: {error.strerror}{_REMEDIES.get(error.errno or 0, '')}")


class Listeners:
    """The listening sockets of one worker. `own` are its own, `others` those of the other workers.

    `cover` accepts from other workers' sockets while their worker does not.
    """

    def __init__(self, own: Sequence[int], others: Sequence[int], acceptor: Acceptor) -> None:
        self._own = own
        self._others = others
        self._acceptor = acceptor
        self._open: dict[int, socket.socket] = {}
        self._closed = False

    def open(self) -> str:
        """Accept from our own sockets. Returns their addresses, with commas."""
        for fd in self._own:
            self._serve(fd)
        return ", ".join(str(address_of(self._open[fd])) for fd in self._own)

    def cover(self, fds: Iterable[int], *, on: bool) -> None:
        """Start or stop accepting from these sockets of another worker. Connections that wait there stay."""
        for fd in fds:
            if on:
                self._serve(fd)
            elif fd in self._open:
                sock = self._open.pop(fd)
                self._acceptor.leave(sock)
                sock.close()

    def close(self, *, for_good: bool) -> list[asyncio.Task[Any]]:
        """Stop accepting. `for_good`: no worker serves this port after us.

        If so, the connections in the kernel's queue are accepted, since their clients are connected, and the sockets
        are shut down in every process, so that later connections are refused. Else they wait for the next worker.
        Returns the tasks that set up connections now.
        """
        self._closed = True
        for sock in self._open.values():
            self._acceptor.leave(sock)
            for connection in shut(sock) if for_good else ():
                self._acceptor.join(connection)
            sock.close()
        self._open.clear()
        for fd in self._others if for_good else ():
            os.close(fd)  # an orphan must not hold the port of a worker that is gone
        return self._acceptor.joining()

    def _serve(self, fd: int) -> None:
        if self._closed or fd in self._open:
            return
        sock = socket.socket(fileno=os.dup(fd))
        sock.setblocking(False)
        sock.listen(BACKLOG)
        self._open[fd] = sock
        self._acceptor.listen(sock)


def shut(sock: socket.socket) -> list[socket.socket]:
    """Refuse new connections in every process that holds this socket. Returns those of its queue, accepted."""
    accepted: list[socket.socket] = []
    sock.listen(0)  # new connections do not enter the queue: their clients retry, and are refused
    with suppress(OSError):  # the queue is empty, or there is no descriptor left: the drain has to go on
        while True:
            accepted.append(sock.accept()[0])
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    return accepted
