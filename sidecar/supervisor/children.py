"""The supervisor's end of each child: its process, its reports, and the questions to it. `link` has the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import orjson

from sidecar.control.stats import WorkerStats
from sidecar.supervisor.link import LINE_BYTES, Json


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
    async def spawn(cls, name: str, command: Sequence[str], keeps: Sequence[int] = ()) -> Child:
        """Start `command --fd N` as a new process that shares only the pipe with us. It waits for its `start`.

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
        return cls(name, process, reader, writer)

    def start(self, with_: Json) -> None:
        """Send the start message: settings, and what a predecessor passed on."""
        self.send({"do": "start"} | with_)

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
