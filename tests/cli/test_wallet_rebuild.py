"""Redis is emptied, and everything that the records know is there again: Shown by 2 of the ledger's issue."""

import asyncio
import json
import re
import sys

import pytest

from sidecar.core.identity import digest, make_key, stored
from tests.app.node import node

POLICY = """\
meters:
  bytes: { value: response.bytes }
exclude:
  - { id: probes, when: { route: [health] } }
routes:
  - { id: health, match: { path: /health } }
  - { id: api, match: { path: "/**" } }
plans:
  pro:
    currency: usd
    prices: { bytes: { graduated: [{ up_to: 300, price: "0.01" }, { price: "0.002" }] } }
    limits:
      - { id: monthly, meter: requests, quota: 100000/month, scope: customer, zone: customer, anchor: subscription }
      - { id: by_key, meter: bytes, quota: 1000000/month, scope: key }
      - { id: daily, meter: requests, window: 100000/24h, scope: subject, fixed: true }
      - { id: sliding, meter: requests, window: 100000/12h, scope: key }
      - { id: rate, meter: requests, rate: 10000/s, burst: 10000, scope: key }
      - { id: credit, balance: usd }
"""
KEYS = [make_key(f"{number:020}".encode()) for number in range(6)]
ZONES = ["Asia/Kathmandu", "America/New_York", "UTC"]
COUNTER = re.compile(rb"sc:\{[^}]*\}:[qw]=")
pytestmark = pytest.mark.redis


async def sidecar(folder, *words, status=0):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar", *words[:2], "-c", str(folder / "sidecar.yaml"), *words[2:]),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == status, (words, out, err)
    return out.decode(), err.decode()


def write_documents(folder):
    """Six keys of three customers with zones and anchors of their own."""
    (folder / "policy.yaml").write_text(POLICY)
    keys = [
        f"  - {{ id: k{number}, hash: {stored(digest(key.encode()))!r}, customer: c{number % 3}, "
        f"subject: s{number % 2}, plan: pro, zone: {ZONES[number % 3]}, anchor: '2026-01-{31 - number % 3}' }}\n"
        for number, key in enumerate(KEYS)
    ]
    (folder / "some_keys.yaml").write_text("keys:\n" + "".join(keys))
    (folder / "some_keys.yaml").chmod(0o600)


def complete_settings(folder):
    path = folder / "sidecar.yaml"
    text = path.read_text().replace("policies: p.yaml", "policies: policy.yaml")
    path.write_text(text.replace("file: keys.yaml", "file: some_keys.yaml"))


def counters(cli):
    """The counters of windows that are not 0."""
    names = [key for key in cli.scan_iter("sc:*") if COUNTER.match(key)]
    return {name: int(cli.get(name)) for name in names if int(cli.get(name))}


async def balances(folder):
    words = "--unit", "usd", "--json", "--verify", "--customer"
    shown = await asyncio.gather(*[sidecar(folder, "wallet", "show", *words, f"c{number}") for number in range(3)])
    return [json.loads(out)["balance"] for out, _ in shown]


async def use(running):
    """Grants, requests of six keys on several paths, a void and a correction."""
    folder = running.folder
    words = "--unit", "usd", "--amount", "200", "--expires", "never", "--customer"
    firsts = [
        sidecar(folder, "wallet", "grant", *words, f"c{number}", "--id", f"first-{number}") for number in range(3)
    ]
    await asyncio.gather(*firsts)
    answers = await asyncio.gather(
        *[running.ask("/health" if number % 7 == 0 else "/hello", KEYS[number % 6]) for number in range(300)]
    )
    assert {status for status, _ in answers} == {200}
    words = "--customer", "c0", "--unit", "usd", "--amount", "7", "--expires", "2030-01-01", "--priority", "5"
    await asyncio.gather(
        sidecar(folder, "wallet", "grant", *words, "--id", "second-0"),
        sidecar(folder, "wallet", "void", "--customer", "c1", "--unit", "usd", "--grant", "first-1"),
    )
    usage = [json.loads(line) for line in running.records()]
    billed = [each["id"] for each in usage if each["type"] == "sidecar.usage.v1" and each["data"]["billable"]]
    void, _ = await sidecar(folder, "records", "void", billed[0], "--reason", "test", "--actor", "ann")
    correct, _ = await sidecar(folder, "records", "correct", billed[1], "--units", "bytes=-2", "--reason", "test")
    await asyncio.gather(
        *[running.ask("/hello", key) for key in KEYS]
    )  # a worker reads the ledgers of those it charges
    settles = {("settle", each) for each in (*billed, void.strip(), correct.strip())}
    return settles | {("grant", "second-0"), ("void", "first-1")}


async def until_on_stream(running, names):
    """Wait until there are postings of these grants and exchanges."""
    async with asyncio.timeout(40):
        while True:
            postings = [json.loads(body) for body in running.records() if b"sidecar.posting.v1" in body]
            seen = {(each["data"]["change"], each["data"].get("grant", each.get("causationid"))) for each in postings}
            if names <= seen:
                return
            await asyncio.sleep(0.1)


async def test_after_redis_was_emptied_counters_and_wallets_are_what_they_were(tmp_path, redis_clean):
    # Fails if: excluded records charge quotas, a window is computed in UTC, a void is left out, the settle of a balance
    # is left out, or holds that were released count.
    write_documents(tmp_path)
    settings = f"redis: {{ url: '{redis_clean.url}' }}\n"
    documents = {"SIDECAR_POLICIES": "policy.yaml", "SIDECAR_KEYS__FILE": "some_keys.yaml"}
    async with node(tmp_path, settings, **documents) as running:
        complete_settings(tmp_path)
        await until_on_stream(running, await use(running))
        assert await running.stop() == 0
    await sidecar(tmp_path, "ledger", "load")
    before, credit = counters(redis_clean.cli), await balances(tmp_path)
    assert len(before) >= 3 + 6 + 4 + 6 + 3
    assert (await sidecar(tmp_path, "counters", "drift"))[0] == ""
    redis_clean.cli.flushall()
    drifted, _ = await sidecar(tmp_path, "counters", "rebuild", "--dry-run", status=1)
    assert len(drifted.splitlines()) == len(before)
    assert counters(redis_clean.cli) == {}
    await sidecar(tmp_path, "counters", "rebuild")
    assert counters(redis_clean.cli) == before
    assert all(redis_clean.cli.pttl(key) > 0 for key in before)
    await sidecar(tmp_path, "wallet", "rebuild", "--from-ledger", "--all")
    assert await balances(tmp_path) == credit
    out, _ = await sidecar(tmp_path, "counters", "drift", "--json")
    assert json.loads(out)["counters"] == []
