"""Large heads are read one at a time: one in every other turn of the event loop, and of each client in its turn.

A path of 8 kB of which each byte is encoded takes a hundred times as long to read as an ordinary head, before any key
is looked up. Without a queue, each turn would read one such head of each connection that sends them, and every other
client would wait for all of them.

Example: one client sends large heads on 4 connections, another on 1. They are read in the turns 1 (first client), 3
(second client), 5, 7 and 9. Ordinary heads are read in each turn, as they arrive.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from sidecar.edge.http1.peers import client_of

if TYPE_CHECKING:
    from sidecar.edge.http1.downstream import Downstream

LARGE_BYTES: Final = 2048  # a shorter head is never large
LARGE_TARGET_BYTES: Final = 1024  # of the request line: its target costs most
LARGE_FIELDS_BYTES: Final = 8192  # of the whole head: fields cost less, and long cookies are common


class LargeHeads:
    """The connections whose large heads wait for their turn."""

    def __init__(self) -> None:
        self._waiting: dict[str | bytes, deque[Downstream]] = {}  # by client, the next one first
        self._read = False  # a large head was read in this turn, or in the one before

    def is_due(self, connection: Downstream, head: bytes) -> bool:
        """Whether this head may be read now. Else `connection.read_queued` is called in its turn."""
        if len(head) < LARGE_FIELDS_BYTES and head.find(b"\r\n", 2) < LARGE_TARGET_BYTES:
            return True
        if not self._read:
            self._read = True
            asyncio.get_running_loop().call_soon(self._rest)
            return True
        self._waiting.setdefault(client_of(connection.peer), deque()).append(connection)
        return False

    def _rest(self) -> None:
        """A turn without a large head: an ordinary request takes several turns, of which half are then short."""
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """Begin a turn: read the head of the connection that waits for longest, of the client whose turn it is."""
        self._read = False
        while self._waiting and not self._read:  # a connection that was closed meanwhile has no head
            client = next(iter(self._waiting))
            connections = self._waiting.pop(client)
            connection = connections.popleft()
            if connections:
                self._waiting[client] = connections
            connection.read_queued()
