import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from sidecar.core.errors import Fault, PolicyError
from sidecar.edge.journal.backlog import Backlog
from sidecar.supervisor import supervisor as module
from sidecar.supervisor.roles import Role, Setup
from sidecar.supervisor.supervisor import Supervisor

STAND_IN = str(Path(__file__).with_name("stand_in.py"))


def node(*hows, drain_seconds=5, **more):
    roles = [
        Role(
            f"{how.partition(':')[0]}-{i}",
            (sys.executable, STAND_IN, how),
            stage,
            ("redis",) if how == "lonely" else (),
            completes=stage == 1,
        )
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


async def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.01)
    return found


async def until_ready(supervisor):
    async def ready():
        return not (await supervisor.view()).reasons()

    deadline = time.monotonic() + 30
    while not await ready():
        assert time.monotonic() < deadline, (await supervisor.view()).reasons()
        await asyncio.sleep(0.01)


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


class Documents:
    """What a snapshot does, told in a list."""

    def __init__(self, error=None):
        self.did, self.error = [], error

    def load(self):
        if self.error and self.did:
            raise self.error
        self.did.append("staged")
        return f"v{self.did.count('staged')}"

    def setup(self, *hows):
        return node(
            *hows,
            load=self.load,
            commit=lambda: self.did.append("committed"),
            discard=lambda: self.did.append("discarded"),
        )


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (PolicyError([Fault("p.yaml", 7, "plans.free", "no such meter")]), "p.yaml:7: plans.free: no such meter"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (ValueError("a fault of ours"), "ValueError: a fault of ours"),
        (RecursionError("a fault of ours"), "RecursionError: a fault of ours"),
    ],
)
async def test_whatever_a_validation_raises_is_a_failed_reload_and_the_node_goes_on(error, fault, capfd):
    # Fails if the supervisor catches PolicyError and OSError alone: the exception ends its TaskGroup, and so the node.
    documents = Documents(error)
    async with running(documents.setup(("good", 0))) as (supervisor, task):
        await supervisor.load()
        await until_ready(supervisor)
        policy = await supervisor.reload()
        assert (policy.version, policy.failed_reloads, policy.faults) == ("v1", 1, [fault])
        assert not task.done()
    assert documents.did == ["staged", "committed", "discarded"]
    assert "prepared" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("how", "fault"), [("refuses", "p.yaml:3: plans: no such plan"), ("raises", "ValueError: a fault of ours")]
)
async def test_where_one_child_refuses_no_child_changes(how, fault, capfd):
    # Fails if a child is told to commit before all have prepared.
    documents = Documents()
    async with running(documents.setup(("good", 0), (how, 0), ("good", 0))) as (supervisor, _):
        await supervisor.load()
        await until_ready(supervisor)
        policy = await supervisor.reload()
        assert (policy.version, policy.faults, policy.failed_reloads) == ("v1", [fault], 1)
        assert documents.did == ["staged", "committed", "staged", "discarded"]
    told = [next(iter(json.loads(line))) for line in capfd.readouterr().out.splitlines()]
    assert (told.count("prepared"), told.count("committed"), told.count("discarded")) == (3, 0, 3)


async def test_a_child_that_cannot_commit_starts_again_with_what_is_committed(capfd):
    documents = Documents()
    async with running(documents.setup(("good", 0), ("fails", 0))) as (supervisor, _):
        await supervisor.load()
        await until_ready(supervisor)
        policy = await supervisor.reload()
        assert (policy.version, policy.faults) == ("v2", [])
        await until(lambda: supervisor.slots[1].restarts == 1)
        assert supervisor.slots[0].restarts == 0
        assert documents.did == ["staged", "committed"] * 2


async def test_a_child_that_starts_after_a_reload_is_told_what_the_reload_changed(capfd):
    # Fails if `_commit` leaves the start message as it was.
    setup, staged = node(("good", 0)), {"pem": "old"}
    setup.staged = staged.copy
    async with running(setup) as (supervisor, _):
        await supervisor.load()
        await until_ready(supervisor)
        staged["pem"] = "new"
        await supervisor.reload()
        supervisor.slots[0].child.kill()
        await until(lambda: supervisor.slots[0].restarts == 1)
        await until_ready(supervisor)
    said = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (said["drain"], said["start"]["pem"]) == ("good", "new")


async def test_reloads_come_one_after_the_other():
    # Fails without the lock: the second one stages while children prepare what the first one has staged.
    documents = Documents()
    async with running(documents.setup(("good", 0))) as (supervisor, _):
        await supervisor.load()
        await until_ready(supervisor)
        await asyncio.gather(supervisor.reload(), supervisor.reload())
        assert documents.did == ["staged", "committed"] * 3


@pytest.mark.parametrize(
    ("error", "fault"),
    [(OSError(5, "Input/output error"), "[Errno 5] Input/output error"), (ValueError("ours"), "ValueError: ours")],
)
async def test_documents_that_cannot_be_committed_are_a_failed_reload(error, fault):
    documents = Documents()
    setup = documents.setup(("good", 0))
    async with running(setup) as (supervisor, _):
        await supervisor.load()
        await until_ready(supervisor)

        def commit():
            raise error

        setup.commit = commit
        policy = await supervisor.reload()
        assert (policy.version, policy.faults) == ("v1", [fault])


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
