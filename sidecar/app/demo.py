"""The main job on the embedded default, as a user would set it up: an API, a free-tier key, traffic, 429s, records.

Nothing is staged: the node is the real one in a process of its own, the traffic comes over TCP from a real client, and
the records are counted in the file that it wrote. The play ends by itself and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process, create_subprocess_exec
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from sidecar.core.errors import SidecarError
from sidecar.core.identity import digest, make_key, stored

TRAFFIC_SECONDS = 6
PAUSE_SECONDS = 0.05  # between requests: about four times what the free tier allows
START_SECONDS = 20
END_SECONDS = 20
CITIES = ("lisbon", "nairobi", "osaka", "quito", "tromso")

SETTINGS = """\
listen: 127.0.0.1:0
control: {{ listen: 127.0.0.1:0 }}
upstreams:
  default: {{ urls: ["http://127.0.0.1:{port}"] }}
policies: free-tier.yaml
keys: {{ file: keys.yaml }}
journal: {{ dir: journal }}
sink: {{ file: records.jsonl }}
"""
POLICY = """\
meters:
  requests:     { count: 1, when: { status: [2xx, 3xx, 4xx] } }
  egress_bytes: { value: response.bytes }
routes:
  - { id: weather, match: { methods: [GET], path: /weather/* }, upstream: default }
plans:
  free:
    limits:
      - { id: burst,   meter: requests, rate: 5/s, burst: 10, scope: key }
      - { id: monthly, meter: requests, quota: 10000/month, scope: customer }
"""
KEY = "keys:\n  - {{ id: k_demo, hash: {hash!r}, customer: cust-demo, subject: app-demo, plan: free }}\n"


@dataclass(slots=True)
class Standing:
    """How the play stands: answers by status as the client counted them, records by kind as the file has them."""

    seconds: float = 0
    answers: Counter[int] = field(default_factory=Counter)
    records: Counter[str] = field(default_factory=Counter)
    last: list[dict[str, Any]] = field(default_factory=list)
    exit_status: int | None = None

    @property
    def served(self) -> int:
        """Answers that came from the API."""
        return sum(count for status, count in self.answers.items() if 200 <= status < 300)

    @property
    def throttled(self) -> int:
        """Answers that a limit gave."""
        return self.answers[429]

    @property
    def balanced(self) -> bool:
        """True when what was served and refused is what was written down, and the node ended well."""
        counted = (self.served, self.throttled, sum(self.answers.values()))
        written = (self.records["usage"], self.records["denial"], self.served + self.throttled)
        return counted == written and min(counted) > 0 and self.exit_status == 0


async def play(folder: Path, show: Callable[[Standing], None]) -> Standing:
    """Play in `folder`, showing each step; the last standing. SidecarError: the node did not start, and why."""
    standing = Standing()
    key = make_key(secrets.token_bytes(20))
    async with _api() as port:
        (folder / "sidecar.yaml").write_text(SETTINGS.format(port=port))
        (folder / "free-tier.yaml").write_text(POLICY)
        (folder / "keys.yaml").write_text(KEY.format(hash=stored(digest(key.encode()))))
        async with _node(folder) as (node, where):
            await _traffic(where, key, folder, standing, show)
            node.send_signal(signal.SIGTERM)
            standing.exit_status = await asyncio.wait_for(node.wait(), END_SECONDS)
    _count(folder, standing)
    show(standing)
    return standing


@contextlib.asynccontextmanager
async def _api() -> AsyncIterator[int]:
    """A small real API, such as anybody has; its port."""

    async def weather(request: web.Request) -> web.Response:
        city = request.match_info["city"]
        return web.json_response({"city": city, "celsius": sum(city.encode()) % 35})

    app = web.Application()
    app.router.add_get("/weather/{city}", weather)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def _node(folder: Path) -> AsyncIterator[tuple[Process, str]]:
    """The real thing, in a process of its own; where it listens."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
    command = (sys.executable, "-m", "sidecar", "run", "-c", str(folder / "sidecar.yaml"))
    with (folder / "node.log").open("wb") as log:
        node = await create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=log, env=environment)
    try:
        yield node, await asyncio.wait_for(_listening(node), START_SECONDS)
    except TimeoutError:
        raise SidecarError("the sidecar did not come up or end in time:\n" + _said(folder)) from None
    except ConnectionError:
        raise SidecarError("the sidecar ended:\n" + _said(folder)) from None
    finally:
        if node.returncode is None:
            node.kill()
            await node.wait()


async def _listening(node: Process) -> str:
    assert node.stdout is not None  # noqa: S101 - asked for as a pipe
    while line := await node.stdout.readline():
        if line.startswith(b"listening on "):
            return line.split()[-1].decode()
    raise ConnectionResetError


def _said(folder: Path) -> str:
    return (folder / "node.log").read_text(errors="replace")[-2000:]


async def _traffic(where: str, key: str, folder: Path, standing: Standing, show: Callable[[Standing], None]) -> None:
    """Ask for the weather at a steady pace, faster than the free tier allows."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with aiohttp.ClientSession(where, headers={"X-Api-Key": key}) as client:
        number = 0
        while (elapsed := loop.time() - began) < TRAFFIC_SECONDS:
            async with client.get(f"/weather/{CITIES[number % len(CITIES)]}") as answer:
                await answer.read()
            standing.answers[answer.status] += 1
            standing.seconds = elapsed
            number += 1
            if number % 5 == 0:
                _count(folder, standing)
                show(standing)
            await asyncio.sleep(max(0, began + number * PAUSE_SECONDS - loop.time()))


def _count(folder: Path, standing: Standing) -> None:
    """Read the files that the node writes, from their start: a few hundred lines."""
    kinds: Counter[str] = Counter()
    last: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                record = orjson.loads(line)
                kinds[record["type"].split(".")[1]] += 1
                last.append(record)
    standing.records = kinds
    billed = [record for record in last if record["type"].startswith("sidecar.usage.")]
    standing.last = sorted(billed, key=lambda record: record["time"])[-2:]
