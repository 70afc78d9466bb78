"""A whole node as an operator runs it: `sidecar run` in a process of its own, before a small real API."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time

import aiohttp
from aiohttp import web

from sidecar.core.identity import digest, make_key, stored
from tests.servers.connections import abort_connections

SETTINGS = """\
listen: 127.0.0.1:0
control: { listen: 127.0.0.1:0 }
upstreams:
  default: { urls: ["http://127.0.0.1:%d"] }
policies: p.yaml
keys: { file: keys.yaml }
drain_seconds: 10
checkpoint_seconds: 1
"""
POLICY = """\
plans:
  free:
    limits:
      - { id: burst, meter: requests, rate: %d/s, burst: %d, scope: key }
"""
RELEASE = web.AppKey("release", asyncio.Event)
KEY = make_key(b"0123456789abcdefghij")


class Node:
    """`where` and `control` are base URLs; `ask` sends one request with the key of the plan `free`.

    `/long` is answered when `release` is set.
    """

    def __init__(self, folder, process, session):
        self.folder, self.process, self.session = folder, process, session
        self.where = self.control = ""

    async def started(self):
        while not (self.where and self.control):
            line = (await asyncio.wait_for(self.process.stdout.readline(), 20)).decode().split()
            assert line, (self.folder / "node.log").read_text()
            if line[0] == "listening":
                self.where = line[-1]
            elif line[0] == "control":
                self.control = line[-1]

    async def ask(self, path="/hello", key=KEY):
        async with self.session.get(self.where + path, headers={"X-Api-Key": key} if key else {}) as answer:
            return answer.status, await answer.text()

    async def tell(self, path):
        async with self.session.get(self.control + path) as answer:
            return answer.status, await (answer.text() if path == "/metrics" else answer.json())

    async def until(self, condition, seconds=15):
        """Wait until `condition(status)` of /status holds."""
        deadline = time.monotonic() + seconds
        while not condition(status := (await self.tell("/status"))[1]):
            assert time.monotonic() < deadline, status
            await asyncio.sleep(0.05)
        return status

    async def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 30)

    async def kill(self):
        await end(self.process)

    def records(self, stem="records"):
        path = self.folder / "data" / f"{stem}.jsonl"
        text = path.read_bytes() if path.exists() else b""
        return text[: text.rfind(b"\n") + 1].splitlines()  # the last line may be half written


async def end(process):
    """End the process now, and close our ends of its pipes: its orphans may hold the others open for long."""
    process._transport.close()  # kills it where it still runs; asyncio has no public way to close the pipes
    await process.wait()


async def hello(request):
    if request.path == "/slow":
        await asyncio.sleep(1)
    if request.path == "/long":
        await request.app[RELEASE].wait()
    return web.Response(text="hello")


@contextlib.asynccontextmanager
async def node(folder, settings="", rate=1000, **environment):
    """Run a node in `folder` until the block ends; `settings` are lines that are added to its file."""
    app = web.Application()
    app[RELEASE] = asyncio.Event()
    app.router.add_route("*", "/{path:.*}", hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    (folder / "sidecar.yaml").write_text(SETTINGS % port + settings)
    (folder / "p.yaml").write_text(POLICY % (rate, rate))
    hashed = stored(digest(KEY.encode()))
    (folder / "keys.yaml").write_text(
        f"keys:\n  - {{ id: k1, hash: {hashed!r}, customer: c1, subject: s1, plan: free }}\n"
    )
    try:
        async with aiohttp.ClientSession() as session:
            running = await start(folder, session, **environment)
            running.release = app[RELEASE]
            try:
                await running.started()
                yield running
            finally:
                await running.kill()
    finally:
        app[RELEASE].set()
        await runner.cleanup()
        await abort_connections(port)


async def start(folder, session, **environment):
    """Run `sidecar run` on the settings that `node` wrote into `folder`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
    with (folder / "node.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sidecar", "run", "-c", str(folder / "sidecar.yaml")),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=clean | environment,
        )
    return Node(folder, process, session)
