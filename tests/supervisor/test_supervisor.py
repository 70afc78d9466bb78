import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from sidecar.core.errors import Fault, PolicyError
from sidecar.edge.journal.backlog import Backlog
from sidecar.supervisor import supervisor as module
from sidecar.supervisor.supervisor import Supervisor
from tests.supervisor.nodes import STAND_IN, node, running, until, until_ready


async def test_a_node_is_ready_when_every_worker_has_said_so_and_announces_once_where_it_listens(tmp_path):
    # Fails if one worker's word is enough for the line, or if a worker that is started again repeats it.
    lines = []
    hows = (("good", 0), (f"later:{tmp_path / 'go'}", 0), ("waits:never", 1))
    async with running(node(*hows, announce=lines.append, listening=["http://[::1]:1", "http://127.0.0.1:1"])) as (
        supervisor,
        _,
    ):
        assert supervisor.stopping.is_set() is False
        await until(lambda: supervisor.slots[0].child and supervisor.slots[0].child.status.served)
        assert "later-1: starting" in (await supervisor.view()).reasons()
        assert lines == []
        (tmp_path / "go").touch()
        await until_ready(supervisor)
        supervisor.slots[0].child.kill()
        await until(lambda: supervisor.slots[0].restarts == 1)
        await until_ready(supervisor)
        assert lines == ["listening on http://[::1]:1", "listening on http://127.0.0.1:1"]


async def test_figures_of_all_children_are_added_up():
    async with running(node(("good", 0), ("good", 0))) as (supervisor, _):
        await until_ready(supervisor)
        view = await supervisor.view()
        assert view.totals.requests == {"r|2xx": 6}
        assert [child.stats["gauges"]["connections"] for child in view.children] == [1, 1]


async def test_a_killed_child_is_started_again_and_what_it_had_counted_stays_counted():
    # Fails if _live forgets to add the last figures to what is left.
    async with running(node(("good", 0))) as (supervisor, _):
        await until_ready(supervisor)
        await supervisor.view()
        first = supervisor.slots[0].child.process.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: supervisor.slots[0].restarts == 1)
        await until_ready(supervisor)
        view = await supervisor.view()
        assert view.children[0].pid != first
        assert view.totals.requests == {"r|2xx": 6}
        assert view.children[0].restarts == 1


async def test_a_crash_loop_leaves_the_other_child_alone_and_says_how_it_ended():
    async with running(node(("dies", 0), ("good", 0))) as (supervisor, _):
        await until(lambda: supervisor.slots[1].child and supervisor.slots[1].child.status.served)
        await until(lambda: supervisor.slots[0].restarts >= 2)
        view = await supervisor.view()
        assert supervisor.slots[0].last_status == "ended with SIGKILL, is restarted"
        assert [reason.partition(":")[0] for reason in view.reasons()] == ["dies-0"]
        assert view.children[1].ready
        assert view.children[1].restarts == 0


def pauses(caplog):
    return [each.fields["pause_seconds"] for each in caplog.records if "is restarted" in each.getMessage()]


async def test_pauses_between_restarts_grow_and_are_capped(monkeypatch, caplog):
    # Fails if each pause is the first one.
    assert sorted(module.PAUSES_SECONDS) == list(module.PAUSES_SECONDS)
    monkeypatch.setattr(module, "PAUSES_SECONDS", (0.01, 0.02, 0.05))
    async with running(node(("dies", 0))) as (supervisor, _):
        await until(lambda: supervisor.slots[0].restarts >= 5, 60)
    assert pauses(caplog)[:5] == [0.01, 0.02, 0.05, 0.05, 0.05]


async def test_a_child_that_was_steady_is_started_again_after_the_first_pause(monkeypatch, caplog):
    # Fails if deaths are counted for the whole life of the node.
    monkeypatch.setattr(module, "PAUSES_SECONDS", (0.01, 0.02))
    monkeypatch.setattr(module, "STEADY_SECONDS", 0)
    async with running(node(("dies", 0))) as (supervisor, _):
        await until(lambda: supervisor.slots[0].restarts >= 3, 60)
    assert pauses(caplog)[:3] == [0.01, 0.01, 0.01]


async def test_nobody_is_started_during_a_pause_and_a_stop_ends_it(monkeypatch):
    # Fails if the pause is not waited for, or if a stop waits for its end.
    monkeypatch.setattr(module, "PAUSES_SECONDS", (0.01, 3600))
    async with running(node(("dies", 0))) as (supervisor, task):
        await until(lambda: supervisor.slots[0].restarts == 2)
        with pytest.raises(AssertionError, match="not in time"):
            await until(lambda: supervisor.slots[0].child, 1)
        supervisor.stop()
        assert await asyncio.wait_for(asyncio.shield(task), 10) == 0


async def test_a_child_that_can_never_start_ends_the_node_with_status_2():
    supervisor = Supervisor(node(("wrong", 0), ("good", 0)))
    assert await asyncio.wait_for(supervisor.run(), 20) == 2


# Fails if the status is one among others once the node has announced itself: its clients would wait for ever.
async def test_a_worker_whose_state_is_lost_ends_the_node_although_it_has_served(tmp_path):
    async with running(node((f"spoilt:{tmp_path / 'now'}", 0), ("good", 1))) as (supervisor, task):
        await until_ready(supervisor)
        (tmp_path / "now").touch()
        supervisor.slots[0].child.kill()
        assert await asyncio.wait_for(asyncio.shield(task), 20) == 2


async def test_a_node_with_wrong_policies_does_not_start():
    def load():
        raise PolicyError([Fault("p.yaml", 1, "plans", "wrong")])

    with pytest.raises(PolicyError, match=r"p\.yaml:1: plans: wrong"):
        await Supervisor(node(("good", 0), load=load)).reloads.load()


async def test_processes_start_while_policies_are_loaded_and_are_the_first_children():
    # Fails if they are started after that, or if `run` starts others.
    spares = []
    the_node = node(("good", 0), ("good", 1))
    supervisor = Supervisor(the_node)
    the_node.load = lambda: spares.extend(slot.spare.process.pid for slot in supervisor.slots) or "v1"
    await supervisor.load()
    assert [slot.spare.status.not_ready for slot in supervisor.slots] == ["starting", "starting"]
    task = asyncio.get_running_loop().create_task(supervisor.run())
    await until_ready(supervisor)
    assert [slot.child.process.pid for slot in supervisor.slots] == spares
    os.kill(spares[0], signal.SIGKILL)
    await until(lambda: supervisor.slots[0].restarts == 1)
    await until_ready(supervisor)
    supervisor.stop()
    assert await asyncio.wait_for(task, 10) == 0


async def test_processes_end_where_the_policies_are_wrong():
    the_node = node(("good", 0))
    supervisor, pids = Supervisor(the_node), []

    def load():
        pids.append(supervisor.slots[0].spare.process.pid)
        raise PolicyError([Fault("p.yaml", 1, "plans", "wrong")])

    the_node.load = load
    with pytest.raises(PolicyError):
        await supervisor.load()
    await supervisor.dismiss()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


async def test_a_drain_ends_workers_before_the_shipper(capfd):
    # Fails if _drain asks all stages at once.
    supervisor = Supervisor(node(("good", 1), ("slow", 0), drain_seconds=1))
    task = asyncio.get_running_loop().create_task(supervisor.run())
    await until_ready(supervisor)
    supervisor.stop()
    assert await asyncio.wait_for(task, 10) == 0
    said = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [next(iter(line)) for line in said] == ["drain", "cut", "drain"]
    assert said[0]["start"] == {"do": "start", "hello": 1, "drain_seconds": 1}
    assert [line.get("drain") for line in said] == ["slow", None, "good"]


async def test_a_shipper_that_waits_for_its_restart_is_started_for_the_drain(tmp_path, capfd, monkeypatch):
    # Fails if a stop ends its keeper in the pause: nothing would be shipped, and the exit status would be 0 (V8).
    monkeypatch.setattr(module, "PAUSES_SECONDS", (0.1, 60))
    supervisor = Supervisor(node(("good", 0), (f"waits:{tmp_path / 'go'}", 1)))
    task = asyncio.get_running_loop().create_task(supervisor.run())
    await until(lambda: supervisor.slots[1].restarts == 2)
    (tmp_path / "go").touch()
    supervisor.stop()
    assert await asyncio.wait_for(task, 10) == 0
    said = [json.loads(line)["drain"].partition(":")[0] for line in capfd.readouterr().out.splitlines()]
    assert said == ["good", "waits"]


async def test_a_shipper_that_dies_in_its_drain_is_started_again(tmp_path):
    # Fails if a death in the drain counts as its end.
    supervisor = Supervisor(node(("good", 0), (f"waits:{tmp_path / 'go'}", 1), drain_seconds=60))
    task = asyncio.get_running_loop().create_task(supervisor.run())
    await until(lambda: supervisor.slots[1].restarts)
    supervisor.stop()
    await until(supervisor.slots[1].draining.is_set)
    before = supervisor.slots[1].restarts
    await until(lambda: supervisor.slots[1].restarts > before + 1)
    assert not task.done()
    (tmp_path / "go").touch()
    assert await asyncio.wait_for(task, 10) == 0


async def test_a_shipper_that_dies_again_and_again_ends_with_its_drain():
    # Fails if the deadline is not looked at: the node would never end.
    supervisor = Supervisor(node(("good", 0), ("dies", 1), drain_seconds=1))
    task = asyncio.get_running_loop().create_task(supervisor.run())
    await until(lambda: supervisor.slots[0].child and supervisor.slots[0].child.status.served)
    supervisor.stop()
    await asyncio.wait_for(task, 20)


async def test_records_that_are_left_are_told_and_are_exit_status_1(caplog):
    # Fails if a drain that ended at its deadline with a full journal says that all went well.
    supervisor = Supervisor(node(("good", 0), ("good", 1), backlog=lambda: Backlog(4_096, 7_000_000)))
    task = asyncio.get_running_loop().create_task(supervisor.run())
    await until_ready(supervisor)
    view = await supervisor.view()
    assert view.own == {"gauges": {"journal_backlog_bytes": 4_096}, "ages_us": {"journal_oldest": 7_000_000}}
    supervisor.stop()
    assert await asyncio.wait_for(task, 10) == 1
    assert "4096 bytes of the journal are not shipped, the oldest record is 7 s old" in caplog.text


@pytest.mark.parametrize("when", ["starting", "serving", "draining"])
async def test_a_second_signal_hurries(when, capfd, monkeypatch):
    # Fails if `stop` does not tell the children (those that drain), or `_send_drain` does not (one that starts).
    monkeypatch.setattr(module, "ABORT_SECONDS", 60)
    supervisor = Supervisor(node(("slow", 0), drain_seconds=60))
    task = asyncio.get_running_loop().create_task(supervisor.run())
    if when != "starting":
        await until_ready(supervisor)
    supervisor.stop()
    if when == "draining":
        await until(supervisor.slots[0].draining.is_set)
    supervisor.stop()
    assert await asyncio.wait_for(task, 50) == 0
    assert json.loads(capfd.readouterr().out.splitlines()[-1]) == {"cut": "slow", "aborting": True}


async def test_a_child_that_does_not_end_in_time_is_killed_and_the_status_says_so(monkeypatch):
    monkeypatch.setattr(module, "GRACE_SECONDS", 0)
    supervisor = Supervisor(node(("deaf", 0), drain_seconds=1))
    task = asyncio.get_running_loop().create_task(supervisor.run())
    await until_ready(supervisor)
    supervisor.stop()
    assert await asyncio.wait_for(task, 10) == 1


async def test_a_stuck_child_is_not_ready_and_is_killed_in_the_end(monkeypatch):
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(module, "STATS_SECONDS", 0.05)
    monkeypatch.setattr(module, "MISSED_BEATS", 4)
    async with running(node(("hangs", 0))) as (supervisor, _):
        await until(lambda: supervisor.slots[0].child and supervisor.slots[0].child.status.served)
        await until(lambda: supervisor.slots[0].child.status.missed > 1)
        assert "does not answer" in supervisor.slots[0].child.status.reasons()[0]
        await until(lambda: supervisor.slots[0].restarts == 1)


async def test_a_dependency_that_never_answered_is_a_reason_and_one_that_is_away_later_is_not():
    async with running(node(("lonely", 0))) as (supervisor, _):
        await until(lambda: supervisor.slots[0].child and supervisor.slots[0].child.status.served)
        view = await supervisor.view()
        assert view.reasons() == ["lonely-0: redis has not answered yet: refused"]
        status = supervisor.slots[0].child.status
        status.on_message({"back": "redis"})
        status.on_message({"away": "redis", "why": "gone"})
        view = await supervisor.view()
        assert view.reasons() == []
        assert view.degraded() == {"lonely-0 redis": "gone"}


async def test_children_of_a_killed_supervisor_drain_and_end(tmp_path):
    # Fails if a child takes an end of file for silence.
    script = (
        "import asyncio, sys\n"
        "from sidecar.supervisor.roles import *\nfrom sidecar.supervisor.supervisor import *\n"
        "def tell(line): print(s.slots[0].child.process.pid, flush=True)\n"
        f"role = Role('w', (sys.executable, {STAND_IN!r}, 'good'))\n"
        "s = Supervisor(Setup('t', [role], {}, 1, announce=tell, listening=['one']))\n"
        "asyncio.run(s.run())\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    pid = int(await asyncio.wait_for(process.stdout.readline(), 20))
    process.kill()
    await process.wait()
    said = json.loads(await asyncio.wait_for(process.stdout.readline(), 10))
    assert said["drain"] == "good"
    await until(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.parametrize("how", ["slow", "good"])
async def test_signals_to_the_whole_group_reach_children_only_through_the_supervisor(how):
    async with running(node((how, 0))) as (supervisor, _):
        await until_ready(supervisor)
        child = supervisor.slots[0].child
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(child.process.pid, number)
        # Fails if a child does not ignore them: what it is asked after them it could not answer.
        assert await child.refresh_stats(5) is True
        assert not child.status.reasons()
