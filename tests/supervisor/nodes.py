"""Nodes with children of the tests: scripts that speak the protocol."""

import asyncio
import contextlib
import sys
import time
from pathlib import Path

from sidecar.supervisor.roles import Role, Setup
from sidecar.supervisor.supervisor import Supervisor

STAND_IN = str(Path(__file__).with_name("stand_in.py"))


def node(*hows, drain_seconds=5, **more):
    roles = [
        Role(
            f"{how.partition(':')[0]}-{i}",
            (sys.executable, STAND_IN, how),
            stage,
            ("redis",) if how == "lonely" else (),
            completes=stage == 1,
        )
        for i, (how, stage) in enumerate(hows)
    ]
    return Setup(version="t", roles=roles, start={"hello": 1}, drain_seconds=drain_seconds, **more)


@contextlib.asynccontextmanager
async def running(the_node):
    supervisor = Supervisor(the_node)
    task = asyncio.get_running_loop().create_task(supervisor.run())
    try:
        yield supervisor, task
    finally:
        supervisor.stop()
        supervisor.stop()
        await task


async def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.01)
    return found


async def until_ready(supervisor):
    async def ready():
        return not (await supervisor.view()).reasons()

    deadline = time.monotonic() + 30
    while not await ready():
        assert time.monotonic() < deadline, (await supervisor.view()).reasons()
        await asyncio.sleep(0.01)
