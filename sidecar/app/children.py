"""The child protocol: JSON lines on a socket pair between the supervisor and each of its children.

A child obeys the pipe alone. It ignores the signals that are meant for the node, and an end of file means that the
supervisor died: drain, then exit. The data path does not use this channel.

    supervisor → child   {"do": "start", …} once, first · {"do": "stats", "n": id}
                         {"do": "prepare" | "commit", "n": id, …} with the changed fields of the start message
                         {"do": "discard"} · {"do": "drain", "seconds": s} · {"do": "abort"}
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
import os
import signal
import socket
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
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
            log.exception("%s failed", phase)
            faults = [f"{type(error).__name__}: {error}"]
        return {"faults": faults, "version": version}


def describe(message: Json) -> tuple[int, str]:
    """The level and text by which a message of a child is logged."""
    match message:
        case {"ready": str(listening)}:
            return logging.INFO, f"ready, listening on {listening}" if listening else "ready"
        case {"not_ready": why}:
            return logging.WARNING, f"not ready: {why}"
        case {"closed": why}:
            return logging.INFO, f"accepts no more connections: {why}"
        case {"pass_on": dict(what)}:
            return logging.DEBUG, ", ".join(f"{name} folder {value}" for name, value in what.items())
        case {"away": "redis", "why": why}:
            return logging.WARNING, f"redis: {why}"
        case {"away": "kafka" | "sink", "why": why}:
            return logging.DEBUG, f"records wait in the journal: {why}"  # the shipper has logged it
        case {"away": what, "why": why}:
            return logging.WARNING, f"{what}: {why}"
        case {"back": "kafka" | "sink"}:
            return logging.DEBUG, "the sink answers"
        case {"back": "redis"}:
            return logging.INFO, "redis answers"
        case {"back": what}:
            return logging.INFO, f"{what}: recovered"
    return logging.INFO, " ".join(f"{key} {value}".strip() for key, value in message.items())


@dataclass(slots=True)
class ChildStatus:
    """The reports of a child. `needs` are the dependencies that have not answered since it started."""

    needs: set[str] = field(default_factory=set)
    listening: str = ""
    not_ready: str = "starting"
    away: dict[str, str] = field(default_factory=dict)
    stats: WorkerStats = field(default_factory=WorkerStats)
    missed: int = 0
    served: bool = False
    closed: bool = True
    passed_on: Json = field(default_factory=dict)

    def on_message(self, message: Json) -> None:
        """Update the status by a message of the child."""
        match message:
            case {"ready": str(listening)}:
                self.not_ready, self.served, self.closed = "", True, False
                self.listening = listening or self.listening
            case {"not_ready": str(why)}:
                self.not_ready = why
            case {"pass_on": dict(what)}:
                self.passed_on |= what
            case {"closed": str(why)}:
                self.not_ready, self.closed = why, True
            case {"away": str(what), "why": str(why)}:
                self.away[what] = why
            case {"back": str(what)}:
                self.away.pop(what, None)
                self.needs.discard(what)

    @property
    def accepts(self) -> bool:
        """Whether it accepts connections: it listens, and answers."""
        return not self.closed and self.missed <= 1

    def reasons(self) -> list[str]:
        """Why the child is not ready: its own report, silence, or a dependency that has never answered.

        A dependency that answered before and is away now does not count: each limit has a rule for that.
        """
        reasons = [self.not_ready] if self.not_ready else []
        if self.missed > 1:
            reasons.append("does not answer")
        reasons += [
            f"{what} has not answered yet{': ' if what in self.away else ''}{self.away.get(what, '')}"
            for what in sorted(self.needs)
        ]
        return reasons


class Child:
    """The supervisor's end of one living child."""

    def __init__(self, name: str, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.name = name
        self.process = process
        self.status = ChildStatus()
        self._reader = reader
        self._writer = writer
        self._pending: dict[int, asyncio.Future[Json]] = {}
        self._next = 0
        self._listener = asyncio.get_running_loop().create_task(self._listen())
        self.on_report: Callable[[Child, Json], None] = lambda _child, _message: None

    @classmethod
    async def spawn(cls, name: str, command: Sequence[str], start: Json, keeps: Sequence[int] = ()) -> Child:
        """Start `command --fd N` as a new process that shares only the pipe with us, and send it `start`.

        `keeps` are further descriptors that it inherits, with their numbers.
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
        child.send({"do": "start"} | start)
        return child

    def send(self, message: Json) -> None:
        """Send without waiting for an answer; to a child that has ended nothing is sent."""
        if not self._writer.is_closing():
            self._writer.write(orjson.dumps(message) + b"\n")

    async def ask(self, do: str, seconds: float, more: Json | None = None) -> Json | None:
        """Ask and wait; None if the child ends or does not answer in time. `more` is part of the message."""
        if self._listener.done():  # the pipe is closed: nothing would end this wait
            return None
        self._next += 1
        number, answer = self._next, asyncio.get_running_loop().create_future()
        self._pending[number] = answer
        self.send({"do": do, "n": number} | (more or {}))
        try:
            return await asyncio.wait_for(answer, seconds)
        except (TimeoutError, ConnectionError):
            return None
        finally:
            self._pending.pop(number, None)

    async def refresh_stats(self, seconds: float) -> bool:
        """Ask for the figures; False if it does not answer, and the last known ones stay."""
        answer = await self.ask("stats", seconds)
        if answer is not None:
            self.status.stats = answer["stats"]
        return answer is not None

    async def gone(self) -> int:
        """Wait until the process has ended and its last messages are read; its exit status, negative for a signal."""
        status = await self.process.wait()
        await asyncio.wait({self._listener}, timeout=1)
        self._listener.cancel()
        self._writer.close()
        return status

    def kill(self) -> None:
        """Kill it now."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    async def _listen(self) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await self._reader.readline():
                self._on_message(orjson.loads(line))
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError(f"{self.name} is gone"))

    def _on_message(self, message: Json) -> None:
        if (number := message.get("n")) is not None:
            answer = self._pending.get(number)
            if answer is not None and not answer.done():
                answer.set_result(message)
            return
        self.status.on_message(message)
        self.on_report(self, message)


def cpu_and_memory(pid: int) -> tuple[int, int]:
    """Read CPU time in µs and resident bytes of a process from /proc; zeros if it has ended or there is no /proc."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123 - procfs, a path that needs no algebra
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return 0, 0
    ticks = int(fields[11]) + int(fields[12])  # utime and stime, proc(5)
    return ticks * 1_000_000 // os.sysconf("SC_CLK_TCK"), int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
