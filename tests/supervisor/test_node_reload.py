import asyncio
import json

import pytest

from sidecar.core.errors import Fault, PolicyError
from tests.supervisor.nodes import node, running, until, until_ready


async def test_a_wrong_policy_changes_nothing_and_is_reported():
    versions = iter(["v1"])

    def load():
        for version in versions:
            return version
        raise PolicyError([Fault("p.yaml", 7, "plans.free", "no such meter")])

    async with running(node(("good", 0), load=load)) as (supervisor, _):
        await supervisor.reloads.load()
        await until_ready(supervisor)
        policy = await supervisor.reloads.reload()
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
        await supervisor.reloads.load()
        await until_ready(supervisor)
        policy = await supervisor.reloads.reload()
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
        await supervisor.reloads.load()
        await until_ready(supervisor)
        policy = await supervisor.reloads.reload()
        assert (policy.version, policy.faults, policy.failed_reloads) == ("v1", [fault], 1)
        assert documents.did == ["staged", "committed", "staged", "discarded"]
    told = [next(iter(json.loads(line))) for line in capfd.readouterr().out.splitlines()]
    assert (told.count("prepared"), told.count("committed"), told.count("discarded")) == (3, 0, 3)


async def test_a_child_that_cannot_commit_starts_again_with_what_is_committed(capfd):
    documents = Documents()
    async with running(documents.setup(("good", 0), ("fails", 0))) as (supervisor, _):
        await supervisor.reloads.load()
        await until_ready(supervisor)
        policy = await supervisor.reloads.reload()
        assert (policy.version, policy.faults) == ("v2", [])
        await until(lambda: supervisor.slots[1].restarts == 1)
        assert supervisor.slots[0].restarts == 0
        assert documents.did == ["staged", "committed"] * 2


async def test_a_child_that_starts_after_a_reload_is_told_what_the_reload_changed(capfd):
    # Fails if `_commit` leaves the start message as it was.
    setup, staged = node(("good", 0)), {"pem": "old"}
    setup.staged = staged.copy
    async with running(setup) as (supervisor, _):
        await supervisor.reloads.load()
        await until_ready(supervisor)
        staged["pem"] = "new"
        await supervisor.reloads.reload()
        supervisor.slots[0].child.kill()
        await until(lambda: supervisor.slots[0].restarts == 1)
        await until_ready(supervisor)
    said = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (said["drain"], said["start"]["pem"]) == ("good", "new")


async def test_reloads_come_one_after_the_other():
    # Fails without the lock: the second one stages while children prepare what the first one has staged.
    documents = Documents()
    async with running(documents.setup(("good", 0))) as (supervisor, _):
        await supervisor.reloads.load()
        await until_ready(supervisor)
        await asyncio.gather(supervisor.reloads.reload(), supervisor.reloads.reload())
        assert documents.did == ["staged", "committed"] * 3


@pytest.mark.parametrize(
    ("error", "fault"),
    [(OSError(5, "Input/output error"), "[Errno 5] Input/output error"), (ValueError("ours"), "ValueError: ours")],
)
async def test_documents_that_cannot_be_committed_are_a_failed_reload(error, fault):
    documents = Documents()
    setup = documents.setup(("good", 0))
    async with running(setup) as (supervisor, _):
        await supervisor.reloads.load()
        await until_ready(supervisor)

        def commit():
            raise error

        setup.commit = commit
        policy = await supervisor.reloads.reload()
        assert (policy.version, policy.faults) == ("v1", [fault])
