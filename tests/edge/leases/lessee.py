"""A process of its own with leases on a real Redis: asks as fast as it is told, and writes down what it was let do.

    python -m tests.edge.leases.lessee URL FILE PER_SECOND AMOUNT PERIOD_US KIND HAND

Each admitted request is one byte in FILE, written before the next is asked for, so a kill loses none of the count.
It gives back what it holds on SIGTERM, and at its start what one before it held in the memory of descriptor HAND.
"""

import asyncio
import os
import secrets
import signal
import sys
from time import monotonic

from sidecar.core.errors import StoreError
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.core.record import Ids
from sidecar.edge.admission.breaker import Breaker
from sidecar.edge.admission.denials import Denials
from sidecar.edge.clock import SystemClock
from sidecar.edge.leases import Chain, Leases, SharedLeaseTable
from sidecar.edge.redis.counters import RedisCounters
from sidecar.edge.redis.wire import WireOptions
from tests.servers.talk import connected

WORKERS = 8
TICK_S = 0.005
WHO = Identity("k1", "app", "cust", "free")


def limit_of(kind, amount, period_us):
    if kind == "rate":
        return Limit("r", "rate", amount, per=amount, period_us=period_us)
    return Limit("w", "window", amount, period_us=period_us, fixed=True)


async def main(url, file, per_second, limit, hand):
    clock, ids = SystemClock(), Ids(secrets.randbits(60))
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    log = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def mint():
        return ids.mint(clock.now_us() // 1000)

    def told(said):
        if not isinstance(said, StoreError) and said.allowed:
            os.write(log, b"L" if said.mode == "leased" else b"E")

    async with connected(url, WireOptions(timeout_us=2_000_000)) as wire:
        breaker = Breaker(RedisCounters(wire, clock), clock)
        exact = Denials(breaker, clock)
        leases = Leases(Chain(exact, breaker, lambda *_: None), clock, mint, WORKERS)
        leases.adopt(SharedLeaseTable.shared(hand))
        checks, started, asked, swept = None, monotonic(), 0, 0.0
        while not stopping.is_set():
            while asked < (monotonic() - started) * per_second:
                now_us = clock.now_us()
                if checks is None or now_us >= checks.until_us:
                    checks = checks_for((limit,), (1,), WHO, now_us)
                leases.reserve(mint(), checks, told)
                asked += 1
            if monotonic() - swept > 0.1:
                swept = monotonic()
                leases.adjust()
            await asyncio.sleep(TICK_S)
        leases.recall()
        while leases.owed:
            leases.recall()
            await asyncio.sleep(TICK_S)
    os.close(log)


if __name__ == "__main__":
    url, file, per_second, amount, period_us, kind, hand = sys.argv[1:]
    asyncio.run(main(url, file, int(per_second), limit_of(kind, int(amount), int(period_us)), int(hand)))
