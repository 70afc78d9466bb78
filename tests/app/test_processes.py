import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from sidecar.app import processes
from sidecar.app.processes import roles
from sidecar.config.settings import load_settings
from sidecar.edge.journal.journals import JournalFolder
from tests.app.node import KEY, POLICY, node
from tests.servers import certificates
from tests.servers.ipv6 import needs_ipv6


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


@pytest.mark.redis
async def test_a_redis_that_may_evict_is_in_the_log_of_a_node_that_starts(tmp_path, make_redis):
    redis = make_redis()
    redis.cli.config_set("maxmemory-policy", "allkeys-lru")
    async with node(tmp_path, SIDECAR_REDIS__URL=redis.url) as running:
        async with asyncio.timeout(15):
            while "maxmemory-policy is allkeys-lru" not in (tmp_path / "node.log").read_text():
                await asyncio.sleep(0.05)
        # Fails if the node is not ready before, or does not serve.
        assert (await running.ask())[0] == 200


async def test_an_odd_answer_of_redis_at_the_start_is_a_line_and_ends_no_node(monkeypatch, caplog):
    async def odd(_settings):
        raise ValueError("odd")

    monkeypatch.setattr(processes, "evictions_of", odd)
    # Fails if it leaves the task, whose group is the node.
    await processes._warn_of_evictions(load_settings(None, {}))
    assert "it is not known whether it may evict counters: ValueError('odd')" in caplog.text


async def test_beyond_max_connections_a_client_waits_until_another_leaves(tmp_path):
    # Fails if the worker's wheel does not check the acceptor.
    async with node(tmp_path, SIDECAR_HTTP__MAX_CONNECTIONS="1") as running:
        address = running.where.rpartition("/")[2].split(":")
        _, first = await asyncio.open_connection(*address)
        reader, second = await asyncio.open_connection(*address)
        second.write(b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n")
        await _until_metric(running, 'sidecar_accept_pauses_total{reason="max_connections"} 1.0')
        first.close()
        assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 401 ")
        second.close()
        metrics = (await running.tell("/metrics"))[1]
        assert "sidecar_max_connections 1.0" in metrics
        assert 'sidecar_accept_pauses_total{reason="descriptors"} 0.0' in metrics


async def _until_metric(running, line):
    async with asyncio.timeout(15):
        while line not in (await running.tell("/metrics"))[1]:
            await asyncio.sleep(0.05)


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


async def test_a_second_start_by_mistake_says_which_node_runs_and_harms_nothing(tmp_path):
    # Fails if the lock is taken after the copies that another node left are deleted.
    async with node(tmp_path) as running:
        await running.until(lambda status: status["ready"])
        second = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sidecar", "run", "-c", str(tmp_path / "sidecar.yaml")),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await asyncio.wait_for(second.communicate(), 20)
        assert second.returncode == 1
        assert f"is used by the node with pid {running.process.pid}: stop it" in said.decode()
        status = await running.until(lambda status: status["ready"])
        os.kill(status["children"][0]["pid"], signal.SIGKILL)
        status = await running.until(lambda status: status["children"][0]["restarts"] == 1 and status["ready"])
        running.where = f"http://{status['children'][0]['listening']}"
        assert await running.ask() == (200, "hello")


async def test_an_edit_that_no_validation_foresaw_is_a_failed_reload(tmp_path):
    async with node(tmp_path) as running:
        (tmp_path / "p.yaml").write_text("plans: { free: { version: " + "1" * 5_000 + " } }\n")
        status = await running.until(lambda status: status["policy"]["failed_reloads"])
        assert status["policy"]["faults"][0].startswith(f"{tmp_path}/p.yaml:1: plans.free.version: is a number of more")
        assert await running.ask() == (200, "hello")


async def test_a_revoked_key_is_refused_without_a_signal(tmp_path):
    async with node(tmp_path) as running:
        assert (await running.ask())[0] == 200
        (tmp_path / "keys.yaml").write_text("keys: []\n")
        began = time.monotonic()
        while (await running.ask())[0] != 401:
            assert time.monotonic() - began < 5
            await asyncio.sleep(0.05)


async def test_a_store_that_is_away_at_start_holds_readiness_back_and_nothing_else(tmp_path):
    away = "redis: { url: 'redis://127.0.0.1:1/0' }\n"
    async with node(tmp_path, away, SIDECAR_DRAIN_SECONDS="1") as running:
        assert (await running.ask())[0] == 200
        code, told = await running.tell("/readyz")
        assert code == 503
        assert any("redis has not answered yet" in reason for reason in told["reasons"])
        assert await running.stop() == 0


async def test_a_broker_that_is_away_at_start_is_told_and_the_node_is_ready(tmp_path):
    # Fails if the shipper's needs count among the node's.
    async with node(tmp_path, "kafka: { bootstrap_servers: '127.0.0.1:1' }\n", SIDECAR_DRAIN_SECONDS="1") as running:
        assert (await running.ask())[0] == 200
        status = await running.until(lambda status: status["children"][1]["away"])
        assert status["ready"]
        code, told = await running.tell("/readyz")
        assert code == 200
        assert "kafka has not answered yet" in told["degraded"]["shipper"]
        assert 'sidecar_child_ready{process="shipper"} 0.0' in (await running.tell("/metrics"))[1]


async def test_a_node_whose_journal_takes_nothing_more_is_not_ready_until_it_does(tmp_path):
    # Fails if the worker does not look at `accepting`: each request would be a 503 of a node that says it is ready.
    more = "kafka: { bootstrap_servers: '127.0.0.1:1' }\njournal: { cap_bytes: 131072, segment_bytes: 65536 }\n"
    async with node(tmp_path, more, SIDECAR_DRAIN_SECONDS="1") as running:
        deadline = time.monotonic() + 20
        while (await running.ask())[0] != 503:
            assert time.monotonic() < deadline
        status = await running.until(lambda status: not status["ready"])
        assert "takes no more records" in status["reasons"][0]
        for segment in (tmp_path / "data" / "journal" / "0").glob("*.seg"):
            segment.unlink()  # as a shipper that ships would
        await running.until(lambda status: status["ready"])
        assert (await running.ask())[0] == 200


async def test_a_customer_over_its_limit_fills_no_journal_and_takes_nobody_down(tmp_path):
    # Mutation: `admits` always says yes; the other key is answered 503 after some 370 denials.
    more = "kafka: { bootstrap_servers: '127.0.0.1:1' }\njournal: { cap_bytes: 262144, segment_bytes: 65536 }\n"
    async with node(tmp_path, more, rate=1, SIDECAR_DRAIN_SECONDS="1") as running:
        refused = served = 0
        deadline = time.monotonic() + 30
        while refused < 2_000:
            assert time.monotonic() < deadline
            asked = [status for status, _ in await asyncio.gather(*(running.ask() for _ in range(50)))]
            assert set(asked) <= {200, 429}
            refused, served = refused + asked.count(429), served + asked.count(200)
        await asyncio.sleep(1.1)  # the limit's second
        assert (await running.ask())[0] == 200
        lines = (await running.tell("/metrics"))[1].splitlines()
        shown = {line.split()[0]: float(line.split()[1]) for line in lines if line[0] != "#"}
        assert shown["sidecar_unrecorded_total"] == 0
        assert shown["sidecar_denials_recorded_total"] < 262_144 // 10 // 500
        parts = ("recorded_total", "summarised_total", "waiting")
        assert sum(shown[f"sidecar_denials_{part}"] for part in parts) == refused
        await running.stop()
    found = [
        json.loads(entry.body) for entry in JournalFolder(tmp_path / "data" / "journal").reader("0", None).read(1 << 20)
    ]
    counts: Counter[str] = Counter()
    for record in found:
        counts[record["type"].split(".")[1]] += record["data"].get("count", 1)
    assert counts["denial"] + counts["denial-summary"] == refused
    assert counts["usage"] == served + 1


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
    sockets = [[100], [101]]
    *workers, shipper = roles(load_settings(None, on_redis), sockets)
    hands = [role.command[role.command.index("--lease-fd") + 1] for role in workers]
    assert [(100, 101, hand) for hand in map(int, hands)] == [role.keeps for role in workers]
    assert len(set(hands)) == 2
    leaseless = roles(load_settings(None, on_redis | {"SIDECAR_REDIS__LEASES": "no"}), sockets)
    assert not any("--lease-fd" in role.command for role in [*leaseless, shipper])
    assert not shipper.keeps
    for hand in hands:
        os.close(int(hand))


def test_each_worker_listens_on_its_own_sockets_and_is_handed_those_of_all():
    settings = load_settings(
        None, {"SIDECAR_REDIS__URL": "redis://h", "SIDECAR_REDIS__LEASES": "no", "SIDECAR_WORKERS": "2"}
    )
    one, two, _ = roles(settings, [[100, 102], [101, 103]])
    assert (one.listens, two.listens) == ((100, 102), (101, 103))
    assert one.keeps == two.keeps == (100, 102, 101, 103)
    assert one.command[one.command.index("--listen") + 1 :] == ("100,102", "--others", "101,103")


@needs_ipv6
async def test_all_addresses_are_served_by_tls_and_kept_over_a_reload_and_a_restart(tmp_path):
    # Fails if a successor inherits the first socket alone, or if TLS is that of the first address.
    certificates.make(tmp_path)
    more = "tls: { cert: server.pem, key: server.key }\n"
    listens = {"SIDECAR_LISTEN": ":0,[::1]:0", "SIDECAR_CONTROL__LISTEN": "[::1]:0"}
    async with node(tmp_path, more, **listens) as running:
        status = await running.until(lambda status: status["ready"])
        both, six = (int(each.rpartition(":")[2]) for each in status["children"][0]["listening"].split(", "))
        places = [f"https://{where}/hello" for where in (f"127.0.0.1:{both}", f"[::1]:{both}", f"[::1]:{six}")]

        async def statuses():
            answers = [await running.session.get(place, headers={"X-Api-Key": KEY}, ssl=False) for place in places]
            return [answer.status for answer in answers]

        assert await statuses() == [200, 200, 200]
        (tmp_path / "p.yaml").write_text(POLICY % (900, 900))
        version = status["policy"]["version"]
        await running.until(lambda status: status["policy"]["version"] != version)
        os.kill(status["children"][0]["pid"], signal.SIGKILL)
        await running.until(lambda status: status["children"][0]["restarts"] == 1 and status["ready"])
        assert await statuses() == [200, 200, 200]
