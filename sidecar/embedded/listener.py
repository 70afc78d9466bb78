"""Answers questions and changes of the state of a node without Redis, by its worker, over a socket beside its journal.

A request and its answer are lines of JSON. A change is in the journal before it is answered, so it is as durable as
records are (`journal.durability`). Any process that may open the socket (mode 0600) may change the state, as with the
files themselves. While no worker runs, `access.stopped` changes the files.

    {"do": "void", "customer": "acme", "unit": "credits", "grant": "g1"}
    {"done": "void", "moved": 70000000000, "now_us": 1764547200000000, "wallet": […]}
    {"do": "values", "keys": ["sc:{acme}:q=monthly:cacme:2026-11"]}
    {"values": [41]}
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson

from sidecar.core.errors import StoreError, StoreReason
from sidecar.embedded.requests import LINE_BYTES as REQUEST_BYTES
from sidecar.embedded.requests import read_request
from sidecar.embedded.state import EmbeddedState

Json = dict[str, Any]
Ask = Callable[[Json], Awaitable[Json]]

SOCKET: Final = "state.sock"
LINE_BYTES: Final = 64 << 20  # a ledger of ten thousand postings has two megabytes
ANSWER_S: Final = 10.0
_NOT_WRITTEN: Final = "the journal does not take it"
log = logging.getLogger("sidecar.state")


class StateListener:
    """Answers other processes. `accepting()`: the journal takes entries."""

    def __init__(self, state: EmbeddedState, folder: Path, accepting: Callable[[], bool]) -> None:
        self._state = state
        self._folder = folder
        self._accepting = accepting
        self._server: asyncio.Server | None = None
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._answering: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. OSError: the socket cannot be created."""
        (self._folder / SOCKET).unlink(missing_ok=True)  # left by a killed worker, since this one owns the folder
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        os.fchmod(listening.fileno(), 0o600)
        with _short(self._folder) as path:
            listening.bind(path)
        self._server = await asyncio.start_unix_server(self._accept, sock=listening, limit=REQUEST_BYTES)

    async def aclose(self) -> None:
        """Stop listening, and answer the requests that were received."""
        if self._server is not None:
            self._server.close()
            (self._folder / SOCKET).unlink(missing_ok=True)
        for task, writer in self._serving.items():
            if task not in self._answering:
                writer.transport.abort()  # its reader sees the end
        if self._serving:
            await asyncio.wait(self._serving, timeout=ANSWER_S)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="state request")
        self._serving[task] = writer
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._serving[task]
        self._answering.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, TimeoutError):
                answer = await self._read_and_answer(reader)
                if answer is not None:
                    writer.write(orjson.dumps(answer, default=tuple) + b"\n")  # named tuples
                    async with asyncio.timeout(ANSWER_S):
                        await writer.drain()
        finally:
            await _closed(writer)

    async def _read_and_answer(self, reader: asyncio.StreamReader) -> Json | None:
        """The answer to the line that comes within ANSWER_S; None: the client only connected (`is_answering`)."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - see `_accept`
        try:
            async with asyncio.timeout(ANSWER_S):
                line = await reader.readline()
        except ValueError:  # longer than REQUEST_BYTES
            return {"failed": f"the request is longer than {REQUEST_BYTES} bytes", "maybe_applied": False}
        self._answering.add(task)
        return await self._answer(line) if line else None

    async def _answer(self, line: bytes) -> Json:
        try:
            request = read_request(line)
            answer = self._state.answer(request)
            if answer is not None:
                return answer
            if not self._accepting():
                return {"failed": f"{_NOT_WRITTEN}: its disk or journal.cap is full", "maybe_applied": False}
            done: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
            self._state.change(
                request, done.set_result, lambda: done.set_result({"failed": _NOT_WRITTEN, "maybe_applied": True})
            )
            return await done
        except ValueError as error:
            return {"failed": f"the request is invalid: {error}", "maybe_applied": False}
        except Exception:
            log.exception("a request to the state failed")
            return {"failed": "the worker failed: its log says why", "maybe_applied": True}


def checked(answer: Json) -> Json:
    """The answer. StoreError: it says that the change failed, or may have been made (`maybe_applied`)."""
    if "failed" in answer:
        raise StoreError(answer["failed"], StoreReason.NO_REPLY if answer["maybe_applied"] else StoreReason.AWAY)
    return answer


async def is_answering(folder: Path) -> bool:
    """Whether a worker listens on the socket in `folder`."""
    try:
        with _short(folder) as path:
            _, writer = await asyncio.open_unix_connection(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    await _closed(writer)
    return True


async def ask_worker(folder: Path, request: Json) -> Json:
    """Send a request to the worker that owns `folder`. StoreError: it did not answer."""
    try:
        with _short(folder) as path:
            reader, writer = await asyncio.open_unix_connection(path, limit=LINE_BYTES)
    except OSError as error:
        raise StoreError(f"the worker does not answer: {error.strerror}") from None
    try:
        writer.write(orjson.dumps(request, default=tuple) + b"\n")
        async with asyncio.timeout(ANSWER_S):
            line = await reader.readline()
    except (OSError, TimeoutError) as error:
        reason = getattr(error, "strerror", None) or f"no answer within {ANSWER_S:g} s"
        raise StoreError(f"the worker did not answer: {reason}", StoreReason.NO_REPLY) from None
    finally:
        await _closed(writer)
    if not line:
        raise StoreError("the worker did not answer: it has ended", StoreReason.NO_REPLY)
    answer: Json = orjson.loads(line)
    return answer


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


class _short:  # noqa: N801 - a context manager, used as a function
    """A path to the socket that is short enough for an address with any folder name. Valid within the block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = -1

    def __enter__(self) -> str:
        self._fd = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._fd}/{SOCKET}"

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
