"""A node that starts with another number of workers: shares stay used, and nothing that was owed is forgotten."""

import os
import shutil
from contextlib import suppress
from itertools import chain
from pathlib import Path

import pytest

from sidecar.core.errors import SidecarError
from sidecar.edge.degraded import debts, over_admission_bound, redistribute
from sidecar.edge.degraded.outage import read
from sidecar.testing import HandClock
from tests.edge.degraded.test_ledger import BURST, LENDING, QUOTA, SPENT, START_US, Life, Store


class Node:
    def __init__(self, folder):
        self.folder = folder
        self.clock = HandClock(START_US)
        self.store = Store(self.clock)
        self.lives = []
        self._seeds = iter(range(1, 1000))

    def start(self, workers):
        redistribute(self.folder, workers, workers, self.clock.now_us())
        self.lives = [
            Life(self.folder / f"outage.{index}.jsonl", self.clock, self.store, workers=workers, seed=next(self._seeds))
            for index in range(workers)
        ]

    def asks(self, many, *limits):
        return sum(life.asks(many, *limits) for life in self.lives)

    async def paid(self):
        for life in self.lives:
            await life.paid()


# Fails if what workers that are no more let through is forgotten, or if their successors' shares begin unused.
@pytest.mark.parametrize("numbers", [(4, 2, 1), (1, 2, 4), (3, 3, 2, 5), (2, 2, 2)])
async def test_whatever_number_of_workers_it_starts_with_the_shares_are_one_amount(tmp_path, numbers):
    node, passed = Node(tmp_path), 0
    for turn, workers in enumerate(numbers):
        node.start(workers)
        passed += node.asks(15 if turn + 1 < len(numbers) else 200, QUOTA)
    assert QUOTA.amount - 8 <= passed <= QUOTA.amount
    assert sum(life.port.owed for life in node.lives) == passed
    await node.paid()
    assert node.lives[0].used(QUOTA) == passed
    assert len([*tmp_path.glob("outage.*.jsonl")]) <= numbers[-1]


def test_a_rate_that_is_full_is_full_for_any_number_of_workers(tmp_path):
    node = Node(tmp_path)
    node.start(4)
    assert node.asks(50, BURST) == BURST.amount
    for workers in (2, 1, 4):
        node.start(workers)
        assert node.asks(50, BURST) == 0
        node.clock.turn(4_000_000)
        assert node.asks(50, BURST) == 4  # Fails if what has to leak is not stretched by how fast the new ones leak.


# Fails if each of the new workers has all that was lent, or nothing of it.
@pytest.mark.parametrize(("before", "after", "all_"), [(2, 1, 10), (1, 2, 9)])  # 35 are left to each of two
async def test_what_a_wallet_lent_is_divided_too(tmp_path, before, after, all_):
    node = Node(tmp_path)
    node.start(before)
    passed = node.lives[0].asks(3, SPENT, LENDING)
    node.start(after)
    passed += node.asks(30, SPENT, LENDING)
    assert passed * 10 <= over_admission_bound(LENDING, 1)
    assert passed == all_


def test_a_window_that_has_ended_is_not_divided(tmp_path):
    node = Node(tmp_path)
    node.start(2)
    node.asks(200, QUOTA)
    node.clock.turn(40 * 86_400_000_000)
    node.start(1)
    assert node.asks(200, QUOTA) == QUOTA.amount


class Killed(BaseException):
    pass


def totals(folder):
    outages = [read(path) for path in sorted(folder.glob("outage.*.jsonl"))]
    debts = [*chain.from_iterable(each.debts for each in outages)]
    sums = sum(sum(debt.checks.costs) for each in outages for debt in each.sums.values())
    shares = sum(value for each in outages for _, value, _ in each.local.values())
    return sorted(debts), sums, shares


def nodes_outage(folder, monkeypatch):
    monkeypatch.setattr(debts, "CAP", 10)
    node = Node(folder)
    node.start(2)
    assert node.asks(15, QUOTA) == 30
    return node


# Fails if the division has no single commit, if a step of it is not repeated by the next start, or if the files of
# workers that are no more are removed before it.
@pytest.mark.parametrize("next_workers", [1, 2, 3])
@pytest.mark.parametrize("workers", [1, 3])
def test_killed_at_any_step_it_counts_everything_once(tmp_path, monkeypatch, workers, next_workers):
    node = nodes_outage(tmp_path, monkeypatch)
    before = totals(tmp_path)
    copy = tmp_path.with_name(tmp_path.name + "-copy")
    shutil.copytree(tmp_path, copy)
    for steps in range(100):
        shutil.rmtree(tmp_path)
        shutil.copytree(copy, tmp_path)
        left = iter(range(steps))
        with monkeypatch.context() as patch:
            for owner, name in ((Path, "replace"), (Path, "unlink"), (Path, "rmdir"), (os, "fsync"), (os, "mkdir")):
                patch.setattr(owner, name, killing(getattr(owner, name), left))
            with suppress(Killed):
                redistribute(tmp_path, workers, workers, node.clock.now_us())
                break
        redistribute(tmp_path, next_workers, next_workers, node.clock.now_us())
        ids, sums, shares = totals(tmp_path)
        assert (ids, sums) == before[:2]
        assert before[2] <= shares <= before[2] + workers + next_workers  # rounded up in each division
        assert len([*tmp_path.iterdir()]) == next_workers
    assert steps > 8


def killing(call, left):
    def wrapped(*args, **how):
        if next(left, None) is None:
            raise Killed
        return call(*args, **how)

    return wrapped


# Fails if files are removed though the new ones could not be written.
def test_on_a_full_disk_nothing_changes(tmp_path, monkeypatch, disk, caplog):
    node = nodes_outage(tmp_path, monkeypatch)
    before = totals(tmp_path)
    disk.full = True
    redistribute(tmp_path, 1, 1, node.clock.now_us())
    assert totals(tmp_path) == before
    assert "cannot be divided" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outage.0.jsonl", "outage.1.jsonl"]
    disk.full = False
    redistribute(tmp_path, 1, 1, node.clock.now_us())
    assert totals(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["outage.0.jsonl"]


# Fails if workers start on a mixture of old and new files.
def test_committed_files_that_cannot_be_moved_end_the_start(tmp_path, monkeypatch, disk):
    node = nodes_outage(tmp_path, monkeypatch)
    before = totals(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killing(Path.unlink, iter(())))
        with pytest.raises(Killed):
            redistribute(tmp_path, 1, 1, node.clock.now_us())
    disk.fixed = True
    with pytest.raises(SidecarError, match=r"outage\.next\.1 cannot be moved to .*: read-only"):
        redistribute(tmp_path, 1, 1, node.clock.now_us())
    disk.fixed = False
    redistribute(tmp_path, 1, 1, node.clock.now_us())
    assert totals(tmp_path) == before


# Fails if a damaged file counts as one of a worker that let nothing through.
async def test_where_a_file_is_damaged_the_shares_of_all_new_workers_are_used_up(tmp_path, monkeypatch):
    node = nodes_outage(tmp_path, monkeypatch)
    (tmp_path / "outage.1.jsonl").write_bytes(bytes(99))
    node.start(1)
    assert node.asks(5, QUOTA) == 0
    assert node.lives[0].port.damaged == 1
    node.start(2)
    assert node.asks(5, QUOTA) == 0
    assert [life.port.damaged for life in node.lives] == [0, 0]
    assert sum(life.port.owed for life in node.lives) == 11
    assert (tmp_path / "outage.1.jsonl.damaged").read_bytes() == bytes(99)


def test_files_of_nobody_are_left_alone(tmp_path):
    (tmp_path / "outage.old.jsonl").write_text("x")
    (tmp_path / "outage.7.jsonl").write_text("not ours\n")
    redistribute(tmp_path, 2, 2, START_US)
    assert (tmp_path / "outage.old.jsonl").exists()
