"""The lifecycle of a node's stores without Redis: read back before it serves, saved while it serves and when it stops.

A worker that starts holds `state.lock` from before it chooses a folder until its first state is there (`access`).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack
from pathlib import Path

from sidecar.core.errors import SinkError
from sidecar.core.policy import Policy
from sidecar.core.record.frame import Position
from sidecar.core.words import counted
from sidecar.edge.clock import SystemClock
from sidecar.edge.files import OwnedError
from sidecar.edge.journal import Journal
from sidecar.edge.journal.folder import is_owned
from sidecar.edge.memory.state_file import Followed, forget_states, holds_state, keep_nothing
from sidecar.embedded.access import LOOK_S, PATIENCE_US, state_lock
from sidecar.embedded.folders import check_states, newest
from sidecar.embedded.listener import StateListener
from sidecar.embedded.replay import Replay, Report
from sidecar.embedded.saver import Saver
from sidecar.embedded.state import EmbeddedState
from sidecar.ports import Clock

SECOND_US = 1_000_000
log = logging.getLogger("sidecar.state")


class Embedded:
    """The state of the one worker of a node without Redis, and its `journal`."""

    def __init__(self, state: EmbeddedState, journal: Journal, clock: Clock, interval_seconds: int) -> None:
        self._state = state
        self._journal = journal
        self._clock = clock
        self._log = WorkerLog(journal)
        self._saver = Saver(state, self._log, clock, interval_seconds * SECOND_US)
        self._listener: StateListener | None = None
        self._retained_until = 0  # the number of saves until which ended journals are retained
        self._report = Report(True, 0, 0, ())
        self._begun = ExitStack()  # holds the lock of the files until the first save

    async def begin(self) -> None:
        """To be called before the journal starts: wait for a command that changes the files, and check them.

        OwnedError: it did not end. StateError: no file is whole, so no epoch is to begin.
        """
        directory = self._journal.path.parent
        deadline_us = SystemClock().mono_us() + PATIENCE_US
        while True:
            try:
                self._begun.enter_context(state_lock(directory))
                break
            except OwnedError:
                if SystemClock().mono_us() > deadline_us:
                    raise
            await asyncio.sleep(LOOK_S)
        check_states(directory)

    async def start(self, policy: Policy) -> None:
        """Read back and save. The journal has started. SinkError: what was kept cannot be read, or a first not made."""
        with self._begun:
            await self._start(policy)

    async def _start(self, policy: Policy) -> None:
        replay = Replay(self._state, policy)
        source = newest(self._journal.path.parent)
        self._report = report = replay.run(source, self._clock.now_us())
        for followed in replay.followed:
            other = source.parent / followed.folder
            if other == self._journal.path:  # its last worker has ended, for it is ours now
                replay.follow(other, followed.position)
            else:
                self._log.follow(replay, other, followed.position)
        if source != self._journal.path and not report.is_new:
            self._log.follow(replay, source, replay.end)
            forget_states(self._journal.path)
        if not self._log.is_following:
            replay.release(self._clock.now_us())
        if not report.is_new:
            rows, records = counted(report.rows, "row"), counted(report.replayed, "record")
            log.info("state: restored %s, and replayed %s of the journal after them", rows, records)
        is_needed = report.is_new or source != self._journal.path  # else the next start would not look here
        if not await self._saver.save(rest=0) and is_needed:
            raise SinkError(
                f"{self._journal.path}: the state cannot be saved: counters would be forgotten: check the disk"
            )
        self._listener = StateListener(self._state, self._journal.path, self._journal.accepting)
        await self._listener.start()

    def tick(self) -> None:
        """To be called about once a second."""
        if self._log.is_following and not self._saver.is_saving:
            if self._log.follow_on(self._clock.now_us()):
                self._saver.hasten()
                self._retained_until = self._saver.figures.saves + 2  # neither file needs the ended journal by then
        elif self._retained_until and self._saver.figures.saves >= self._retained_until:
            self._log.let_go()
            self._retained_until = 0
        elif not holds_state(self._journal.path):  # somebody removed it: a kill would find empty counters
            self._saver.hasten()
        self._saver.tick()

    def policy_changed(self, policy: Policy) -> None:
        """Save soon: a replay uses the current policy."""
        self._state.use(policy)
        self._saver.hasten()

    def figures(self) -> tuple[dict[str, int], dict[str, int]]:
        """Counts and ages (µs), by the names of `control.metrics`."""
        saver = self._saver.figures
        counts = {
            "state_saves": saver.saves,
            "state_save_failures": saver.failures,
            "state_save_us": saver.worked_us,
            "state_replayed": self._report.replayed,
            "state_damaged": len(self._report.faults),
        }
        return counts, {"state": self._clock.mono_us() - saver.last_us}

    async def aclose(self, *, is_orphan: bool) -> None:
        """Save what there is, unless the supervisor has gone: who comes after it has it. The journal is still open."""
        if self._listener is not None:
            await self._listener.aclose()
            if not is_orphan:
                await self._saver.aclose()


class WorkerLog:
    """The worker's journal, and those of workers before it that still finish their streams in other folders."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._replay: Replay | None = None
        self._others: dict[Path, Position] = {}  # folders that are followed, and how far
        self._ended: list[Path] = []
        self.here = journal.here

    @property
    def path(self) -> Path:
        return self._journal.path

    @property
    def broken(self) -> bool:
        return self._journal.broken

    @property
    def records(self) -> int:
        return self._journal.records

    @property
    def is_following(self) -> bool:
        return bool(self._others)

    @property
    def followed(self) -> tuple[Followed, ...]:
        return tuple(Followed(folder.name, position) for folder, position in self._others.items())

    def follow(self, replay: Replay, folder: Path, position: Position) -> None:
        """Count on what another worker's journal says behind `position`."""
        self._replay = replay
        self._others[folder] = replay.follow(folder, position)

    def follow_on(self, now_us: int) -> bool:
        """Count new entries; True if a worker has ended. With the last one, unrecorded reservations are given back."""
        assert self._replay is not None  # noqa: S101 - asked only while following
        ended = [folder for folder in self._others if not is_owned(folder)]  # before the last of it is read
        for folder, position in self._others.items():
            self._others[folder] = self._replay.follow(folder, position)
        for folder in ended:
            del self._others[folder]
        self._ended += ended
        if not self._others:
            self._replay.release(now_us)
            self._replay = None
        return bool(ended)

    def let_go(self) -> None:
        """Keep nothing of the journals whose workers have ended any more."""
        for folder in self._ended:
            keep_nothing(folder)
        self._ended.clear()

    def unclosed(self) -> dict[bytes, bytes]:
        return {**(self._replay.opened if self._replay is not None else {}), **self._journal.unclosed()}
