"""Hostile clients, one case each: `python -m benchmarks.attacks CASE PORT`, a process of its own.

It says `attacking` when the attack is under way, goes on until SIGTERM, and then prints what it did as JSON. Every case
is one client: it connects from one address, which is not that of other clients, and has one key, or none. What is
answered at once is asked again at once, and what is closed is opened again: no case is slower than it can be.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import resource
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import uvloop

from benchmarks.odd import ANSWERS

ADDRESS = ("127.0.0.2", 0)  # all of 127.0.0.0/8 is this machine's
KEY = "bench-attacker-7be05c1d93f2"
UPLOADS, UPLOAD_BYTES = 256, 300  # the bytes are those of a second: each is in time
FLOODS = 4  # connections of a case that asks as fast as it is answered
DRIPPING = 200  # connections that send blank lines, and as many with half a head
IDLE = 2_000
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)")
_KEY_FIELD = f"X-Api-Key: {KEY}\r\n"


class Connection(NamedTuple):
    """The two sides of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Attack:
    """What one client does to `port`. `done` counts what the case's `unit` names; `answers`: statuses, or `closed`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.done = self.open = 0
        self.answers: Counter[str] = Counter()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection; that it is closed is no error of the attack."""
        writer = None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=ADDRESS)
            self.open += 1
            yield Connection(reader, writer)
        except (OSError, EOFError):  # IncompleteReadError is an EOFError
            self.answers["closed"] += 1
            await asyncio.sleep(0.01)
        finally:
            if writer is not None:
                self.open -= 1
                writer.close()

    async def ask(self, requests: Iterator[bytes]) -> None:
        """Send each request when the one before is answered, on one connection as long as it is open."""
        while True:
            async with self.connection() as connection:
                while await self.exchange(connection, next(requests)):
                    self.done += 1

    async def exchange(self, connection: Connection, request: bytes) -> bool:
        """Send one request and read its answer. Returns whether the connection stays open."""
        connection.writer.write(request)
        head = (await connection.reader.readuntil(b"\r\n\r\n")).lower()
        self.answers[head[9:12].decode()] += 1
        if length := _LENGTH.search(head):
            await connection.reader.readexactly(int(length[1]))
        elif b"\r\ntransfer-encoding: chunked" in head:
            while size := int(await connection.reader.readline(), 16):
                await connection.reader.readexactly(size + 2)
            await connection.reader.readline()
        if b"\r\nconnection: close" in head:
            self.done += 1
            return False
        return True

    async def drip(self, first: bytes, data: bytes, every_s: float) -> None:
        """Send `first`, and then `data` again and again, until the connection is answered or `closed`."""
        while True:
            async with self.connection() as connection:
                await asyncio.sleep(random.random() * every_s)
                connection.writer.write(first)
                line = None
                while line is None:
                    connection.writer.write(data)
                    self.done += 1
                    line = await _line_within(connection.reader, every_s)
                self.answers[line[9:12].decode() or "closed"] += 1

    async def idle(self) -> None:
        """One request, so that the connection may wait for the next one, which never comes."""
        while True:
            async with self.connection() as connection:
                await self.exchange(connection, _head("GET", "/bench"))
                self.done += 1
                await connection.reader.read(1)


async def _line_within(reader: asyncio.StreamReader, seconds: float) -> bytes | None:
    """The line that comes until then; b"" at the end of the connection."""
    try:
        async with asyncio.timeout(seconds):
            return await reader.readline()
    except TimeoutError:
        return None


def _head(method: str, target: str, fields: str = "") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: api\r\n{fields}\r\n".encode()


def _unknown_keys() -> Iterator[bytes]:
    while True:
        yield _head("GET", "/bench", f"X-Api-Key: {secrets.token_hex(16)}\r\n")


def _uploads(attack: Attack) -> list[Coroutine[None, None, None]]:
    head = _head("POST", "/upload", _KEY_FIELD + "Content-Length: 10000000\r\n")
    return [attack.drip(head, b"x" * UPLOAD_BYTES, 1) for _ in range(UPLOADS)]


def _odd_answers(attack: Attack) -> list[Coroutine[None, None, None]]:
    return [attack.ask(itertools.cycle([_head("GET", f"/odd/{name}", _KEY_FIELD) for name in ANSWERS]))]


def _paths(attack: Attack) -> list[Coroutine[None, None, None]]:
    heads = [_head("GET", "/0" + "/a/.." * 1_600), _head("GET", "/" + ";" * 8_000), _head("GET", "/" + "%41" * 2_600)]
    return [attack.ask(itertools.cycle(heads)) for _ in range(FLOODS)]


def _drips(attack: Attack) -> list[Coroutine[None, None, None]]:
    blank = [attack.drip(b"", b"\r\n", 3) for _ in range(DRIPPING)]
    return blank + [attack.drip(b"GET /bench HTTP/1.1\r\n", b"X-A: b\r\n", 1) for _ in range(DRIPPING)]


def _keys(attack: Attack) -> list[Coroutine[None, None, None]]:
    return [attack.ask(_unknown_keys()) for _ in range(FLOODS)]


def _connections(attack: Attack) -> list[Coroutine[None, None, None]]:
    return [attack.idle() for _ in range(IDLE)]


class Case(NamedTuple):
    """`unit`: what is counted of it."""

    title: str
    unit: str
    start: Callable[[Attack], list[Coroutine[None, None, None]]]


CASES = {
    "uploads": Case("256 uploads of one key, 300 B/s each", "pieces", _uploads),
    "answers": Case("answers that take long to read, one connection", "answers", _odd_answers),
    "paths": Case("paths of 8 kB without a key, 4 connections", "sent", _paths),
    "drips": Case("blank lines and half heads, 400 connections", "pieces", _drips),
    "keys": Case("unknown keys, 4 connections", "sent", _keys),
    "connections": Case("2,000 idle connections, 1,000 are allowed", "opened", _connections),
}


async def attack(case: Case, port: int) -> None:
    """Attack until SIGTERM."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    client = Attack(port)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in case.start(client)]
        while not client.done:
            await asyncio.sleep(0.01)
        print("attacking", flush=True)
        begun_s, before = time.monotonic(), client.done
        await ended.wait()
        rate = round((client.done - before) / (time.monotonic() - begun_s), 1)
        print(json.dumps({"per_second": rate, "open": client.open, "answers": client.answers}), flush=True)
        for task in tasks:
            task.cancel()


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(attack(CASES[sys.argv[1]], int(sys.argv[2])))


if __name__ == "__main__":
    main()
