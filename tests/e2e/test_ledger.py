"""The way of a record to the ledger, with kills of all that is on it: the ledger is the topic, and verifies itself."""

import asyncio
import json
import random
import signal
import sys
from collections import Counter

import pytest

from tests.e2e.books import numbered
from tests.e2e.harness import Caller, Traffic, counters, environment, house, until
from tests.e2e.test_kills import SEED, _killed

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(240)]

POLICY = """\
meters:
  requests: { count: 1, when: { status: [2xx, 3xx, 4xx] } }
  bytes: { value: response.bytes }
plans:
  paid:
    version: 1
    currency: usd
    prices: { requests: { per_unit: "0.001" } }
    limits:
      - { id: monthly, quota: 1000000/month }
      - { id: credit, balance: usd }
  free:
    version: 1
    limits: [{ id: monthly, quota: 1000000/month, scope: customer }]
"""
CALLERS = [Caller("k-paid", "c-paid", "paid"), Caller("k-free", "c-free", "free")]
LOAD = {"k-paid": 3, "k-free": 3}


class Load:
    """`sidecar ledger load --follow` beside the node, which is killed and started again."""

    def __init__(self, running):
        self._config = str(running.folder / "sidecar.yaml")
        self._log = running.folder / "load.log"
        self._process = None

    async def start(self):
        with self._log.open("ab") as log:
            await self._start(log)

    async def _start(self, log):
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sidecar", "ledger", "load", "--follow", "-c", self._config),
            stdout=log,
            stderr=log,
            env=environment(),
        )

    async def end(self, number):
        assert self._process.returncode is None, self._log.read_text()
        self._process.send_signal(number)
        await asyncio.wait_for(self._process.wait(), 60)

    async def killed(self):
        await self.end(signal.SIGKILL)
        await self.start()


async def ledger(running, *words, status=0):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar", "ledger", words[0], "-c", str(running.folder / "sidecar.yaml"), *words[1:]),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == status, err.decode()
    return json.loads(out) if "--json" in words else out.decode()


async def query(running, sql):
    return await ledger(running, "query", sql, "--json")


async def test_through_kills_of_all_that_is_on_its_way_the_ledger_is_the_topic(tmp_path, make_redis, kafka_server):
    # Fails if the loader reads what is not committed, if its position is not in the names of its files, if a killed
    # worker's source stays without an end, or if a posting is lost with the worker that made it.
    chance = random.Random(f"{SEED} ledger")
    print(f"E2E_SEED={SEED}")
    redis, kafka = make_redis(), kafka_server
    more = f"ledger: {{ dir: '{tmp_path}/ledger' }}"
    async with house(
        tmp_path, POLICY, CALLERS, bootstrap=kafka.bootstrap, redis=redis.url, workers=2, more=more
    ) as running:
        await running.ready()
        config = ("-c", str(tmp_path / "sidecar.yaml"))
        grant = ("--customer", "c-paid", "--unit", "usd", "--amount", "1000", "--expires", "never", "--id", "g1")
        await running.sidecar("wallet", "grant", *config, *grant)
        load = Load(running)
        await load.start()
        async with Traffic(running, LOAD, seed=SEED) as traffic:
            for turn in range(6):
                await traffic.answered(chance.randrange(40, 160))
                await _killed(running, ("worker-0", "shipper", "worker-1")[turn % 3])
                await load.killed()
                if turn == 2:
                    await asyncio.to_thread(kafka.kill)
                    await traffic.answered(40)
                    await asyncio.to_thread(kafka.start)
            await traffic.answered(100)
        await running.all_ready()
        await until(lambda: not redis.cli.hlen("sc:wallets:unread"), "all postings journaled", 60)
        assert await running.stop() == 0, running.log()
        await load.end(signal.SIGTERM)
        await ledger(running, "load")
        await _compare(running, redis)


async def _compare(running, redis):
    records, denials = running.records(), running.denials()
    numbered(records)
    rows = await query(running, "SELECT id, source, sequence::BIGINT AS number, kind FROM ledger WHERE first")
    here = Counter((row["id"], row["source"], int(row["number"])) for row in rows)
    assert here == Counter((each["id"], each["source"], int(each["sequence"])) for each in [*records, *denials])
    verified = await ledger(running, "verify", "--json")
    assert verified["whole"], verified
    # Every source that announced itself has an end: its own, or by who came after it.
    sources = await query(running, "SELECT state, about FROM sources")
    started = {row["about"] for row in sources if row["state"] == "started"}
    closed = {row["about"] for row in sources if row["state"] == "closed"}
    final = {row["source"] for row in await query(running, "SELECT source FROM checkpoints WHERE final")}
    assert len(started) > 4
    assert closed | final == started
    assert closed.isdisjoint(final)
    # Sums are those of the topic, and the wallet is what its postings sum up to.
    totals = (await ledger(running, "totals", "--json"))["totals"]
    sums = Counter()
    for each in records:
        if each["type"] == "sidecar.usage.v1" and each["data"]["billable"]:
            for meter, units in each["data"]["usage"].items():
                sums[each["data"]["customer"], meter] += units
    assert {(row["customer"], row["meter"]): row["units"] for row in totals if row["units"]} == +sums
    [paid] = await query(running, "SELECT sum(delta)::BIGINT AS balance, count(*) AS postings FROM postings")
    shown = json.loads(await running.sidecar(
        "wallet", "show", "-c", str(running.folder / "sidecar.yaml"), "--customer", "c-paid", "--unit", "usd", "--json"
    ))  # fmt: skip
    held = round(float(shown["held"]) * 10**9)
    assert paid["balance"] == round(float(shown["balance"]) * 10**9) + held
    assert paid["balance"] == 1000 * 10**9 - sums["c-paid", "requests"] * 10**6
    # The counter has all that is billed, and at most what killed workers had reserved beyond.
    for customer in ("c-paid", "c-free"):
        counted = counters(redis.cli, customer, "monthly")[f"c{customer}"]
        assert sums[customer, "requests"] <= counted <= sums[customer, "requests"] + 200
