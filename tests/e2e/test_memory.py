"""A worker's memory does not grow with what it has served. MEMORY_REQUESTS=1000000 is the long form."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.app.node import KEY
from tests.e2e.stage import free_port, sidecar, worker_pid

REQUESTS = int(os.environ.get("MEMORY_REQUESTS", "40_000"))
LONG = REQUESTS > 100_000
VARIETY = 0 if LONG else 2_000  # caches of paths and unknown keys are full after 16,384 and 10,000
STEPS = 4
# By one of the last steps at the most. A leak grows in each: of 50 bytes a request it is as much. On a busy machine
# buffers grow as well, but once.
GROWN_BYTES = 500_000
POLICY = """\
meters:
  output_tokens: { usage: output_total }
  input_tokens: { usage: input }
routes:
  - { id: chat, match: { path: /v1/** }, usage: openai }
  - { id: api, match: { path: /api/** } }
plans:
  free:
    limits:
      - { id: burst, rate: 1000000/s, burst: 1000000 }
      - { id: monthly, quota: 100000000/month }
      - { id: output, meter: output_tokens, quota: 100000000000/month }
      - { id: input, meter: input_tokens, quota: 100000000000/month }
"""


def resident_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def program(*arguments):
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.e2e.growth", *map(str, arguments)), stdout=asyncio.subprocess.PIPE
    )


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.timeout(7_200 if LONG else 120)
async def test_a_workers_memory_does_not_grow_with_the_requests_it_has_served(tmp_path, redis_clean):
    # Fails if record forms are kept by Checks in a cache of their own: each chat left 5 KiB behind, up to 50 MiB.
    port = free_port()
    origin = await program("origin", port)
    try:
        settings = {"REDIS__URL": redis_clean.url, "KEYS__FAILURES_PER_SECOND": "0"}
        async with sidecar(tmp_path, f"http://127.0.0.1:{port}", policy=POLICY, **settings) as node:
            pid, sizes = await worker_pid(node), []
            await node.until(lambda status: status["ready"])
            for _ in range(STEPS):
                crowd = await program("clients", node.where.rpartition(":")[2], KEY, REQUESTS // STEPS, VARIETY)
                told, _ = await crowd.communicate()
                statuses = json.loads(told)
                assert set(statuses) == {"200", "401"}, statuses
                sizes.append(resident_bytes(pid))
            print("resident bytes:", *sizes)
            assert await worker_pid(node) == pid
            grown = [after - before for before, after in pairwise(sizes[STEPS // 2 - 1 :])]
            assert min(grown) < GROWN_BYTES, sizes
    finally:
        origin.kill()
        await origin.wait()
