"""Journals of workers that no longer exist, to the sink: a restart with fewer workers, and a dead node's volume."""

import asyncio
import json
import os
import signal
import socket

import pytest

from sidecar.app import shipping
from sidecar.config.settings import load_settings
from sidecar.core.record.frame import OPEN, Frame, scan
from sidecar.edge.clock import SystemClock
from sidecar.edge.journal import Journal, JournalOptions, orphan_recovery
from sidecar.edge.journal.orphan_recovery import Orphans
from sidecar.supervisor.link import Link
from tests.app.node import node
from tests.app.test_shipping import read_back, write_records
from tests.servers.redis import free_port


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "sidecar.yaml").write_text("node: n1\njournal: { dir: j }\nsink: { file: out.jsonl }\n")
    return load_settings(tmp_path / "sidecar.yaml", {})


def crashed(settings):
    records = [json.loads(line) for line in settings.sink.file.read_bytes().splitlines()]
    return [record["source"].split("/")[-2] for record in records if record["data"].get("outcome") == "crashed"]


async def test_a_dead_node_s_volume_is_closed_before_it_is_shipped(settings):
    # review 1.6, RAN. Fails if `sidecar ship` only carries what is there: exchanges would have no record.
    await write_records(settings, range(1, 5), opens=2)
    await write_records(settings, range(5, 9), "1", opens=1)
    empty, did = await shipping.ship(settings, 10)
    assert (empty, did.orphans.recovered, did.stats()["counts"]["recovered"]) == (True, 3, 3)
    assert sorted(crashed(settings)) == ["0", "0", "1"]
    assert (await read_back(settings))[0].whole
    for worker in ("0", "1"):
        assert len(list((settings.journal.dir / worker).glob("*.seg"))) == 1
    assert (await shipping.ship(settings, 10))[1].stats()["counts"]["shipped"] == 0


async def test_a_shipper_recovers_workers_that_are_gone_and_no_other(settings):
    # The node ran two workers and is started with one. Fails if worker 0 is recovered too: it starts at the same
    # moment, and would find its journal owned.
    await write_records(settings, range(1, 5), "0", opens=1)
    await write_records(settings, range(5, 9), "1", opens=2)
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    link = Link(*await asyncio.open_connection(sock=theirs))
    link.drain_seconds = 10
    running = asyncio.get_running_loop().create_task(shipping.run_shipper(settings, link))
    async with asyncio.timeout(20):
        while not settings.sink.file.exists() or len(settings.sink.file.read_bytes().splitlines()) < 8 + 2 + 1:
            await asyncio.sleep(0.02)
        while link.on_stats()["counts"]["recovered"] < 2:  # counted after the records are in the journal
            await asyncio.sleep(0.02)
        assert link.on_stats()["counts"]["recovered"] == 2
    link.draining.set()
    await asyncio.wait_for(running, 10)
    assert crashed(settings) == ["1", "1"]
    writer.close()
    await link.close()
    assert await reader.read() != b""


async def test_a_worker_that_still_runs_without_its_supervisor_is_waited_for(settings, monkeypatch):
    monkeypatch.setattr(orphan_recovery, "RETRY_SECONDS", 0.02)
    log = Journal(JournalOptions(settings.journal.dir, "3", "//sidecar/local/n1/3"), SystemClock())
    log.start()
    log.checkpoint(0, "p", 0)
    left = Orphans(settings.journal.dir, "//sidecar/local/n1", ["0"])
    task = asyncio.get_running_loop().create_task(left.run())
    assert await left.recover_all() is False
    await log.aclose()
    await asyncio.wait_for(task, 10)
    assert (left.recovered, left.faults) == (0, {})


async def test_a_journal_that_cannot_be_recovered_is_named_and_holds_up_no_other(settings, caplog):
    await write_records(settings, range(1, 5), "1", opens=1)
    await write_records(settings, range(5, 9), "2", opens=1)
    (settings.journal.dir / "1" / "epoch").write_text("what?")
    left = Orphans(settings.journal.dir, "//sidecar/local/n1", ["0"])
    assert [await left.recover_all(), await left.recover_all()] == [False, False]
    assert left.recovered == 1
    assert list(left.faults) == ["1"]
    assert caplog.text.count("the journal of worker 1, which no longer exists, cannot be recovered") == 1
    empty, did = await shipping.ship(settings, 10)
    assert (empty, list(did.orphans.faults)) == (False, ["1"])
    (settings.journal.dir / "1" / "epoch").unlink()
    assert (await left.recover_all(), left.recovered, left.faults) == (True, 2, {})


@pytest.mark.redis
async def test_a_node_that_is_killed_and_comes_back_with_fewer_workers_records_what_was_under_way(tmp_path, make_redis):
    # With real processes. Fails if nobody looks at the journal of worker 1: its exchanges would have no record, ever.
    redis, port = f"redis: {{ url: '{make_redis().url}' }}\n", f"127.0.0.1:{free_port()}"
    async with node(tmp_path, f"workers: 2\n{redis}", SIDECAR_LISTEN=port) as running:
        status = await running.until(lambda status: all(child["ready"] for child in status["children"]))
        asked = [asyncio.get_running_loop().create_task(running.ask("/slow")) for _ in range(24)]
        journals = [tmp_path / "data" / "journal" / worker for worker in ("0", "1")]
        async with asyncio.timeout(10):
            while not all(_opened(journal) for journal in journals):
                await asyncio.sleep(0.01)
        running.process.kill()
        for child in status["children"]:
            os.kill(child["pid"], signal.SIGKILL)
        answers = await asyncio.gather(*asked, return_exceptions=True)
    opened = {id_ for journal in journals for id_ in _opened(journal)}
    async with node(tmp_path, f"workers: 1\n{redis}") as running:
        async with asyncio.timeout(20):
            while len(ended := _ended(running)) < len(opened):
                await asyncio.sleep(0.05)
        assert (await running.ask())[0] == 200
        assert await running.stop() == 0
    assert set(ended) == opened
    assert {source.split("/")[-2] for source in ended.values()} == {"0", "1"}
    assert all(isinstance(answer, Exception) for answer in answers)
    assert len(list(journals[1].glob("*.seg"))) == 1


def _opened(journal):
    """Ids of the OPEN entries in a worker's folder."""
    found = set()
    for path in journal.glob("*.seg"):
        found |= {
            item.id.decode() for _, item in scan(path.read_bytes()) if isinstance(item, Frame) and item.type == OPEN
        }
    return found


def _ended(running):
    records = [json.loads(line) for line in running.records()]
    return {record["id"]: record["source"] for record in records if record["data"].get("outcome") == "crashed"}
