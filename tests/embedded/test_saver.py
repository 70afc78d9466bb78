"""Mirrors sidecar/embedded/saver.py."""

import asyncio
import time

import pytest

from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.core.record.frame import Position
from sidecar.edge.clock import SystemClock
from sidecar.edge.journal import Here
from sidecar.edge.memory import state_file
from sidecar.edge.memory.state_file import read_slices
from sidecar.embedded.saver import REPLAYED_MAX, SHARE, Saver
from sidecar.embedded.state import EmbeddedState
from sidecar.testing import HandClock, minted

MONTHLY = Limit("monthly", "quota", 10_000, calendar="month", scope="customer")
BURST = Limit("burst", "rate", 10, per=5, period_us=1_000_000)
CUSTOMERS = 20_000
STEP_MS = 5  # of CPU time, which a machine that others share does not lengthen much; a step is half a millisecond


class Log:
    def __init__(self, path):
        self.path, self.broken, self.at = path, False, Position(7, 1, 0)
        self.records, self.followed = 0, ()

    def here(self):
        self.at = self.at._replace(offset=self.at.offset + 1)
        return Here(self.at, self.at, 0)

    def unclosed(self):
        return {b"0" * 26: b'{"reserved":{}}'}


def state(clock, customers):
    made, mint = EmbeddedState(clock, lambda _body, then: then(True)), minted()
    for number in range(customers):
        who = Identity(f"k{number}", "s", f"c{number}", "free")
        checks = checks_for((MONTHLY, BURST), (1, 1), who, clock.now_us())
        made.counters.reserve(mint(clock.now_us() // 1000), checks, lambda _: None)
    return made


def rows(folder):
    return [row for each in read_slices(folder)[0] for row in each.rows]


@pytest.fixture
def clock():
    return HandClock()


async def turned(saver, clock, us):
    clock.turn(us)
    saver.tick()
    for _ in range(200):
        await asyncio.sleep(0.001)
        if saver._task is None or saver._task.done():
            break
    return saver.figures.saves


async def test_what_is_held_is_saved_with_what_is_open(tmp_path, clock):
    saver = Saver(state(clock, 3), Log(tmp_path), clock, 0)
    assert await saver.save()
    kinds = [row[0] for row in rows(tmp_path)]
    assert sorted(kinds) == ["count"] * 3 + ["open"] + ["time"] * 3


async def test_it_saves_where_something_is_new_and_the_time_has_come(tmp_path, clock):
    log = Log(tmp_path)
    saver = Saver(state(clock, 1), log, clock, 10_000_000)
    here = log.here()
    log.here = lambda: here
    assert await turned(saver, clock, 10_000_000) == 1
    assert await turned(saver, clock, 10_000_000) == 1  # nothing is new
    log.here = lambda: here._replace(highest=1)
    assert await turned(saver, clock, 9_000_000) == 2
    log.here = lambda: here._replace(highest=2)
    assert await turned(saver, clock, 1_000_000) == 2
    saver.hasten()
    assert await turned(saver, clock, 1_000_000) == 3


# Fails if only the time is looked at: a busy node's start would replay ten seconds of its records.
async def test_many_records_are_saved_before_the_time_has_come(tmp_path, clock):
    log = Log(tmp_path)
    saver = Saver(state(clock, 1), log, clock, 10_000_000)
    await saver.save()
    log.records = REPLAYED_MAX - 1
    assert await turned(saver, clock, 1_000_000) == 1
    log.records = REPLAYED_MAX
    assert await turned(saver, clock, 1_000_000) == 2
    assert await turned(saver, clock, 1_000_000) == 2


# Fails if the work of a save is not counted against the time between two.
async def test_saves_take_a_small_share_of_the_time(tmp_path, clock):
    saver = Saver(state(clock, 1), Log(tmp_path), clock, 0)
    await saver.save()
    saver.figures.took_us = 1_000_000
    assert await turned(saver, clock, SHARE * 1_000_000 - 1) == 1
    assert await turned(saver, clock, 1) == 2


# Fails if a failed save takes the last state away, or ends the process.
async def test_a_full_disk_leaves_the_last_state_and_is_told_once(tmp_path, clock, monkeypatch, caplog):
    memory = state(clock, 1)
    saver = Saver(memory, Log(tmp_path), clock, 0)
    assert await saver.save()
    before = rows(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(state_file.os, "write", lambda _fd, _data: (_ for _ in ()).throw(OSError(28, "full")))
        assert not await saver.save()
        assert not await saver.save()
    assert rows(tmp_path) == before
    assert (saver.figures.saves, saver.figures.failures) == (1, 2)
    assert sum("cannot be saved" in record.message for record in caplog.records) == 1
    assert await saver.save()


async def test_nothing_is_saved_while_the_journal_is_broken(tmp_path, clock):
    log = Log(tmp_path)
    log.broken = True
    saver = Saver(state(clock, 1), log, clock, 0)
    assert await turned(saver, clock, 1) == 0
    await saver.aclose()
    assert not (tmp_path / "state").exists()


# Fails if rows are made of the whole state at once: that takes a tenth of a second.
async def test_a_save_never_holds_the_loop_up(tmp_path):
    clock = SystemClock()
    saver = Saver(state(clock, CUSTOMERS), Log(tmp_path), clock, 0)
    late = []

    async def look():
        while True:
            begun = time.thread_time_ns()
            await asyncio.sleep(0)
            late.append(time.thread_time_ns() - begun)

    looking = asyncio.get_running_loop().create_task(look())
    assert await saver.save(rest=1)
    looking.cancel()
    assert max(late) < STEP_MS * 1_000_000
    assert len([row for row in rows(tmp_path) if row[0] != "open"]) == 2 * CUSTOMERS
