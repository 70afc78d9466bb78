"""Accepts the connections of clients while this worker may have more of them; the others wait in the kernel's queue.

Nobody is refused: where `most` connections are open, or this process has no descriptor left, accepting is paused, and
`check` resumes it as soon as there is room. While connections wait, idle ones are closed: else one client could keep
all others out with connections on which it asks for nothing. The sockets are read here and not by the loop's own
server, which would accept the whole queue at once, and which closes connections where descriptors run out (uvloop).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import select
import socket
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple, Protocol

ACCEPTED_AT_ONCE = 8  # in one turn of the loop: the exchanges under way have their turn as well
CLOSED_IN_A_CHECK = 8, 64  # idle connections: at first; at most, where connections still have to wait
CLOSED_AT_ONCE = 4  # of these: closing them, and what is accepted in their place, must not hold up others
CLOSED_EVERY_S = 0.006  # so that all are closed before the next check
HANDSHAKE_S = 1.0  # a handshake that takes longer makes room
LINE_EVERY_S = 60.0  # for each reason
FULL, NO_DESCRIPTORS = "max_connections", "descriptors"
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_WHY = {
    FULL: "http.max_connections (%d) are open: new connections wait until others end",
    NO_DESCRIPTORS: "no descriptors left (%d connections are allowed): raise the limit of open files of this process",
}
log = logging.getLogger("sidecar.connections")


class Idle(Protocol):
    """A connection that waited for a request when it was chosen."""

    def close_idle(self) -> bool:
        """Close it, unless it has a request by now. Returns whether it is closed."""


class _Handshake:
    """A connection that is being set up, since `since_s`; over TLS its client may take its time."""

    def __init__(self, sock: socket.socket, protocol: asyncio.Protocol, since_s: float) -> None:
        self.protocol = protocol
        self.since_s = since_s
        self._sock = sock

    def close_idle(self) -> bool:
        try:
            self._sock.shutdown(socket.SHUT_RDWR)  # the loop has the descriptor, and sees its end
        except OSError:
            return False
        return True


class Clients(NamedTuple):
    """`make` makes the protocol of a connection, `handshake` returns the TLS arguments of the loop.

    `connected` has the protocols of the connections whose handshake is over; `most` bounds their number.
    `idle` returns up to so many that wait for a request, the first to be closed first.
    """

    make: Callable[[], asyncio.Protocol]
    handshake: Callable[[], dict[str, Any]]
    connected: Collection[Any]
    most: int
    idle: Callable[[int], Iterable[Idle]]


class Acceptor:
    """Accepts from the listening sockets that it is given, and sets up the connections.

    `counts`: how often, and for how many µs, accepting was paused, by reason; idle connections that were closed.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._sockets: list[socket.socket] = []
        self._joining: dict[asyncio.Task[Any], _Handshake] = {}
        self._paused = ""  # the reason
        self._paused_s = 0.0  # the time until which the pause is counted
        self._next_line_s: dict[str, float] = {}
        self.counts = {f"{name}|{reason}": 0 for name in ("accept_pauses", "accept_paused_us") for reason in _WHY}
        self.counts["idle_closed"] = 0
        self._to_close = CLOSED_IN_A_CHECK[0]
        self._idle: deque[Idle] = deque()  # to be closed

    @property
    def most(self) -> int:
        """The number of connections that may be open at once."""
        return self._clients.most

    @property
    def number(self) -> int:
        """The open connections, those in their TLS handshake among them."""
        connected = self._clients.connected
        return len(connected) + len([each for each in self._joining.values() if each.protocol not in connected])

    def listen(self, sock: socket.socket) -> None:
        """Accept from this socket."""
        self._sockets.append(sock)
        if not self._paused:
            asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    def leave(self, sock: socket.socket) -> None:
        """Accept no more from this socket. Connections that wait there stay."""
        self._sockets.remove(sock)
        asyncio.get_running_loop().remove_reader(sock)

    def join(self, connection: socket.socket) -> None:
        """Set up an accepted connection."""
        connection.setblocking(False)
        protocol, loop = self._clients.make(), asyncio.get_running_loop()
        setting_up = loop.connect_accepted_socket(lambda: protocol, connection, **self._clients.handshake())
        task = loop.create_task(setting_up, name="join")
        self._joining[task] = _Handshake(connection, protocol, loop.time())
        task.add_done_callback(self._joined)

    def joining(self) -> list[asyncio.Task[Any]]:
        """The tasks that set up connections now."""
        return list(self._joining)

    def check(self, now_s: float) -> None:
        """Make room where connections wait, and resume where there is room. Call it a few times a second."""
        if not self._paused:
            return
        self._count_pause(now_s)
        if not self._has_waiting():
            self._to_close = CLOSED_IN_A_CHECK[0]
        elif not self._idle and (self._paused == NO_DESCRIPTORS or self.number >= self._clients.most):
            self._idle.extend(self._to_be_closed(now_s))
            self._to_close = min(2 * self._to_close, CLOSED_IN_A_CHECK[1])
            self._close_idle()
        asyncio.get_running_loop().call_soon(self._resume)  # the loop has removed what was closed by then

    def _to_be_closed(self, now_s: float) -> list[Idle]:
        """Those that are to be closed: handshakes that have taken long, the oldest first, and then idle connections."""
        connected, number = self._clients.connected, self._to_close
        slow = [
            each
            for each in self._joining.values()
            if each.since_s <= now_s - HANDSHAKE_S and each.protocol not in connected
        ]
        return [*slow[:number], *self._clients.idle(number - min(number, len(slow)))]

    def _close_idle(self) -> None:
        """Close the next idle connections, as long as others wait for their places."""
        if not self._paused:
            self._idle.clear()
            return
        for _ in range(min(CLOSED_AT_ONCE, len(self._idle))):
            self.counts["idle_closed"] += self._idle.popleft().close_idle()
        asyncio.get_running_loop().call_soon(self._resume)
        if self._idle:
            asyncio.get_running_loop().call_later(CLOSED_EVERY_S, self._close_idle)

    def _has_waiting(self) -> bool:
        """Whether a connection waits in the kernel's queue."""
        waiting = select.poll()
        for sock in self._sockets:
            waiting.register(sock, select.POLLIN)
        return bool(waiting.poll(0))

    def _resume(self) -> None:
        if self._paused and self.number < self._clients.most:
            self._paused = ""
            for sock in self._sockets:
                asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            if self._is_full():
                return self._pause(FULL)
            try:
                connection, _ = sock.accept()
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno in _OURS:
                    return self._pause(NO_DESCRIPTORS)
                continue  # this client is gone again (accept(2))
            self.join(connection)
        return None

    def _is_full(self) -> bool:
        """As `number` says; the sum is never less, and quick."""
        most = self._clients.most
        return len(self._clients.connected) + len(self._joining) >= most and self.number >= most

    def _joined(self, task: asyncio.Task[Any]) -> None:
        del self._joining[task]
        if not task.cancelled():
            task.exception()  # a handshake that fails is the client's

    def _pause(self, reason: str) -> None:
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            loop.remove_reader(sock)
        self._paused, self._paused_s = reason, loop.time()
        self.counts[f"accept_pauses|{reason}"] += 1
        if self._paused_s >= self._next_line_s.get(reason, 0.0):
            self._next_line_s[reason] = self._paused_s + LINE_EVERY_S
            log.warning(_WHY[reason], self._clients.most)

    def _count_pause(self, now_s: float) -> None:
        self.counts[f"accept_paused_us|{self._paused}"] += max(0, round((now_s - self._paused_s) * 1_000_000))
        self._paused_s = now_s
