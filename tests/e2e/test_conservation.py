"""Kills of everything under load, and then the books: answered, recorded, counted and paid are one number, to the unit.

Workers, supervisor, shipper, Redis (which syncs each write) and the broker are killed in an order drawn from a seed;
`E2E_SEED` repeats it. Every request carries a nonce that the upstream writes down. Five counts are compared: what
clients were answered, what the upstream saw, what is committed on Kafka, the counters and the wallet's ledger.
"""

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections import Counter

import pytest
import redis.asyncio

from sidecar.core.price.book import EVERY
from sidecar.core.price.wallet import Grant, balance
from sidecar.edge.redis.wallet import RedisWallet
from sidecar.wallets.audit import audit
from tests.app.node import Node, end
from tests.e2e.books import exchanges, joined, numbered
from tests.e2e.harness import Caller, Traffic, counters, environment, house

SEED = int(os.environ.get("E2E_SEED", "0")) or random.SystemRandom().getrandbits(32)
pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(240)]

KILLS = ("workers and redis", "worker-1", "shipper", "redis", "broker", "supervisor", "worker-0")
GRANTED, NANOS_PER_BYTE, RESERVED_BYTES = 10**15, 1_000, 500
POLICY = f"""\
meters:
  calls: {{ count: 1, when: {{ status: [2xx, 3xx, 4xx] }} }}
  egress: {{ value: response.bytes }}
routes:
  - {{ id: all, match: {{ path: "/**" }}, identity_headers: true }}
plans:
  prepaid:
    currency: usd
    prices:
      egress: {{ per_unit: "0.000001", reserve: {RESERVED_BYTES} }}
    limits:
      - {{ id: calls, meter: calls, quota: 1000000000/month, scope: customer }}
      - {{ id: bytes, meter: egress, quota: 1000000000/month, scope: customer, reserve: {RESERVED_BYTES} }}
      - {{ id: credit, balance: usd, over: deny, expiry: 2s }}
  counted:
    limits:
      - {{ id: calls, meter: calls, quota: 1000000000/month, scope: customer, exact: true }}
      - {{ id: bytes, meter: egress, quota: 1000000000/month, scope: customer, exact: true, reserve: {RESERVED_BYTES} }}
"""
CALLERS = [Caller("k-paid", "c-paid", "prepaid"), Caller("k-counted", "c-counted", "counted")]


class Chaos:
    """Kills one part after the other, and waits each time until the node is ready again."""

    def __init__(self, running, store, broker):
        self._running, self._store, self._broker = running, store, broker
        self._children = []

    async def kill(self, part):
        running = self._running
        if part == "redis":
            await asyncio.to_thread(self._store.kill)
            await asyncio.to_thread(self._store.start)
        elif part == "workers and redis":
            await self._kill_unacknowledged()
        elif part == "broker":
            await asyncio.to_thread(self._broker.kill)
            await asyncio.to_thread(self._broker.start)
        elif part == "supervisor":
            running.node.process.kill()
            await running.node.process.wait()
            await self._relaunch()
        else:
            pid = (await running.pids())[part]
            os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + 20
            while (await running.pids())[part] in (0, pid):
                assert time.monotonic() < deadline, running.log()
                await asyncio.sleep(0.02)
        await running.ready(40)

    async def _kill_unacknowledged(self):
        """Redis freezes, exchanges end, and both sides of their settles are killed: nothing of them is left."""
        self._store.pause()
        await asyncio.sleep(0.1)  # longer than the upstream takes to answer what was reserved before
        pids = await self._running.pids()
        for name in ("worker-0", "worker-1"):
            os.kill(pids[name], signal.SIGKILL)
        await asyncio.to_thread(self._store.kill)
        await asyncio.to_thread(self._store.start)

    async def _relaunch(self):
        folder, session = self._running.folder, self._running.node.session
        with (folder / "node.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "sidecar", "run", "-c", str(folder / "sidecar.yaml")),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=environment(),
            )
        self._children.append(process)
        self._running.node = Node(folder, process, session)
        await self._running.node.started()

    async def close(self):
        for process in self._children:
            await end(process)


@contextlib.asynccontextmanager
async def wallet_of(url, customer):
    client = redis.asyncio.Redis.from_url(url)
    try:
        yield RedisWallet(client, customer, "usd")
    finally:
        await client.aclose()


def reserved_in_vain(store, customer, recorded):
    """Exchanges that were reserved and never began: a worker was killed before their OPEN. No record, no upstream."""
    verdicts = {}
    for key in store.cli.scan_iter(f"sc:{{{customer}}}:ids:*"):
        verdicts |= store.cli.hgetall(key)
    admitted = {id_.decode() for id_, verdict in verdicts.items() if verdict.isdigit() and int(verdict) % 64 == 0}
    return admitted - recorded


def sums(records, customer):
    """Units by meter that records state, and the bytes that are billed."""
    found = Counter()
    for record in exchanges(records):
        if record["data"]["customer"] == customer:
            found.update(record["data"]["usage"])
            found["billed"] += record["data"]["usage"]["egress"] * record["data"]["billable"]
    return found


async def test_whatever_is_killed_what_was_answered_is_recorded_counted_and_paid(tmp_path, make_redis, kafka_server):
    # Fails if a start does not send again the settles that Redis has not acknowledged (tried: counted 710,449 bytes of
    # 710,512 that are recorded).
    print(f"E2E_SEED={SEED}")
    dice = random.Random(SEED)
    store = make_redis("appendonly yes", "appendfsync always")
    async with wallet_of(store.url, "c-paid") as wallet:
        assert (await wallet.grant(Grant("g1", 0, 0, 0, GRANTED, GRANTED))).done == "made"
    async with house(
        tmp_path, POLICY, CALLERS, bootstrap=kafka_server.bootstrap, redis=store.url, workers=2
    ) as running:
        chaos = Chaos(running, store, kafka_server)
        try:
            await running.ready()
            async with Traffic(running, {"k-paid": 4, "k-counted": 4}, seed=SEED) as traffic:
                for part in dice.sample(KILLS, len(KILLS)):
                    await traffic.answered(dice.randrange(50, 150))
                    await asyncio.sleep(dice.random() / 50)  # a moment within an exchange; nothing is waited for
                    print("kill", part)
                    await chaos.kill(part)
                await traffic.answered(100)
            assert await running.stop() == 0, running.log()
        finally:
            await chaos.close()
        records = running.records()
        numbered(records)
        joined(running.answers, running.origin.seen(), records)
        recorded = {record["id"] for record in exchanges(records)}
        for customer in ("c-paid", "c-counted"):
            used, vain = sums(records, customer), len(reserved_in_vain(store, customer, recorded))
            assert used["calls"] > 50, "nothing was shown"
            assert counters(store.cli, customer, "calls")[f"c{customer}"] == used["calls"] + vain
            assert counters(store.cli, customer, "bytes")[f"c{customer}"] == used["egress"] + vain * RESERVED_BYTES
        await _paid(store, sums(records, "c-paid")["billed"] * NANOS_PER_BYTE)


async def _paid(store, charged):
    """The wallet has paid for what is billed, once what was held in vain has expired."""
    async with wallet_of(store.url, "c-paid") as wallet:

        async def is_free():
            await wallet.expire_grants()
            return not (await wallet.read()).held

        deadline = time.monotonic() + 20
        while not await is_free():
            assert time.monotonic() < deadline, "something is held for ever"
            await asyncio.sleep(0.1)
        book = await wallet.read(EVERY)
    assert audit(book).whole
    assert GRANTED - balance(book.wallet) == charged
