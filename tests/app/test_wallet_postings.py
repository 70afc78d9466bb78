"""The postings of wallets on the stream of a whole node, through kills of its worker."""

import asyncio
import json
import os
import signal
import sys

import pytest

from sidecar.records.verify import verify
from tests.app.node import node
from tests.e2e.stage import worker_pid

POLICY = """\
plans:
  free:
    currency: usd
    prices: { requests: { per_unit: "0.5" } }
    limits: [{ id: credit, balance: usd }]
"""
WHOSE = ("--customer", "c1", "--unit", "usd")


async def wallet(folder, *words):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar", "wallet", words[0], "-c", str(folder / "sidecar.yaml"), *WHOSE, *words[1:]),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    return out.decode()


async def grant(folder, name):
    return await wallet(folder, "grant", "--amount", "10", "--expires", "never", "--id", name)


def postings(running):
    bodies = [body for body in running.records() if b"sidecar.posting.v1" in body]
    return {record["id"]: record for record in map(json.loads, bodies)}


async def until(condition, seconds=20):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


async def use_through_kills(running):
    """Grants, requests and kills; the balance by the wallet itself."""
    await grant(running.folder, "g1")
    answers = []
    for number in range(3):
        status = await running.until(lambda status: status["ready"])
        running.where = f"http://{status['children'][0]['listening']}"
        answers += [(await running.ask())[0] for _ in range(4)]
        if number == 1:
            await grant(running.folder, "g2")
        os.kill(await worker_pid(running), signal.SIGKILL)
        restarts = number + 1
        await running.until(lambda status, restarts=restarts: status["children"][0]["restarts"] == restarts)
    assert answers == [200] * 12
    await running.until(lambda status: status["ready"])


@pytest.mark.parametrize("stored", [pytest.param("redis", marks=pytest.mark.redis), "memory"])
async def test_through_kills_the_postings_on_the_stream_sum_up_to_the_wallet(tmp_path, stored, request):
    # Fails if a killed worker takes postings with it, or if a repeated one has another id: the sums would differ.
    settings = ""
    if stored == "redis":
        settings = f"redis: {{ url: '{request.getfixturevalue('redis_clean').url}' }}\n"
    (tmp_path / "policy.yaml").write_text(POLICY)
    async with node(tmp_path, settings, SIDECAR_POLICIES="policy.yaml") as running:
        text = (tmp_path / "sidecar.yaml").read_text().replace("policies: p.yaml", "policies: policy.yaml")
        (tmp_path / "sidecar.yaml").write_text(text)
        await use_through_kills(running)
        await until(lambda: len(postings(running)) == 14)
        assert await running.stop() == 0
        made, bodies = postings(running), running.records()
    shown = json.loads(await wallet(tmp_path, "show", "--json"))
    assert shown["balance"] == "14"
    assert sum(each["data"]["delta"] for each in made.values()) == 14 * 10**9
    usage = {each["id"] for each in map(json.loads, bodies) if each["type"] == "sidecar.usage.v1"}
    settles = {each["causationid"] for each in made.values() if each["data"]["change"] == "settle"}
    assert settles == usage
    charges = [each["data"]["charges"] for each in made.values() if "charges" in each["data"]]
    assert charges == [[{"meter": "requests", "units": 1, "amount": 5 * 10**8}]] * 12
    assert verify(bodies).whole
