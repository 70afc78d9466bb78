"""A TCP proxy that spoils what passes: late, stalled, cut, or the answer lost. It only does what a network can do.

A lost answer is a swallowed answer and then a cut: TCP delivers no byte behind one that is missing.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from tests.servers.connections import abort_connections

if TYPE_CHECKING:
    from types import TracebackType

_CHUNK_BYTES = 65536


class FaultyProxy:
    """`async with FaultyProxy(port) as proxy`: connect to `proxy.port` instead. Faults are set while it runs.

    `delay_us` holds each answer back; `stalled` lets no byte through, either way, until it is set False again;
    `lose_replies` swallows that many answers, each with a cut (-1: all); `refuse` cuts new connections at once.
    `accepted` counts connections made, `open` those that are open now, `writes` the chunks read from clients.
    """

    def __init__(self, upstream_port: int, upstream_host: str = "127.0.0.1") -> None:
        self._upstream = (upstream_host, upstream_port)
        self._moving = asyncio.Event()
        self._moving.set()
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.delay_us = 0
        self.lose_replies = 0
        self.refuse = False
        self.accepted = 0
        self.writes = 0

    @property
    def open(self) -> int:
        return len(self._pairs)

    @property
    def stalled(self) -> bool:
        return not self._moving.is_set()

    @stalled.setter
    def stalled(self, value: bool) -> None:
        (self._moving.clear if value else self._moving.set)()

    def cut(self) -> None:
        """Reset every open connection."""
        for pair in tuple(self._pairs):
            for writer in pair:
                writer.transport.abort()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await abort_connections(self.port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.accepted += 1
        if self.refuse:
            writer.transport.abort()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, up_writer)
        self._pairs.add(pair)
        try:
            with suppress(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._requests(reader, up_writer))
                    group.create_task(self._replies(up_reader, writer))
        finally:
            self._pairs.discard(pair)
            for each in pair:
                each.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            self.writes += 1
            await self._moving.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

    async def _replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            if self.lose_replies:
                self.lose_replies -= self.lose_replies > 0
                break
            await asyncio.sleep(self.delay_us / 1e6)
            await self._moving.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError
