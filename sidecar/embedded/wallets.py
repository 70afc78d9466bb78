"""Wallets of a node without Redis, changed by its worker on requests over a socket beside its journal.

A request and its answer are lines of JSON. A change is in the journal before it is answered, so it is as durable as
records are (`journal.durability`). Any process that may open the socket (mode 0600) may change wallets, as with the
files themselves. While no worker runs, `lifecycle.stopped` changes the files.

    {"do": "void", "customer": "acme", "unit": "credits", "grant": "g1"}
    {"done": "void", "moved": 70000000000, "now_us": 1764547200000000, "wallet": […]}
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson

from sidecar.core.errors import StoreError, StoreReason
from sidecar.core.price.book import Change, Posted, WalletSnapshot
from sidecar.core.price.wallet import Grant, Wallet
from sidecar.embedded.state import EmbeddedState, wallet_of

Json = dict[str, Any]

SOCKET: Final = "wallets.sock"
LINE_BYTES: Final = 64 << 20  # a ledger of ten thousand postings has two megabytes
ANSWER_S: Final = 10.0
_NOT_WRITTEN: Final = "the journal does not take it"


class WalletListener:
    """Answers `EmbeddedWallet` of other processes. `accepting()`: the journal takes entries."""

    def __init__(self, state: EmbeddedState, folder: Path, accepting: Callable[[], bool]) -> None:
        self._state = state
        self._folder = folder
        self._accepting = accepting
        self._server: asyncio.Server | None = None
        self._answering: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. OSError: the socket cannot be created."""
        (self._folder / SOCKET).unlink(missing_ok=True)  # left by a killed worker, since this one owns the folder
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        os.fchmod(listening.fileno(), 0o600)
        with _short(self._folder) as path:
            listening.bind(path)
        self._server = await asyncio.start_unix_server(self._accept, sock=listening, limit=LINE_BYTES)

    async def aclose(self) -> None:
        """Stop listening, and answer the requests that were received."""
        if self._server is not None:
            self._server.close()
            (self._folder / SOCKET).unlink(missing_ok=True)
        if self._answering:
            await asyncio.wait(self._answering, timeout=ANSWER_S)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="wallets")
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            if line := await reader.readline():  # b"": `is_answering` connected
                writer.write(orjson.dumps(await self._answer(line), default=tuple) + b"\n")  # named tuples
                await writer.drain()
        await _closed(writer)

    async def _answer(self, line: bytes) -> Json:
        try:
            request = orjson.loads(line)
            if request["do"] == "read":
                return book_answer(self._state.read(request))
            if not self._accepting():
                return {"failed": f"{_NOT_WRITTEN}: its disk or journal.cap is full", "maybe_applied": False}
            done: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
            self._state.change(
                request,
                lambda made: done.set_result(answer_of(made)),
                lambda: done.set_result({"failed": _NOT_WRITTEN, "maybe_applied": True}),
            )
            return await done
        except (ValueError, KeyError, TypeError) as error:
            return {"failed": f"the request is invalid: {error}", "maybe_applied": False}


class EmbeddedWallet:
    """The wallet of a customer, as `RedisWallet`. `ask` sends a request to the worker.

    StoreError: the change failed, or there was no answer and it may have been made (`maybe_applied`).
    """

    def __init__(self, ask: Callable[[Json], Awaitable[Json]], customer: str, name: str) -> None:
        self._ask = ask
        self._whose = {"customer": customer, "unit": name}

    async def grant(self, grant: Grant) -> Change:
        """Add a grant; the worker sets `remaining` and `made_us`. Debt is paid first."""
        return _change_of(await self._request("grant", grant=grant))

    async def void(self, id: str) -> Change:
        """Remove the rest of a grant."""
        return _change_of(await self._request("void", grant=id))

    async def expire_grants(self) -> Change:
        """Remove expired grants and release overdue holds, as every other change does first."""
        return _change_of(await self._request("sweep"))

    async def read(self, postings: int = 0) -> WalletSnapshot:
        """The current wallet, with the last `postings` of its ledger."""
        return _book_of(await self._request("read", postings=postings))

    async def replace(self, book: WalletSnapshot, wallet: Wallet) -> bool:
        """Replace the wallet; False if something was posted since `book` was read."""
        last = book.postings[-1].place if book.postings else ""
        return bool((await self._request("replace", last=last, wallet=wallet))["replaced"])

    async def _request(self, do: str, **more: Any) -> Json:
        answer = await self._ask({"do": do, **self._whose, **more})
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


def answer_of(made: Change | bool) -> Json:
    """The result of a change, as JSON."""
    return {"replaced": made} if isinstance(made, bool) else made._asdict()


def book_answer(book: WalletSnapshot) -> Json:
    """A wallet with its ledger, as JSON."""
    return book._asdict()


def _change_of(answer: Json) -> Change:
    return Change(answer["done"], answer["moved"], answer["now_us"], wallet_of(answer["wallet"]))


def _book_of(answer: Json) -> WalletSnapshot:
    return WalletSnapshot(
        answer["now_us"],
        wallet_of(answer["wallet"]),
        answer["held"],
        {name: Grant(*figures) for name, figures in answer["granted"].items()},
        tuple(Posted(*each) for each in answer["postings"]),
    )
