import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from sidecar.app import supervisor as module
from sidecar.app.supervisor import Role, Setup, Supervisor
from sidecar.core.errors import Fault, PolicyError

STAND_IN = str(Path(__file__).with_name("stand_in.py"))


def node(*hows, drain_seconds=5, **more):
    roles = [
        Role(f"{how}-{i}", (sys.executable, STAND_IN, how), stage, ("redis",) if how == "lonely" else ())
        for i, (how, stage) in enumerate(hows)
    ]
    return Setup(version="t", roles=roles, start={"hello": 1}, drain_seconds=drain_seconds, **more)


@contextlib.asynccontextmanager
async def running(the_node):
    supervisor = Supervisor(the_node)
    task = asyncio.get_running_loop().create_task(supervisor.run())
    try:
        yield supervisor, task
    finally:
        supervisor.stop()
        supervisor.stop()
        await task


async def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.01)
    return found


async def until_ready(supervisor):
    async def ready():
        return not (await supervisor.view()).reasons()

    deadline = time.monotonic() + 10
    while not await ready():
        assert time.monotonic() < deadline, (await supervisor.view()).reasons()
        await asyncio.sleep(0.01)


async def test_a_node_is_ready_when_every_child_has_said_so_and_announces_where_it_listens():
    lines = []
    async with running(node(("good", 0), ("good", 0), announce=lines.append)) as (supervisor, _):
        assert supervisor.stopping.is_set() is False
        await until_ready(supervisor)
        assert lines == ["listening on http://127.0.0.1:1234"]


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
        first = supervisor.posts[0].child.process.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: supervisor.posts[0].restarts == 1)
        await until_ready(supervisor)
        view = await supervisor.view()
        assert view.children[0].pid != first
        assert view.totals.requests == {"r|2xx": 6}
        assert view.children[0].restarts == 1


async def test_a_crash_loop_leaves_the_other_child_alone_and_says_how_it_ended():
    async with running(node(("dies", 0), ("good", 0))) as (supervisor, _):
        await until(lambda: supervisor.posts[0].restarts >= 2)
        view = await supervisor.view()
        assert supervisor.posts[0].last_words == "ended with SIGKILL, is started again"
        assert [reason.partition(":")[0] for reason in view.reasons()] == ["dies-0"]
        assert view.children[1].ready
        assert view.children[1].restarts == 0


async def test_pauses_between_restarts_grow_and_are_capped():
    assert sorted(module.PAUSES_SECONDS) == list(module.PAUSES_SECONDS)
    async with running(node(("dies", 0))) as (supervisor, _):
        began = time.monotonic()
        await until(lambda: supervisor.posts[0].restarts >= 3)
        assert time.monotonic() - began > sum(module.PAUSES_SECONDS[:2])


async def test_a_child_that_can_never_start_ends_the_node_with_status_2():
    supervisor = Supervisor(node(("wrong", 0), ("good", 0)))
    assert await asyncio.wait_for(supervisor.run(), 20) == 2


async def test_a_node_with_wrong_policies_does_not_start():
    def load():
        raise PolicyError([Fault("p.yaml", 1, "plans", "wrong")])

    with pytest.raises(PolicyError, match=r"p\.yaml:1: plans: wrong"):
        await Supervisor(node(("good", 0), load=load)).load()


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


async def test_a_second_signal_hurries(capfd):
    supervisor = Supervisor(node(("slow", 0), drain_seconds=60))
    task = asyncio.get_running_loop().create_task(supervisor.run())
    await until_ready(supervisor)
    supervisor.stop()
    supervisor.stop()
    assert await asyncio.wait_for(task, 10) == 0
    assert json.loads(capfd.readouterr().out.splitlines()[-1]) == {"cut": "slow", "hurried": True}


async def test_a_child_that_does_not_end_in_time_is_killed_and_the_status_says_so(monkeypatch):
    monkeypatch.setattr(module, "GRACE_SECONDS", 0)
    supervisor = Supervisor(node(("deaf", 0), drain_seconds=1))
    task = asyncio.get_running_loop().create_task(supervisor.run())
    await until_ready(supervisor)
    supervisor.stop()
    assert await asyncio.wait_for(task, 10) == 1


async def test_a_stuck_child_is_not_ready_and_is_killed_in_the_end(monkeypatch):
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(module, "MISSED_BEATS", 4)
    async with running(node(("hangs", 0))) as (supervisor, _):
        await until(lambda: supervisor.posts[0].child and supervisor.posts[0].child.standing.served)
        await until(lambda: supervisor.posts[0].child.standing.missed > 1)
        assert "does not answer" in supervisor.posts[0].child.standing.reasons()[0]
        await until(lambda: supervisor.posts[0].restarts == 1)


async def test_a_dependency_that_never_answered_is_a_reason_and_one_that_is_away_later_is_not():
    async with running(node(("lonely", 0))) as (supervisor, _):
        await until(lambda: supervisor.posts[0].child and supervisor.posts[0].child.standing.served)
        view = await supervisor.view()
        assert view.reasons() == ["lonely-0: redis has not answered yet: refused"]
        standing = supervisor.posts[0].child.standing
        standing.hear({"back": "redis"})
        standing.hear({"away": "redis", "why": "gone"})
        view = await supervisor.view()
        assert view.reasons() == []
        assert view.degraded() == {"lonely-0 redis": "gone"}


async def test_a_wrong_policy_changes_nothing_and_is_reported():
    versions = iter(["v1"])

    def load():
        for version in versions:
            return version
        raise PolicyError([Fault("p.yaml", 7, "plans.free", "no such meter")])

    async with running(node(("good", 0), load=load)) as (supervisor, _):
        await supervisor.load()
        await until_ready(supervisor)
        policy = await supervisor.reload()
        assert (policy.version, policy.failed_reloads) == ("v1", 1)
        assert policy.faults == ["p.yaml:7: plans.free: no such meter"]


async def test_a_child_that_refuses_a_reload_is_reported():
    async with running(node(("refuses", 0))) as (supervisor, _):
        await until_ready(supervisor)
        policy = await supervisor.reload()
        assert policy.faults == ["p.yaml:3: plans: no such plan"]


async def test_children_of_a_killed_supervisor_drain_and_end(tmp_path):
    # Fails if a child takes an end of file for silence.
    script = (
        "import asyncio, sys\n"
        "from sidecar.app.supervisor import *\n"
        "def tell(line): print(s.posts[0].child.process.pid, flush=True)\n"
        f"role = Role('w', (sys.executable, {STAND_IN!r}, 'good'))\n"
        "s = Supervisor(Setup('t', [role], {}, 1, announce=tell))\n"
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
        child = supervisor.posts[0].child
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(child.process.pid, number)
        # Fails if a child does not ignore them: what it is asked after them it could not answer.
        assert await child.look(5) is True
        assert not child.standing.reasons()
