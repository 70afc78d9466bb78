import asyncio
import socket
import threading

import pytest

from sidecar.app import reload as module
from sidecar.app.worker import Descriptors, Worker
from sidecar.config.settings import load_settings
from sidecar.core.errors import PolicyError
from sidecar.core.identity import digest, stored
from sidecar.loading.documents import load
from sidecar.loading.snapshot import Snapshot, policy_of, staged
from sidecar.supervisor.link import Link

PLANS = "plans: {{ free: {{ version: {version}, limits: [{{ id: a, rate: 5/s }}] }} }}\n"
ENTRY = "  - {{ id: {name}, hash: {hash!r}, customer: c, subject: s, plan: free }}\n"


class Folder:
    """Settings, a policy and keys, and a worker of them that serves nobody."""

    def __init__(self, path, link):
        self.path = path
        (path / "sidecar.yaml").write_text("policies: p.yaml\nkeys: { file: keys.yaml }\n")
        self.snapshot = Snapshot(load_settings(path / "sidecar.yaml", {}), load)
        self.write("1", "one")
        self.snapshot.commit()
        self.worker = Worker(self.snapshot.settings, 0, link, Descriptors())

    def write(self, version, *names):
        (self.path / "p.yaml").write_text(PLANS.format(version=version))
        entries = [ENTRY.format(name=name, hash=stored(digest(name.encode()))) for name in names]
        (self.path / "keys.yaml").write_text("keys:\n" + "".join(entries))
        self.snapshot.stage()

    async def reload(self):
        version = await self.worker.reload.prepare({})
        self.snapshot.commit()
        assert await self.worker.reload.commit() == version
        return version

    @property
    def in_force(self):
        """The version of the plan, and which of the keys are known."""
        found = []
        for name in ("one", "two"):
            self.worker.context.keys.find(digest(name.encode()), lambda who, name=name: who and found.append(name))
        return self.worker.context.policies.policy.plans["free"].label, found


METERED = """
meters:
  rows: { value: request.header.X-Rows }
  chats: { count: 1, when: { header: { Upgrade: websocket } } }
exclude: [{ id: retry, idempotency_key: 1h }]
routes: [{ id: all, match: { path: /**, headers: { X-Beta: "*" } } }]
plans: { free: { limits: [{ id: a, rate: 5/s }] } }
"""


# Fails if a header that a policy reads may say one thing here and another to the upstream. `Upgrade` has to be named in
# Connection, and is passed on where it is.
async def test_headers_that_the_policy_reads_are_bound_to_one_meaning(folder):
    before = folder.worker.listener.limits
    assert before.protected == {b"x-api-key", b"authorization"}
    assert before.once == set()
    (folder.path / "p.yaml").write_text(METERED)
    folder.snapshot.stage()
    await folder.reload()
    limits = folder.worker.listener.limits
    assert limits.protected == before.protected | {b"x-rows", b"idempotency-key", b"x-beta"}
    assert limits.once == {b"x-rows", b"upgrade", b"idempotency-key", b"x-beta"}


@pytest.fixture
async def folder(tmp_path):
    ours, theirs = socket.socketpair()
    writers = [await asyncio.open_connection(sock=each) for each in (ours, theirs)]
    made = Folder(tmp_path, Link(*writers[1]))
    yield made
    made.snapshot.drop()
    for _, writer in writers:
        writer.close()


class Slow:
    """Reading a policy, as slow as a test wants it: it stands still until `go`, in whichever thread it is."""

    def __init__(self, monkeypatch):
        self.begun = 0
        self.again = threading.Event()
        self.go = threading.Semaphore(0)
        monkeypatch.setattr(module, "policy_of", self.read)

    def read(self, path):
        self.begun += 1
        if self.begun > 1:
            self.again.set()
        found = policy_of(path)
        assert self.go.acquire(timeout=5), "the loop stood still"
        return found

    async def reads(self, number):
        while self.begun < number:
            await asyncio.sleep(0.001)


async def test_requests_are_served_while_policies_and_keys_are_read(folder, monkeypatch):
    # Mutations: the policy is read on the loop; the keys are swapped in before the policy is known to be right.
    slow = Slow(monkeypatch)
    folder.write("2", "two")
    reloading = asyncio.get_running_loop().create_task(folder.reload())
    await asyncio.wait_for(slow.reads(1), 5)
    assert folder.in_force == ("free@1", ["one"])
    slow.go.release()
    assert await reloading == folder.worker.context.policies.policy.version
    assert folder.in_force == ("free@2", ["two"])


async def test_of_two_reloads_the_later_stays(folder, monkeypatch):
    # Mutation: no lock, so that the first to read may be the last to swap.
    slow = Slow(monkeypatch)
    folder.write("2", "one")
    first = asyncio.get_running_loop().create_task(folder.worker.reload.prepare({}))
    await asyncio.wait_for(slow.reads(1), 5)
    folder.write("3", "one", "two")
    second = asyncio.get_running_loop().create_task(folder.worker.reload.prepare({}))
    assert not await asyncio.to_thread(slow.again.wait, 0.2), "read while another reads"
    slow.go.release(2)
    await asyncio.gather(first, second)
    folder.snapshot.commit()
    await folder.worker.reload.commit()
    assert folder.in_force == ("free@3", ["one", "two"])


async def test_a_wrong_file_changes_nothing(folder):
    folder.write("2", "two")
    with staged(folder.snapshot.settings.keys.file).open("a") as file:
        file.write("colour: red\n")
    with pytest.raises(PolicyError, match=r"keys\.yaml"):
        await folder.worker.reload.prepare({})
    assert folder.in_force == ("free@1", ["one"])


async def test_what_cannot_be_built_changes_nothing(folder, monkeypatch):
    # Fails if keys or policy are assigned before the pools of the new routes are built, which read certificates.
    def of(_route):
        raise OSError(2, "No such file or directory")

    folder.write("2", "two")
    monkeypatch.setattr(folder.worker.upstreams, "of", of)
    folder.worker.context.policies._upstream_of = of
    with pytest.raises(OSError, match="No such file"):
        await folder.worker.reload.prepare({})
    with pytest.raises(OSError, match="No such file"):
        folder.worker.context.policies.apply(policy_of(staged(folder.snapshot.settings.policies)))
    assert folder.in_force == ("free@1", ["one"])


async def test_what_is_prepared_changes_nothing_until_it_is_committed(folder):
    folder.write("2", "two")
    await folder.worker.reload.prepare({})
    assert folder.in_force == ("free@1", ["one"])
    folder.worker.reload.discard()
    assert await folder.worker.reload.commit() == folder.worker.context.policies.policy.version
    assert folder.in_force == ("free@1", ["one"])  # what is current: the staged documents were never committed


async def test_a_worker_that_has_prepared_nothing_commits_what_is_current(folder):
    folder.write("2", "two")
    folder.snapshot.commit()
    await folder.worker.reload.commit()
    assert folder.in_force == ("free@2", ["two"])
