"""What a worker does beside the path of requests. Its parts together are run by tests/e2e, with real servers."""

import asyncio
import socket
import threading

import pytest

from sidecar.app import worker as module
from sidecar.app.children import Link
from sidecar.app.loading import load
from sidecar.app.snapshot import Snapshot, policy_of
from sidecar.app.worker import Worker
from sidecar.config.settings import load_settings
from sidecar.core.errors import PolicyError
from sidecar.core.identity import digest, stored

PLANS = "plans: {{ free: {{ version: {version}, limits: [{{ id: a, rate: 5/s }}] }} }}\n"
ENTRY = "  - {{ id: {name}, hash: {hash!r}, customer: c, subject: s, plan: free }}\n"


class Folder:
    """Settings, a policy and keys, and a worker of them that serves nobody."""

    def __init__(self, path, link):
        self.path = path
        (path / "sidecar.yaml").write_text("policies: p.yaml\nkeys: { file: keys.yaml }\n")
        self.snapshot = Snapshot(load_settings(path / "sidecar.yaml", {}), load)
        self.write("1", "one")
        self.worker = Worker(self.snapshot.settings, 0, link)

    def write(self, version, *names):
        (self.path / "p.yaml").write_text(PLANS.format(version=version))
        entries = [ENTRY.format(name=name, hash=stored(digest(name.encode()))) for name in names]
        (self.path / "keys.yaml").write_text("keys:\n" + "".join(entries))
        self.snapshot.take()

    @property
    def in_force(self):
        """The version of the plan, and which of the keys are known."""
        found = []
        for name in ("one", "two"):
            self.worker.house.keys.find(digest(name.encode()), lambda who, name=name: who and found.append(name))
        return self.worker.house.policy.plans["free"].label, found


@pytest.fixture
async def folder(tmp_path):
    ours, theirs = socket.socketpair()
    writers = [await asyncio.open_connection(sock=each) for each in (ours, theirs)]
    yield Folder(tmp_path, Link(*writers[1]))
    for _, writer in writers:
        writer.close()


class Slow:
    """Reading a policy, as slow as a test wants it: it stands still until `go`, in whichever thread it is."""

    def __init__(self, monkeypatch):
        self.begun = 0
        self.again = threading.Event()
        self.go = threading.Semaphore(0)
        monkeypatch.setattr(module, "policy_of", self.read)

    def read(self, settings):
        self.begun += 1
        if self.begun > 1:
            self.again.set()
        found = policy_of(settings)
        assert self.go.acquire(timeout=5), "the loop stood still"
        return found

    async def reads(self, number):
        while self.begun < number:
            await asyncio.sleep(0.001)


async def test_requests_are_served_while_policies_and_keys_are_read(folder, monkeypatch):
    # Mutations: the policy is read on the loop; the keys are put in force before the policy is known to be right.
    slow = Slow(monkeypatch)
    folder.write("2", "two")
    reloading = asyncio.get_running_loop().create_task(folder.worker.reload())
    await asyncio.wait_for(slow.reads(1), 5)
    assert folder.in_force == ("free@1", ["one"])
    slow.go.release()
    assert await reloading == folder.worker.house.policy.version
    assert folder.in_force == ("free@2", ["two"])


async def test_of_two_reloads_the_later_stays(folder, monkeypatch):
    # Mutation: no lock, so that the first to read may be the last to swap.
    slow = Slow(monkeypatch)
    folder.write("2", "one")
    first = asyncio.get_running_loop().create_task(folder.worker.reload())
    await asyncio.wait_for(slow.reads(1), 5)
    folder.write("3", "one", "two")
    second = asyncio.get_running_loop().create_task(folder.worker.reload())
    assert not await asyncio.to_thread(slow.again.wait, 0.2), "read while another reads"
    slow.go.release(2)
    await asyncio.gather(first, second)
    assert folder.in_force == ("free@3", ["one", "two"])


async def test_a_wrong_file_changes_nothing(folder):
    folder.write("2", "two")
    with folder.snapshot.settings.keys.file.open("a") as file:
        file.write("colour: red\n")
    with pytest.raises(PolicyError, match=r"keys\.yaml"):
        await folder.worker.reload()
    assert folder.in_force == ("free@1", ["one"])
