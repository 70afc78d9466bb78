"""A node without Redis through restarts and `kill -9`: what it counted stays counted, and what was paid stays paid."""

import asyncio
import json
import os
import signal
import sys
import time
from unittest.mock import ANY

from tests.app.node import node
from tests.e2e.stage import free_port, worker_pid

QUOTA = """\
plans:
  free:
    limits:
      - { id: monthly, quota: 5/month, scope: customer }
      - { id: inflight, concurrency: 2, scope: customer }
"""


async def killed(running):
    """SIGKILL the worker, and wait until another one is ready."""
    pid = await worker_pid(running)
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while True:
        _, status = await running.tell("/status")
        workers = [child for child in status["children"] if child["name"].startswith("worker")]
        if workers[0]["ready"] and workers[0]["pid"] not in (0, pid):
            return
        assert time.monotonic() < deadline, (running.folder / "node.log").read_text()
        await asyncio.sleep(0.02)


def open_node(folder, policy, settings="", **more):
    (folder / "policy.yaml").write_text(policy)
    more = {"POLICIES": "policy.yaml", "LISTEN": f"127.0.0.1:{free_port()}", **more}
    return node(folder, settings, **{f"SIDECAR_{name}": value for name, value in more.items()})


async def statuses(running, number):
    return [(await running.ask())[0] for _ in range(number)]


async def test_a_quota_of_five_is_five_through_kills_and_restarts(tmp_path):
    # Fails if nothing is replayed, or if a start does not save.
    async with open_node(tmp_path, QUOTA) as running:
        assert await statuses(running, 2) == [200, 200]
        await killed(running)
        assert await statuses(running, 1) == [200]
        await killed(running)
        await killed(running)
        assert await statuses(running, 1) == [200]
        running.process.kill()
        await running.process.wait()
    async with open_node(tmp_path, QUOTA) as running:
        assert await statuses(running, 2) == [200, 429]
        assert await running.stop() == 0
    async with open_node(tmp_path, QUOTA) as running:
        assert await statuses(running, 1) == [429]
        await killed(running)
        assert await statuses(running, 1) == [429]


def damage(folder):
    """Overwrite four bytes in each of the two states."""
    for name in ("state", "state.previous"):
        with (folder / "data/journal/0" / name).open("r+b") as file:
            file.seek(120)
            file.write(bytes(4))


def left(folder):
    journal = folder / "data/journal/0"
    return sorted(path.name for path in journal.glob("*.seg")), (journal / "epoch").read_bytes()


async def test_a_node_whose_states_are_both_damaged_ends_and_names_them(tmp_path):
    # Fails if a worker finds it out after its journal has started, or is started again for ever.
    async with open_node(tmp_path, QUOTA) as running:
        await killed(running)  # each start saves, so there are two
        epoch = left(tmp_path)[1]
        damage(tmp_path)
        os.kill(await worker_pid(running), signal.SIGKILL)
        assert await asyncio.wait_for(running.process.wait(), 30) == 2
        assert left(tmp_path)[1] == epoch
        log = (tmp_path / "node.log").read_text()
        assert log.count("/state: damaged: the checksum at byte ") == log.count("/state.previous: damaged: ") == 1
        before = left(tmp_path)
        code, out, err = await sidecar(running, "run")
        assert (code, out, left(tmp_path)) == (2, "", before)
        assert "/state: damaged: " in err
        assert "/state.previous: damaged: " in err
        assert "cannot start with this configuration" not in err


PREPAID = """\
meters:
  calls: { count: 1, when: { status: 2xx } }
plans:
  free:
    currency: usd
    prices:
      calls: { per_unit: "0.020000001" }
    limits:
      - { id: credit, balance: usd, over: deny }
"""


async def sidecar(running, *words):
    """Run a command of ours with the node's settings: its exit status, and what it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar", *words, "-c", str(running.folder / "sidecar.yaml")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"SIDECAR_POLICIES": "policy.yaml"},
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


async def balance(running):
    code, out, err = await sidecar(running, "wallet", "show", *WHOSE, "--verify", "--json")
    assert code == 0, err
    return json.loads(out)


WHOSE = ("--customer", "c1", "--unit", "usd")
GRANT = ("wallet", "grant", *WHOSE, "--expires", "never")


async def test_a_wallet_is_what_was_granted_less_what_is_billed_through_kills_and_restarts(tmp_path):
    # Fails if a grant is acknowledged before it is in the journal, or if a record is replayed twice.
    async with open_node(tmp_path, PREPAID) as running:
        assert (await running.ask())[0] == 402
        assert await sidecar(running, *GRANT, "--amount", "0.1", "--id", "one") == (0, "0.1\n", ANY)
        await killed(running)
        assert await statuses(running, 3) == [200] * 3
        await killed(running)
        assert await statuses(running, 2) == [200, 402]
        shown = await balance(running)
        assert (shown["balance"], shown["held"]) == ("0.019999996", "0")
        assert (await sidecar(running, *GRANT, "--amount", "0.1", "--id", "one"))[:2] == (0, "0.019999996\n")
        assert (await sidecar(running, *GRANT, "--amount", "1", "--id", "two"))[:2] == (0, "1.019999996\n")
        assert (await sidecar(running, "wallet", "void", *WHOSE, "--grant", "one"))[:2] == (0, "1\n")
        running.process.kill()
        await running.process.wait()
        assert (await sidecar(running, *GRANT, "--amount", "2", "--id", "three"))[:2] == (0, "3\n")
    async with open_node(tmp_path, PREPAID) as running:
        assert await statuses(running, 1) == [200]
        assert (await balance(running))["balance"] == "2.979999999"
        assert (await sidecar(running, "wallet", "rebuild", *WHOSE, "--dry-run"))[0] == 0


BOTH = (
    PREPAID.rstrip()
    + """
      - { id: monthly, meter: calls, quota: 3/month, scope: customer }
"""
)


async def test_a_void_gives_quota_and_money_back_which_a_kill_does_not_undo(tmp_path):
    # Fails if the change is not in the journal, is repeated by the next start, or has another customer's wallet.
    async with open_node(tmp_path, BOTH) as running:
        assert (await sidecar(running, *GRANT, "--amount", "1", "--id", "one"))[0] == 0
        assert await statuses(running, 4) == [200, 200, 200, 429]
        _, found, _ = await sidecar(running, "records", "find", "--customer", "c1")
        first = next(each for each in map(json.loads, found.splitlines()) if each["type"] == "sidecar.usage.v1")
        code, _, err = await sidecar(running, "records", "void", first["id"], "--reason", "test traffic")
        changed = "counters of its period changed: credit.calls -1, monthly -1; wallet usd +0.020000001"
        assert (code, changed in err) == (0, True), err
        await killed(running)
        assert (await balance(running))["balance"] == "0.959999998"
        await killed(running)
        assert await statuses(running, 2) == [200, 429]
        assert (await balance(running))["balance"] == "0.939999997"
        code, out, err = await sidecar(running, "records", "verify", "--may-begin-late")
        assert code == 0, out + err


MOVED = (
    PREPAID.replace("plans:", "  sent: { value: response.bytes }\nplans:")
    + """\
      - { id: bytes, meter: sent, quota: 27/month, reserve: 1, scope: customer }
"""
)


async def test_a_move_to_redis_and_back_charges_nothing_twice(tmp_path, redis_clean):
    # Fails if the states are not set aside, or if settles of the embedded life are sent to Redis.
    async with open_node(tmp_path, MOVED) as running:
        assert (await sidecar(running, *GRANT, "--amount", "1", "--id", "one"))[0] == 0
        assert await statuses(running, 3) == [200] * 3
        worker = await worker_pid(running)
        running.process.kill()
        os.kill(worker, signal.SIGKILL)
        await running.process.wait()
    redis = f"redis: {{ url: {redis_clean.url}, timeout: 2s }}\n"
    async with open_node(tmp_path, MOVED, redis) as running:
        assert (await balance(running))["balance"] == "0"
        assert (await sidecar(running, *GRANT, "--amount", "0.939999997", "--id", "moved"))[0] == 0
        assert await statuses(running, 5) == [200] * 5  # of 5 bytes each
        assert await running.stop() == 0
    async with open_node(tmp_path, MOVED) as running:
        assert (await balance(running))["balance"] == "0"
        assert (await sidecar(running, *GRANT, "--amount", "0.839999992", "--id", "back"))[0] == 0
        assert await statuses(running, 1) == [200]
        assert (await balance(running))["balance"] == "0.819999991"
        _, metrics = await running.tell("/metrics")
        assert "sidecar_state_damaged_total 0" in metrics
    log = (tmp_path / "node.log").read_text()
    assert log.count("are set aside as state.before-redis") == 1
    assert "may be too low" not in log
    assert "of an earlier start again" not in log
