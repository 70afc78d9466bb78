"""A tiny child for the supervisor's tests: what it does stands in its first argument."""

import asyncio
import json
import os
import sys
import time

from sidecar.core.errors import Fault, PolicyError
from sidecar.supervisor.link import Link


def tell(**words):
    """One line in one write: several children share the output."""
    os.write(1, json.dumps(words).encode() + b"\n")


class Reloads:
    def __init__(self, how):
        self.how = how

    async def prepare(self, staged):
        tell(prepared=self.how)
        if self.how == "refuses":
            raise PolicyError([Fault("p.yaml", 3, "plans", "no such plan")])
        if self.how == "raises":
            raise ValueError("a fault of ours")
        return "v2"

    async def commit(self):
        tell(committed=self.how)
        if self.how == "fails":
            raise OSError("no descriptor left")
        return "v2"

    def discard(self):
        tell(discarded=self.how)


async def main(how: str, fd: int) -> int:
    link = await Link.open(fd)
    if how == "wrong":
        return 2
    if how.startswith("spoilt:") and os.path.exists(how[7:]):  # noqa: PTH110
        return 3
    if how == "dies" or (how.startswith("waits:") and not os.path.exists(how[6:])):  # noqa: PTH110
        os.kill(os.getpid(), 9)
    if how == "hangs":
        link.on_stats = lambda: time.sleep(3600)
    else:
        link.on_stats = lambda: {"requests": {"r|2xx": 3}, "counts": {"records": 3}, "gauges": {"connections": 1}}

    link.reloads = Reloads(how)
    while how.startswith("later:") and not os.path.exists(how[6:]):  # noqa: PTH110
        await asyncio.sleep(0.01)
    if how == "lonely":
        link.away("redis", "refused")
        link.away("redis", "refused")
    link.ready("127.0.0.1:1234")
    await link.draining.wait()
    tell(drain=how, start=link.start)
    if how == "slow":
        await link.within_drain(asyncio.sleep(3600))
        tell(cut=how, aborting=link.aborting.is_set())
    if how == "deaf":
        time.sleep(3600)
    await link.close()
    return 0


sys.exit(asyncio.run(main(sys.argv[1], int(sys.argv[3]))))
