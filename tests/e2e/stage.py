"""What the end-to-end tests share: a node before origins of their own, its records, its memory, and programs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import time
from pathlib import Path

import orjson
import pytest
from aiohttp import web

from tests.app.node import KEY, node
from tests.servers.connections import abort_connections

WITH_KEY = {"X-Api-Key": KEY}
OPEN = """\
plans:
  free: { limits: [] }
"""


@contextlib.asynccontextmanager
async def sidecar(folder, *urls, policy=OPEN, **environment):
    """Run a node before the origins at `urls`, with a policy of its own; `environment` sets `SIDECAR_<NAME>`."""
    (folder / "policy.yaml").write_text(policy)
    settings = {
        "SIDECAR_POLICIES": "policy.yaml",
        "SIDECAR_UPSTREAMS__DEFAULT__URLS": ",".join(urls),
        **{f"SIDECAR_{name}": value for name, value in environment.items()},
    }
    async with node(folder, **settings) as running:
        yield running


def usage(running):
    """The data of every usage record so far, in order."""
    events = [orjson.loads(line) for line in running.records()]
    return [event["data"] for event in events if event["type"] in ("sidecar.usage.v1", "sidecar.unattributed.v1")]


async def records(running, count=1, seconds=15):
    """The data of `count` usage records, waited for; more than that fails."""
    deadline = time.monotonic() + seconds
    while len(found := usage(running)) < count:
        assert time.monotonic() < deadline, (found, (running.folder / "node.log").read_text())
        await asyncio.sleep(0.02)
    assert len(found) == count, found
    return found


async def worker_pid(running):
    """The process id of the only worker."""
    _, status = await running.tell("/status")
    (pid,) = [child["pid"] for child in status["children"] if child["name"].startswith("worker")]
    return pid


class Memory:
    """How much a process grew at its worst since this was made: the kernel's own high-water mark, reset first."""

    def __init__(self, pid):
        self._status = Path(f"/proc/{pid}/status")
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        self._before = self._read("VmRSS")

    def _read(self, field):
        (line,) = [line for line in self._status.read_text().splitlines() if line.startswith(field)]
        return int(line.split()[1]) * 1024

    def grown_bytes(self):
        return self._read("VmHWM") - self._before


@contextlib.asynccontextmanager
async def served(app, **how):
    """An aiohttp application on a port that the OS picks; gives its URL."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, **how).start()
    port = runner.addresses[0][1]
    try:
        yield f"http{'s' if how else ''}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
        await abort_connections(port)


def free_port():
    """A port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def program(name):
    """The path of a program. Where it is missing: a failure in CI, elsewhere a loud skip."""
    path = shutil.which(name)
    if path is None and os.environ.get("CI"):
        pytest.fail(f"{name} is not on the PATH")
    if path is None:
        pytest.skip(f"NO {name.upper()} ON THE PATH, SO NOTHING IS KNOWN ABOUT IT: ./.ci/servers names the package")
    return path
