"""One run's stage: every process on it is started pinned, found by its pid, and gone when the stage is left.

CPU is what the kernel charged to the whole process tree (user + system, threads and reaped children included), never
what a process says of itself. Nothing here knows what is measured.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from redis.exceptions import RedisError

TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]  # those that we may use
PROXY_CORE, LOAD_CORE = CORES[0], CORES[min(1, len(CORES) - 1)]
API_KEY = "bench-4f9c2a7d1e8b6350"
SPENT_KEY = "bench-spent-91d0c3b7a5"  # registered as well, with limits that a few requests use up

T = TypeVar("T")
Parts = dict[str, list[int]]  # part of the work -> the pids that do it


class RunFailed(Exception):  # noqa: N818 - a sentence for the person at the terminal
    """This run gave no number that could be trusted; the message says why."""


# What a machine may lack or do in the middle of a run; a fault of the harness is none of these.
FAILURES = (RunFailed, OSError, subprocess.SubprocessError, RedisError)


def twice(run: Callable[[], T], say: Callable[[str], None]) -> T:
    """What `run` gives, at the second attempt where the first fails: a machine with other work fails one now and then,
    and an hour of rounds should outlive it."""
    try:
        return run()
    except FAILURES as failure:
        say(f"once more: {str(failure).splitlines()[0]}")
    return run()


def free_port() -> int:
    """A loopback port that the OS has just picked; free until somebody takes it."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _stat(pid: int) -> list[str] | None:
    try:
        raw = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return raw[raw.rindex(")") + 2 :].split()  # the command may hold spaces and brackets: proc(5)


def tree(pid: int) -> list[int]:
    """`pid` and all its descendants that are alive."""
    parents = {int(p.name): s for p in Path("/proc").iterdir() if p.name.isdigit() and (s := _stat(int(p.name)))}
    found = [pid]
    for one in found:
        found += [child for child, s in parents.items() if int(s[1]) == one]
    return sorted(found)


def cpu_us(pids: Iterable[int]) -> int:
    """User + system time of these processes and of their reaped children, in µs, as exact as the kernel's tick."""
    stats = [s for pid in pids if (s := _stat(pid))]
    return sum(int(field) for s in stats for field in s[11:15]) * TICK_US


def cpu_by_part(parts: Parts) -> dict[str, int]:
    return {part: cpu_us(pids) for part, pids in parts.items()}


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


class Stage:
    """Processes, ports and a temporary folder of one run. Leaving it stops and removes all of them."""

    def __init__(self) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix="bench-"))
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for _, process in reversed(self._running):
            stop(process)
        shutil.rmtree(self.dir, ignore_errors=True)

    def write(self, name: str, text: str) -> Path:
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def start(self, name: str, argv: list[str], core: int, env: Mapping[str, str] | None = None) -> int:
        """Start `argv` pinned to `core` (children inherit it); the pid."""
        with (self.dir / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                ["taskset", "-c", str(core), *argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.dir,
                env={**{k: v for k, v in os.environ.items() if not k.startswith("SIDECAR_")}, **(env or {})},
                start_new_session=True,  # ^C at the terminal reaches the harness alone, which then stops each by pid
            )
        self._running.append((name, process))
        return process.pid

    def pid(self, name: str) -> int:
        """The process that was started as `name`."""
        return self._process(name).pid

    def _process(self, name: str) -> subprocess.Popen[bytes]:
        return next(process for known, process in self._running if known == name)

    def end(self, name: str, number: signal.Signals) -> None:
        """Send `number` to `name`, wait for its end, whatever its exit code, and forget it."""
        process = self._process(name)
        process.send_signal(number)
        process.wait(60)
        self._running.remove((name, process))

    def drain(self, name: str, seconds: int = 60) -> None:
        """SIGTERM to `name`, and wait for its clean end: exit code 0, all of its work done."""
        process = self._process(name)
        process.terminate()
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise RunFailed(f"{name} did not end within {seconds} s of SIGTERM:\n{self.log(name)}") from None
        if code:
            raise RunFailed(f"{name} drained with exit code {code}:\n{self.log(name)}")

    def ended(self, name: str, seconds: int = 60) -> None:
        """Wait for `name` to end by itself, well."""
        process = self._process(name)
        if process.wait(seconds):
            raise RunFailed(f"{name} ended with exit code {process.returncode}:\n{self.log(name)}")

    def check_alive(self) -> None:
        for name, process in self._running:
            if process.poll() is not None:
                raise RunFailed(f"{name} ended with exit code {process.returncode}:\n{self.log(name)}")

    def log(self, name: str) -> str:
        return "\n".join((self.dir / f"{name}.log").read_text(errors="replace").splitlines()[-8:])

    def until(self, what: str, ready: Callable[[], bool], seconds: int = 15, pause: float = 0.02) -> None:
        """Wait until `ready()`; a process that ended, or the deadline, fails the run with its log."""
        deadline = time.monotonic() + seconds
        while not ready():
            self.check_alive()
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {name}\n{self.log(name)}" for name, _ in self._running)
                raise RunFailed(f"waited {seconds} s for: {what}\n{logs}")
            time.sleep(pause)

    def until_answers(self, name: str, port: int, path: str = "/bench", seconds: int = 15) -> None:
        self.until(f"{name} to answer 200 on port {port}", lambda: get(port, path)[0] == 200, seconds)


def stop(process: subprocess.Popen[bytes], seconds: int = 10) -> None:
    """SIGTERM to the process, and after its end, or `seconds`, SIGKILL to whatever of its tree is left."""
    family = {pid: _born(pid) for pid in tree(process.pid)}
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid, born in family.items():
        if pid != process.pid and born and _born(pid) == born:  # the same process, not a later one with its number
            os.kill(pid, signal.SIGKILL)


def _born(pid: int) -> str:
    stat = _stat(pid)
    return stat[19] if stat else ""


def get(port: int, path: str = "/bench", key: str = API_KEY, body: str | None = None) -> tuple[int, bytes]:
    """One request on a connection of its own, a POST where it has a body: status (0 where nobody answered) and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    headers = {"X-Api-Key": key, **({"Content-Type": "application/json"} if body else {})}
    try:
        connection.request("POST" if body else "GET", path, body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()
