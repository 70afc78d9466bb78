"""The child protocol, and the child's end of it: JSON lines on a socket pair with the supervisor.

A child obeys the pipe alone. It ignores the signals that are meant for the node, and an end of file means that the
supervisor died: drain, then exit. The data path does not use this channel.

    supervisor → child   {"do": "start", …} once, first · {"do": "stats", "n": id}
                         {"do": "prepare" | "commit", "n": id, …} with the changed fields of the start message
                         {"do": "discard"} · {"do": "refused", "faults": […]}: a reload was refused
                         {"do": "drain", "seconds": s} · {"do": "abort"}
                         {"do": "cover", "fds": sockets, "on": bool}
    child → supervisor   {"ready": where} · {"not_ready": why} · {"away": what, "why": why} · {"back": what}
                         {"closed": why}: it accepts no more connections
                         {"pass_on": {…}}: to be in the start message of its successor
                         {"n": id, "stats": …} · {"n": id, "prepare" | "commit": {"faults": […], "version": …}}

A reload has two phases. `prepare`: build all that the staged documents need, and change nothing. `commit`, only after
every child has prepared: use it from now on; a child that cannot drains, and its successor starts with the committed
documents. So all children of a node use the same documents, whichever of them refuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import orjson

from sidecar.control.stats import WorkerStats
from sidecar.core.errors import PolicyError

Json = dict[str, Any]
LINE_BYTES = 16 << 20  # the figures of a policy with ten thousand routes are a few megabytes
LAST_MOMENT_SECONDS = 0.1  # for the last steps of a drain that used up its time
ORPHAN_SECONDS = 5  # beyond the drain, before the kernel ends a child whose supervisor is gone
log = logging.getLogger("sidecar.children")


class Reloads(Protocol):
    """The two phases of a reload. Each returns the policy's version."""

    async def prepare(self, staged: Json) -> str:
        """Build all that the staged documents need and change nothing. PolicyError: what is wrong with them.

        `staged` replaces what the start message held under the same names.
        """

    async def commit(self) -> str:
        """Use what was prepared from now on; without it, read the committed documents, and `Link.start`."""

    def discard(self) -> None:
        """Forget what was prepared."""


class Link:
    """The child's end. Made by `Link.open`; the child sets `on_stats` and `reloads`, then calls `ready`.

    `missed_commit` is set if documents were committed before `reloads` was set: the child has to read them again.
    `draining` is set when the child must finish within `drain_seconds`; `aborting` when it must finish at once.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._listener: asyncio.Task[None] | None = None
        self._reloading: set[asyncio.Task[None]] = set()
        self._latest: dict[str, Json] = {}
        self.start: Json = {}
        self.on_stats: Callable[[], WorkerStats] = WorkerStats
        self.reloads: Reloads | None = None
        self.missed_commit = False
        self.on_refused: Callable[[list[str]], None] = lambda _faults: None
        self.on_cover: Callable[[Sequence[int], bool], None] = lambda _fds, _on: None
        self.node_ends = False  # otherwise only this child ends, and a successor is started
        self.draining = asyncio.Event()
        self.is_orphan = False  # the supervisor died: another worker may already have replaced this one
        self.aborting = asyncio.Event()
        self.drain_seconds = 0
        self._drain_until = 0.0

    @classmethod
    async def open(cls, fd: int) -> Link:
        """Take over the inherited descriptor, and read the start message."""
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, signal.SIG_IGN)  # a terminal or an init signals the whole group: the supervisor decides
        reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=fd), limit=LINE_BYTES)
        link = cls(reader, writer)
        line = await reader.readline()
        link.start = orjson.loads(line) if line else {}
        link.drain_seconds = int(link.start.get("drain_seconds", 0))
        link._listener = asyncio.get_running_loop().create_task(link._listen())
        return link

    def ready(self, listening: str = "") -> None:
        """Report that the child works; `listening` are the addresses, with commas, that it accepts connections on."""
        self._send_if_new("ready", {"ready": listening})

    def not_ready(self, why: str) -> None:
        """Report that the child refuses work until it reports `ready`."""
        self._send_if_new("ready", {"not_ready": why})

    def closed(self, why: str) -> None:
        """Report that the child accepts no more connections; it may still finish open ones."""
        self._send_if_new("ready", {"closed": why})

    def pass_on(self, what: Json) -> None:
        """Add `what` to the start message of the child's successor."""
        self._send({"pass_on": what})

    def away(self, what: str, why: str) -> None:
        """Report that a dependency ("redis", "kafka") does not answer. The child continues as its policies say."""
        self._send_if_new(what, {"away": what, "why": why})

    def back(self, what: str) -> None:
        """Report that a dependency answers, also the first time: readiness at start waits for that."""
        self._send_if_new(what, {"back": what})

    async def within_drain(self, work: Awaitable[object]) -> bool:
        """Wait for `work`: True if it finishes, False if the drain's time ends or a second signal aborts it first.

        All calls share one `drain_seconds`: the supervisor waits no longer.
        """
        left = max(self._drain_until - asyncio.get_running_loop().time(), LAST_MOMENT_SECONDS)
        task = asyncio.ensure_future(work)  # noqa: TID251 - awaited below, cancelled in every other ending
        abort = asyncio.get_running_loop().create_task(self.aborting.wait())
        await asyncio.wait({task, abort}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        abort.cancel()
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            return False
        task.result()
        return True

    async def close(self) -> None:
        """Send what is buffered, then close."""
        if self._listener is not None:
            self._listener.cancel()
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()
        self._writer.close()

    def _send_if_new(self, about: str, message: Json) -> None:
        """Send only changes: callers report once a second, and an outage is two lines in the log."""
        if self._latest.get(about) != message:
            self._latest[about] = message
            self._send(message)

    def _send(self, message: Json) -> None:
        if not self._writer.is_closing():
            self._writer.write(orjson.dumps(message) + b"\n")

    async def _listen(self) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await self._reader.readline():
                try:
                    self._on_command(orjson.loads(line))
                except Exception:  # figures that cannot be sent must not leave a child that no drain reaches
                    log.exception("a message of the supervisor could not be processed")
        if not self.draining.is_set():
            log.warning("the supervisor has died: draining")
        # A stuck child must not outlive its node: SIGALRM's default action ends the process, whatever the loop does.
        signal.alarm(self.drain_seconds + ORPHAN_SECONDS)
        self.node_ends = self.is_orphan = True
        self._begin_drain()

    def _on_command(self, message: Json) -> None:
        match message.get("do"):
            case "stats":
                self._send({"n": message["n"], "stats": self.on_stats()})
            case "prepare" | "commit" as phase:
                task = asyncio.get_running_loop().create_task(self._reload(phase, message), name=phase)
                self._reloading.add(task)  # it may take seconds, and a drain has none to wait
                task.add_done_callback(self._reloading.discard)
            case "discard":
                if self.reloads is not None:
                    self.reloads.discard()
            case "refused":
                self.on_refused(message["faults"])
            case "drain":
                self.drain_seconds = int(message.get("seconds", self.drain_seconds))
                self.node_ends = True
                self._begin_drain()
            case "cover":
                self.on_cover(message["fds"], message["on"])
            case "abort":
                self._begin_drain()
                self.aborting.set()

    def _begin_drain(self) -> None:
        if not self.draining.is_set():
            self._drain_until = asyncio.get_running_loop().time() + self.drain_seconds
            self.draining.set()

    async def _reload(self, phase: str, message: Json) -> None:
        more = {name: value for name, value in message.items() if name not in {"do", "n"}}
        if phase == "commit":
            self.start |= more
        answer = await self._reloaded(phase, more)
        self._send({"n": message["n"], phase: answer})
        if phase == "commit" and answer["faults"]:
            log.error("the committed policies cannot be applied here: draining, to restart with them")
            self._begin_drain()

    async def _reloaded(self, phase: str, more: Json) -> Json:
        version, faults, reloads = "", list[str](), self.reloads
        try:
            if reloads is not None:
                version = await (reloads.prepare(more) if phase == "prepare" else reloads.commit())
            elif phase == "commit":
                self.missed_commit = True
        except PolicyError as error:
            faults = [str(fault) for fault in error.faults]
        except Exception as error:
            log.exception("reload: %s failed", phase)
            faults = [f"{type(error).__name__}: {error}"]
        return {"faults": faults, "version": version}
