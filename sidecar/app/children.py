"""The child protocol: JSON lines on a socket pair between the supervisor and each of its children.

The pipe is the only voice that a child hears: it ignores the signals that are meant for the node, and takes an end of
file as the supervisor's death: drain, then leave. Nothing of the data path passes here.

    supervisor → child   {"do": "start", …} once, first · {"do": "stats" | "reload", "n": id}
                         {"do": "drain", "seconds": s} · {"do": "hurry"}
    child → supervisor   {"ready": where} · {"not_ready": why} · {"away": what, "why": why} · {"back": what}
                         {"n": id, "stats": …} · {"n": id, "reload": {"ok": bool, "faults": […], "version": …}}
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from sidecar.control.stats import WorkerStats
from sidecar.core.errors import PolicyError

Json = dict[str, Any]
LINE_BYTES = 16 << 20  # a policy with ten thousand routes tells a few megabytes of figures
LAST_MOMENT_SECONDS = 0.1  # for what comes last in a drain that took all its time
ORPHAN_SECONDS = 5  # beyond the drain, before the kernel ends a child whose supervisor is gone
log = logging.getLogger("sidecar.children")


class Link:
    """The child's end. Made by `Link.open`; the child sets `on_stats` and `on_reload`, then calls `ready`.

    `draining` is set when the child is to finish, within `drain_seconds`; `hurried` when it is to finish at once.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._listener: asyncio.Task[None] | None = None
        self._reloads: set[asyncio.Task[None]] = set()
        self._said: dict[str, Json] = {}
        self.start: Json = {}
        self.on_stats: Callable[[], WorkerStats] = WorkerStats
        self.on_reload: Callable[[], Awaitable[str]] | None = None
        self.draining = asyncio.Event()
        self.hurried = asyncio.Event()
        self.drain_seconds = 0
        self._drain_until = 0.0

    @classmethod
    async def open(cls, fd: int) -> Link:
        """Take over the descriptor that the supervisor handed down, and read the start message."""
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
        """Say that the child does its work; `listening` is "host:port" where it accepts connections."""
        self._say_once("ready", {"ready": listening})

    def not_ready(self, why: str) -> None:
        """Say that the child refuses work for now; `ready` ends it."""
        self._say_once("ready", {"not_ready": why})

    def away(self, what: str, why: str) -> None:
        """Say that a dependency ("redis", "kafka") does not answer. The child goes on as its policies say."""
        self._say_once(what, {"away": what, "why": why})

    def back(self, what: str) -> None:
        """Say that a dependency answers; also the first time, which is what readiness at start waits for."""
        self._say_once(what, {"back": what})

    async def within_drain(self, work: Awaitable[object]) -> bool:
        """Wait for `work` until it is done (True), the drain's time is over, or a second signal hurries (False).

        All that is waited for shares the one `drain_seconds`: the supervisor waits no longer.
        """
        left = max(self._drain_until - asyncio.get_running_loop().time(), LAST_MOMENT_SECONDS)
        task = asyncio.ensure_future(work)  # noqa: TID251 - awaited below, cancelled in every other ending
        hurry = asyncio.get_running_loop().create_task(self.hurried.wait())
        await asyncio.wait({task, hurry}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            return False
        task.result()
        return True

    async def close(self) -> None:
        """Let the last words go, then close."""
        if self._listener is not None:
            self._listener.cancel()
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()
        self._writer.close()

    def _say_once(self, about: str, message: Json) -> None:
        """Say what is new: callers look once a second, and an outage is two lines in the log."""
        if self._said.get(about) != message:
            self._said[about] = message
            self._say(message)

    def _say(self, message: Json) -> None:
        if not self._writer.is_closing():
            self._writer.write(orjson.dumps(message) + b"\n")

    async def _listen(self) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await self._reader.readline():
                self._obey(orjson.loads(line))
        if not self.draining.is_set():
            log.warning("the supervisor is gone: draining")
        # A stuck child must not outlive its node: SIGALRM's default action ends the process, whatever the loop does.
        signal.alarm(self.drain_seconds + ORPHAN_SECONDS)
        self._begin_drain()

    def _obey(self, message: Json) -> None:
        match message.get("do"):
            case "stats":
                self._say({"n": message["n"], "stats": self.on_stats()})
            case "reload":
                task = asyncio.get_running_loop().create_task(self._reload(message["n"]), name="reload")
                self._reloads.add(task)  # it may take seconds, and a drain has none to wait
                task.add_done_callback(self._reloads.discard)
            case "drain":
                self.drain_seconds = int(message.get("seconds", self.drain_seconds))
                self._begin_drain()
            case "hurry":
                self._begin_drain()
                self.hurried.set()

    def _begin_drain(self) -> None:
        if not self.draining.is_set():
            self._drain_until = asyncio.get_running_loop().time() + self.drain_seconds
            self.draining.set()

    async def _reload(self, number: int) -> None:
        self._say({"n": number, "reload": await self._reloaded()})

    async def _reloaded(self) -> Json:
        if self.on_reload is None:
            return {"ok": True, "faults": [], "version": ""}
        try:
            return {"ok": True, "faults": [], "version": await self.on_reload()}
        except PolicyError as error:
            return {"ok": False, "faults": [str(fault) for fault in error.faults], "version": ""}
        except Exception as error:
            log.exception("reload failed")
            return {"ok": False, "faults": [f"{type(error).__name__}: {error}"], "version": ""}


@dataclass(slots=True)
class Standing:
    """What a child has said of itself. `needs` are the dependencies that have not answered yet, since it started."""

    needs: set[str] = field(default_factory=set)
    listening: str = ""
    not_ready: str = "starting"
    away: dict[str, str] = field(default_factory=dict)
    stats: WorkerStats = field(default_factory=WorkerStats)
    missed: int = 0
    served: bool = False

    def hear(self, message: Json) -> None:
        """Take in what the child says."""
        match message:
            case {"ready": str(listening)}:
                self.not_ready, self.served = "", True
                self.listening = listening or self.listening
            case {"not_ready": str(why)}:
                self.not_ready = why
            case {"away": str(what), "why": str(why)}:
                self.away[what] = why
            case {"back": str(what)}:
                self.away.pop(what, None)
                self.needs.discard(what)

    def reasons(self) -> list[str]:
        """Say why the child is not ready: its own word, silence, or a dependency that has never answered.

        One that answered before and is away now is no reason: what to do then is decided limit by limit.
        """
        found = [self.not_ready] if self.not_ready else []
        if self.missed > 1:
            found.append("does not answer")
        found += [
            f"{what} has not answered yet{': ' if what in self.away else ''}{self.away.get(what, '')}"
            for what in sorted(self.needs)
        ]
        return found


class Child:
    """The supervisor's end of one living child."""

    def __init__(self, name: str, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.name = name
        self.process = process
        self.standing = Standing()
        self._reader = reader
        self._writer = writer
        self._asked: dict[int, asyncio.Future[Json]] = {}
        self._next = 0
        self._listener = asyncio.get_running_loop().create_task(self._listen())
        self.heard: Callable[[Child, Json], None] = lambda _child, _message: None

    @classmethod
    async def spawn(cls, name: str, command: Sequence[str], start: Json, keeps: Sequence[int] = ()) -> Child:
        """Start `command --fd N` as a fresh process that shares nothing with us but the pipe, and tell it `start`.

        `keeps` are descriptors that it is handed besides, under their numbers.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                fd = theirs.fileno()
                process = await create_subprocess_exec(*command, "--fd", str(fd), stdin=DEVNULL, pass_fds=(fd, *keeps))
        except OSError:
            ours.close()
            raise
        reader, writer = await asyncio.open_connection(sock=ours, limit=LINE_BYTES)
        child = cls(name, process, reader, writer)
        child.tell({"do": "start"} | start)
        return child

    def tell(self, message: Json) -> None:
        """Send without waiting for an answer; a child that is gone hears nothing."""
        if not self._writer.is_closing():
            self._writer.write(orjson.dumps(message) + b"\n")

    async def ask(self, do: str, seconds: float) -> Json | None:
        """Ask and wait; None where the child is gone or does not answer in time."""
        if self._listener.done():  # it has hung up: nobody would ever break this off
            return None
        self._next += 1
        number, answer = self._next, asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self.tell({"do": do, "n": number})
        try:
            return await asyncio.wait_for(answer, seconds)
        except (TimeoutError, ConnectionError):
            return None
        finally:
            self._asked.pop(number, None)

    async def look(self, seconds: float) -> bool:
        """Ask for the figures; False where it does not answer, and the last known ones stay."""
        answer = await self.ask("stats", seconds)
        if answer is not None:
            self.standing.stats = answer["stats"]
        return answer is not None

    async def gone(self) -> int:
        """Wait until the process has ended and its last words are read; its exit status, negative for a signal."""
        status = await self.process.wait()
        await asyncio.wait({self._listener}, timeout=1)
        self._listener.cancel()
        self._writer.close()
        return status

    def kill(self) -> None:
        """End it now, without asking."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    async def _listen(self) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await self._reader.readline():
                self._hear(orjson.loads(line))
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError(f"{self.name} is gone"))

    def _hear(self, message: Json) -> None:
        if (number := message.get("n")) is not None:
            answer = self._asked.get(number)
            if answer is not None and not answer.done():
                answer.set_result(message)
            return
        self.standing.hear(message)
        self.heard(self, message)


def cpu_and_memory(pid: int) -> tuple[int, int]:
    """Read CPU time in µs and resident bytes of a process from /proc; zeros where it is gone or there is no /proc."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123 - procfs, a path that needs no algebra
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return 0, 0
    ticks = int(fields[11]) + int(fields[12])  # utime and stime, proc(5)
    return ticks * 1_000_000 // os.sysconf("SC_CLK_TCK"), int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
