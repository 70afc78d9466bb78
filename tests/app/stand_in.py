"""A tiny child for the supervisor's tests: what it does stands in its first argument."""

import asyncio
import json
import os
import sys
import time

from sidecar.app.children import Link
from sidecar.core.errors import Fault, PolicyError


async def main(how: str, fd: int) -> int:
    link = await Link.open(fd)
    if how == "wrong":
        return 2
    if how == "dies":
        os.kill(os.getpid(), 9)
    if how == "hangs":
        link.on_stats = lambda: time.sleep(3600)
    else:
        link.on_stats = lambda: {"requests": {"r|2xx": 3}, "counts": {"records": 3}, "gauges": {"connections": 1}}

    async def reload() -> str:
        if how == "refuses":
            raise PolicyError([Fault("p.yaml", 3, "plans", "no such plan")])
        return "v2"

    link.on_reload = reload
    if how == "lonely":
        link.away("redis", "refused")
        link.away("redis", "refused")
    link.ready("127.0.0.1:1234")
    await link.draining.wait()
    print(json.dumps({"drain": how, "start": link.start}), flush=True)
    if how == "slow":
        await link.within_drain(asyncio.sleep(3600))
        print(json.dumps({"cut": how, "hurried": link.hurried.is_set()}), flush=True)
    if how == "deaf":
        time.sleep(3600)
    await link.close()
    return 0


sys.exit(asyncio.run(main(sys.argv[1], int(sys.argv[3]))))
