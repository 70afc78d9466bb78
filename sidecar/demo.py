"""The demo: a small API behind a sidecar in embedded mode, a free-tier key, traffic, 429s and records.

The sidecar is a real node in a process of its own, the traffic is sent over TCP by a real client, and the records are
counted in the file that the node wrote. The demo ends by itself and leaves no files behind.
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
PAUSE_SECONDS = 0.05  # between requests: four times the rate of the free tier
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
class DemoResult:
    """The figures so far: answers by status, as the client counted them, and records by kind, as the file has them."""

    seconds: float = 0
    answers: Counter[int] = field(default_factory=Counter)
    records: Counter[str] = field(default_factory=Counter)
    last: list[dict[str, Any]] = field(default_factory=list)
    exit_status: int | None = None

    @property
    def served(self) -> int:
        """Answers of the API (2xx)."""
        return sum(count for status, count in self.answers.items() if 200 <= status < 300)

    @property
    def throttled(self) -> int:
        """Answers of a limit (429)."""
        return self.answers[429]

    @property
    def balanced(self) -> bool:
        """True if the records match the answers, 2xx and 429, and the node exited with 0."""
        counted = (self.served, self.throttled, sum(self.answers.values()))
        written = (self.records["usage"], self.records["denial"], self.served + self.throttled)
        return counted == written and min(counted) > 0 and self.exit_status == 0


async def run_demo(folder: Path, show: Callable[[DemoResult], None]) -> DemoResult:
    """Run the demo in `folder`; `show` gets the figures so far. SidecarError: the node did not start, or not end."""
    result = DemoResult()
    key = make_key(secrets.token_bytes(20))
    async with _api() as port:
        (folder / "sidecar.yaml").write_text(SETTINGS.format(port=port))
        (folder / "free-tier.yaml").write_text(POLICY)
        (folder / "keys.yaml").write_text(KEY.format(hash=stored(digest(key.encode()))))
        async with _node(folder) as (node, url):
            await _send_traffic(url, key, folder, result, show)
            node.send_signal(signal.SIGTERM)
            result.exit_status = await asyncio.wait_for(node.wait(), END_SECONDS)
    _count_records(folder, result)
    show(result)
    return result


@contextlib.asynccontextmanager
async def _api() -> AsyncIterator[int]:
    """A small HTTP API; yields its port."""

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
    """A sidecar in a process of its own; yields it and its URL."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
    command = (sys.executable, "-m", "sidecar", "run", "-c", str(folder / "sidecar.yaml"))
    with (folder / "node.log").open("wb") as log:
        node = await create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=log, env=environment)
    try:
        yield node, await asyncio.wait_for(_read_url(node), START_SECONDS)
    except TimeoutError:
        raise SidecarError("the sidecar did not start or stop in time:\n" + _log_tail(folder)) from None
    except ConnectionError:
        raise SidecarError("the sidecar ended:\n" + _log_tail(folder)) from None
    finally:
        if node.returncode is None:
            node.kill()
            await node.wait()


async def _read_url(node: Process) -> str:
    assert node.stdout is not None  # noqa: S101 - opened as a pipe
    while line := await node.stdout.readline():
        if line.startswith(b"listening on "):
            return line.split()[-1].decode()
    raise ConnectionResetError


def _log_tail(folder: Path) -> str:
    return (folder / "node.log").read_text(errors="replace")[-2000:]


async def _send_traffic(
    url: str, key: str, folder: Path, result: DemoResult, show: Callable[[DemoResult], None]
) -> None:
    """Send requests at a steady rate, above that of the free tier."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with aiohttp.ClientSession(url, headers={"X-Api-Key": key}) as client:
        number = 0
        while (elapsed := loop.time() - began) < TRAFFIC_SECONDS:
            async with client.get(f"/weather/{CITIES[number % len(CITIES)]}") as answer:
                await answer.read()
            result.answers[answer.status] += 1
            result.seconds = elapsed
            number += 1
            if number % 5 == 0:
                _count_records(folder, result)
                show(result)
            await asyncio.sleep(max(0, began + number * PAUSE_SECONDS - loop.time()))


def _count_records(folder: Path, result: DemoResult) -> None:
    """Read the record files of the node from their start: a few hundred lines."""
    kinds: Counter[str] = Counter()
    last: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                record = orjson.loads(line)
                kinds[record["type"].split(".")[1]] += 1
                last.append(record)
    result.records = kinds
    billed = [record for record in last if record["type"].startswith("sidecar.usage.")]
    result.last = sorted(billed, key=lambda record: record["time"])[-2:]
