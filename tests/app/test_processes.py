import asyncio
import json
import os
import signal
import time
from pathlib import Path

from sidecar.app.processes import roles
from sidecar.config.settings import load_settings
from tests.app.node import POLICY, node


def kinds(records):
    return [json.loads(record)["type"].split(".")[1] for record in records]


async def test_a_node_serves_is_ready_and_its_records_are_there_after_the_drain(tmp_path):
    async with node(tmp_path) as running:
        assert await running.ask() == (200, "hello")
        assert (await running.ask(key=""))[0] == 401
        assert (await running.tell("/livez"))[0] == 200
        await running.until(lambda status: status["ready"])  # the shipper may still be starting
        assert (await running.tell("/readyz"))[0] == 200
        metrics = (await running.tell("/metrics"))[1]
        assert 'sidecar_requests_total{route="default",status="2xx"} 1.0' in metrics
        assert await running.stop() == 0
        assert kinds(running.records()).count("usage") == 1


async def test_a_request_under_way_is_finished_in_the_drain_and_recorded(tmp_path):
    # Fails if the shipper is drained together with the workers.
    async with node(tmp_path) as running:
        slow = asyncio.get_running_loop().create_task(running.ask("/slow"))
        await running.until(lambda status: status["children"][0]["stats"].get("gauges", {}).get("exchanges", 0) == 1)
        assert await running.stop() == 0
        assert await slow == (200, "hello")
        assert kinds(running.records()).count("usage") == 1


async def test_a_killed_worker_is_started_again_on_its_journal_and_serves(tmp_path):
    async with node(tmp_path) as running:
        assert (await running.ask())[0] == 200
        status = await running.until(lambda status: status["ready"])
        os.kill(status["children"][0]["pid"], signal.SIGKILL)
        status = await running.until(lambda status: status["children"][0]["restarts"] == 1 and status["ready"])
        running.where = f"http://{status['children'][0]['listening']}"
        assert (await running.ask())[0] == 200
        assert await running.stop() == 0
        records = [json.loads(record) for record in running.records()]
        usage = [record for record in records if ".usage." in record["type"]]
        assert len(usage) == 2
        assert len({record["source"] for record in usage}) == 2


async def test_an_edited_policy_comes_into_force_and_a_wrong_one_changes_nothing(tmp_path):
    async with node(tmp_path) as running:
        version = (await running.tell("/status"))[1]["policy"]["version"]
        (tmp_path / "p.yaml").write_text(POLICY % (1, 1))
        await running.until(lambda status: status["policy"]["version"] != version)
        assert [(await running.ask())[0] for _ in range(2)] == [200, 429]
        (tmp_path / "p.yaml").write_text("plans: nonsense\n")
        running.process.send_signal(signal.SIGHUP)
        status = await running.until(lambda status: status["policy"]["failed_reloads"])
        assert str(tmp_path / "p.yaml") in status["policy"]["faults"][0]
        assert "sidecar_policy_reload_success 0.0" in (await running.tell("/metrics"))[1]
        assert (await running.tell("/readyz"))[0] == 200
        assert (await running.ask())[0] in {200, 429}


async def test_a_worker_that_dies_after_a_wrong_edit_starts_again_on_what_was_right(tmp_path):
    # Fails if children read the files as edited.
    async with node(tmp_path) as running:
        status = await running.until(lambda status: status["ready"])
        (tmp_path / "p.yaml").write_text("plans: nonsense\n")
        (tmp_path / "sidecar.yaml").write_text("nonsense: 1\n")
        await running.until(lambda status: status["policy"]["failed_reloads"])
        os.kill(status["children"][0]["pid"], signal.SIGKILL)
        status = await running.until(lambda status: status["children"][0]["restarts"] == 1 and status["ready"])
        running.where = f"http://{status['children'][0]['listening']}"
        assert (await running.ask())[0] == 200


async def test_a_revoked_key_is_refused_without_a_signal(tmp_path):
    async with node(tmp_path) as running:
        assert (await running.ask())[0] == 200
        (tmp_path / "keys.yaml").write_text("keys: []\n")
        began = time.monotonic()
        while (await running.ask())[0] != 401:
            assert time.monotonic() - began < 5
            await asyncio.sleep(0.05)


async def test_a_store_and_a_broker_that_are_away_at_start_hold_readiness_back_and_nothing_else(tmp_path):
    away = "redis: { url: 'redis://127.0.0.1:1/0' }\nkafka: { bootstrap_servers: '127.0.0.1:1' }\n"
    async with node(tmp_path, away, SIDECAR_DRAIN_SECONDS="1") as running:
        assert (await running.ask())[0] == 200
        code, told = await running.tell("/readyz")
        assert code == 503
        assert any("redis has not answered yet" in reason for reason in told["reasons"])
        assert any("kafka has not answered yet" in reason for reason in told["reasons"])
        assert await running.stop() == 0


async def test_the_children_of_a_killed_supervisor_finish_and_go(tmp_path):
    async with node(tmp_path) as running:
        pids = [child["pid"] for child in (await running.tell("/status"))[1]["children"]]
        assert (await running.ask())[0] == 200
        running.process.kill()
        await running.process.wait()
        deadline = time.monotonic() + 15
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert kinds(running.records()).count("usage") == 1


def test_each_worker_that_leases_has_memory_of_its_own_that_outlives_it():
    on_redis = {"SIDECAR_REDIS__URL": "redis://127.0.0.1:1", "SIDECAR_WORKERS": "2"}
    *workers, shipper = roles(load_settings(None, on_redis))
    hands = [role.command[role.command.index("--hand") + 1] for role in workers]
    assert [(hand,) for hand in map(int, hands)] == [role.keeps for role in workers]
    assert len(set(hands)) == 2
    for others in (roles(load_settings(None, on_redis | {"SIDECAR_REDIS__LEASES": "no"})), [shipper]):
        assert not any(role.keeps or "--hand" in role.command for role in others)
    for hand in hands:
        os.close(int(hand))
