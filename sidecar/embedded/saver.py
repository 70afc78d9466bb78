"""Writes what a node without Redis remembers, part by part between requests, and never for longer than a slice.

A slice takes a few parts of the state as they are at one instant, with where the journal is then; their rows are made
and written afterwards, a few at a time, with pauses that leave nine tenths of the time to requests. A save that fails
changes nothing: the last state stays, and the journal is kept for as long as it is needed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

from sidecar.core.decision.saved import Row, rows_of
from sidecar.core.decision.state import PARTS
from sidecar.core.errors import SinkError
from sidecar.edge.journal import Here
from sidecar.edge.memory.state_file import Followed, Slice, StateFile
from sidecar.embedded.state import EmbeddedState
from sidecar.ports import Clock

STEP_US: Final = 500  # of work between two pauses
REST: Final = 9  # times as long a pause
SHARE: Final = 20  # a save takes at most one part in so many of the time
REPLAYED_MAX: Final = 20_000  # records after which it is time to save: a start replays them in about a second
LOOK: Final = 32  # rows between two looks at the clock
log = logging.getLogger("sidecar.state")


class Log(Protocol):
    """The journal that the state goes with, and others that are followed."""

    @property
    def followed(self) -> tuple[Followed, ...]: ...

    @property
    def path(self) -> Path: ...
    @property
    def broken(self) -> bool: ...
    @property
    def records(self) -> int:
        """How many were written so far."""

    def here(self) -> Here:
        """How far it is."""

    def unclosed(self) -> dict[bytes, bytes]:
        """The OPEN entries without a record, by id."""


class Figures:
    """Plain integers: saves that were kept, or failed; when the last was kept (mono µs); µs of work: its, and all."""

    __slots__ = ("failures", "last_us", "longest_us", "saves", "took_us", "worked_us")

    def __init__(self) -> None:
        self.saves = self.failures = self.last_us = self.took_us = self.worked_us = 0
        self.longest_us = 0  # the longest step without a pause


class Saver:
    """Saves `interval_us` apart while there is something new, sooner after many records. On one loop."""

    def __init__(self, state: EmbeddedState, journal: Log, clock: Clock, interval_us: int) -> None:
        self.figures = Figures()
        self._state = state
        self._journal = journal
        self._clock = clock
        self._interval_us = interval_us
        self._task: asyncio.Task[bool] | None = None
        self._saved: Here | None = None
        self._saved_records = 0
        self._is_hasty = False
        self._failing = False

    def tick(self) -> None:
        """To be called about once a second: begin to save where it is time."""
        if self.is_saving:
            return
        since_us = self._clock.mono_us() - self.figures.last_us
        is_due = self._is_hasty or self._journal.records - self._saved_records >= REPLAYED_MAX
        wait_us = max(0 if is_due else self._interval_us, SHARE * self.figures.took_us)
        if since_us < wait_us or self._journal.broken:
            return
        self._is_hasty = False
        if self._journal.here() != self._saved:
            self._task = asyncio.get_running_loop().create_task(self.save(), name="save state")

    def hasten(self) -> None:
        """Save at the next tick."""
        self._is_hasty = True
        self._saved = None

    @property
    def is_saving(self) -> bool:
        """Whether a save is under way: what is followed stays where it is for that long."""
        return self._task is not None and not self._task.done()

    async def aclose(self) -> None:
        """Save what there is, without pauses."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if not self._journal.broken:
            await self.save(rest=0)

    async def save(self, rest: int = REST) -> bool:
        """Save all of it; False where the disk did not take it: the last state stays."""
        writing = _Writing(self._state, self._journal, self._clock, rest)
        records = self._journal.records
        try:
            here = await writing.run()
        except (OSError, SinkError) as error:
            self.figures.failures += 1
            if not self._failing:
                log.error(  # noqa: TRY400
                    "%s: the state cannot be saved, the last one stays: %s: check the disk of journal.dir",
                    self._journal.path,
                    error,
                )
            self._failing = True
            return False
        finally:
            writing.file.drop()
        if self._failing:
            log.warning("%s: the state is saved again", self._journal.path)
        self._failing = False
        self._saved, self._saved_records = here, records
        figures = self.figures
        figures.saves += 1
        figures.last_us, figures.took_us = self._clock.mono_us(), writing.worked_us
        figures.worked_us += writing.worked_us
        figures.longest_us = max(figures.longest_us, writing.longest_us)
        return True


class _Writing:
    """One save. `worked_us` of it was work, the longest piece of that `longest_us`."""

    def __init__(self, state: EmbeddedState, journal: Log, clock: Clock, rest: int) -> None:
        self.file = StateFile(journal.path, clock.now_us())
        self._state = state
        self._journal = journal
        self._mono_us = clock.mono_us
        self._rest = rest
        self._since_us = 0
        self.worked_us = self.longest_us = 0

    async def run(self) -> Here:
        """Write the file and keep it; where the journal was at the first slice."""
        self._since_us = self._mono_us()
        self.file.open()
        first = here = self._journal.here()
        opened = [["open", id_.decode(), 0, body.decode()] for id_, body in self._journal.unclosed().items()]
        self.file.add(Slice(*here, opened, self._journal.followed))
        index = 0
        while index < PARTS:
            if self._journal.broken:
                raise SinkError("the journal cannot be written")
            here, items = self._journal.here(), []
            begun_us = self._mono_us()
            while index < PARTS and self._mono_us() - begun_us < STEP_US:
                items += self._state.counters.stored(index)
                index += 1
            await self._write(here, (row for item in items for row in rows_of(*item)))
        await self._write(self._journal.here(), list(self._state.rows_beside()))
        self._pass()
        await asyncio.to_thread(self.file.keep)
        return first

    async def _write(self, here: Here, rows: Iterable[Row]) -> None:
        batch: list[Row] = []
        for row in rows:
            batch.append(row)
            if len(batch) % LOOK == 0 and self._mono_us() - self._since_us >= STEP_US:
                self.file.add(Slice(*here, batch))
                batch = []
                await self._pause()
        if batch:
            self.file.add(Slice(*here, batch))
            await self._pause()

    async def _pause(self) -> None:
        took_us = self._pass()
        await asyncio.sleep(took_us * self._rest / 1_000_000)
        self._since_us = self._mono_us()

    def _pass(self) -> int:
        took_us = self._mono_us() - self._since_us
        self.worked_us += took_us
        self.longest_us = max(self.longest_us, took_us)
        return took_us
