"""Carries what the workers' journals hold to a sink, in order, in batches, and frees what the sink has committed.

It remembers nothing of its own: what is committed is what the sink says when it is opened, and after any failure the
sink is opened anew and the journals are read again from there. So a lost acknowledgement costs a look, never a record
and never a double. What the sink will never take is put aside on disk before the position moves past it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, Protocol

from sidecar.core.errors import RefusedError, SinkError
from sidecar.ports import Clock, Entry, RecordSink

log = logging.getLogger(__name__)
_BODY: Final = attrgetter("body")


class Reader(Protocol):
    """Reads one worker's journal from a position on. OSError or SinkError where it cannot."""

    def read(self, max_bytes: int) -> Sequence[Entry]:
        """The next records (CLOSE and RECORD), up to about `max_bytes`, at least one where there is one."""

    def free(self, committed: Any) -> int:
        """Delete segments that lie wholly before `committed` (a `position_after`); how many went."""


class Journals(Protocol):
    """The journals of this node, a folder a worker."""

    def workers(self) -> Iterable[str]:
        """The names of all folders there are now."""

    def reader(self, worker: str, position: str | None) -> Reader:
        """A reader from `position` on; None: from the oldest entry."""

    def backlog_bytes(self, positions: Mapping[str, str]) -> int:
        """How much lies behind `positions`, over all workers."""


class Quarantine(Protocol):
    """Where entries go that the sink will never take."""

    def put(self, worker: str, entry: Entry, reason: str) -> None:
        """Keep it on disk, synced; once, however often it is put. OSError: it is not kept."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How much at once, and how patiently. The bytes are of record bodies, over all workers, and bound the memory.

    `poll_min_us` also lies between two batches that are far from full: a Kafka transaction takes about 1 ms of CPU
    whatever it holds, so without it a trickle of records would cost a tenth of a core.
    """

    batch_bytes: int = 4 << 20
    poll_min_us: int = 50_000
    poll_max_us: int = 200_000
    retry_min_us: int = 100_000
    retry_max_us: int = 5_000_000


class Figures:
    """What the shipper has done, as plain integers that a collector reads at scrape."""

    __slots__ = ("backlog_bytes", "batches", "failures", "freed", "last_error", "quarantined", "shipped", "state")

    def __init__(self) -> None:
        self.shipped = 0  # entries committed
        self.batches = 0  # commits
        self.quarantined = 0  # entries put aside
        self.failures = 0  # commits and openings that failed and were tried again
        self.freed = 0  # journal segments deleted
        self.backlog_bytes = 0  # journal bytes behind the committed positions, at the last pause or failure
        self.last_error = ""  # "" while all is well
        self.state = "starting"  # starting | shipping | failing | stopped


class _Source:
    """One worker's journal: its reader, and what was read of it and not committed yet."""

    __slots__ = ("entries", "position", "reader", "worker")

    def __init__(self, worker: str, reader: Reader) -> None:
        self.worker = worker
        self.reader = reader
        self.position: Any = None  # after the last entry read
        self.entries: list[Entry] = []

    def fill(self, max_bytes: int) -> bool:
        """Read on. True where there is something to ship."""
        read = self.reader.read(max_bytes)
        if read:
            self.position = read[-1].position_after
            self.entries = list(read)
        return bool(self.entries)


class Shipper:
    """The loop. `run` in a task, `stop` from anywhere on its loop; `figures` at any time."""

    def __init__(
        self, journals: Journals, sink: RecordSink, quarantine: Quarantine, clock: Clock, pace: Pace | None = None
    ) -> None:
        self.figures = Figures()
        self._journals = journals
        self._sink = sink
        self._quarantine = quarantine
        self._clock = clock
        self._pace = pace or Pace()
        self._sources: dict[str, _Source] = {}
        self._committed: dict[str, str] = {}
        self._uncommitted_since_us: int | None = None
        self._retry_us = self._pace.retry_min_us
        self._stopping = asyncio.Event()
        self._deadline_us: int | None = None
        self._limit: asyncio.Timeout | None = None

    def stop(self, drain_us: int) -> None:
        """End `run` as soon as the journals are carried over, or after `drain_us` at the latest."""
        self._deadline_us = self._clock.mono_us() + drain_us
        self._stopping.set()
        if self._limit is not None:
            self._limit.reschedule(self._loop_deadline())

    def oldest_unshipped_us(self) -> int:
        """For how long the oldest entry that this process has seen has waited to be committed; 0: none waits."""
        since = self._uncommitted_since_us
        return 0 if since is None else self._clock.mono_us() - since

    async def run(self) -> bool:
        """Ship until stopped. True: all that the journals held then was committed; False: the deadline came first."""
        try:
            async with asyncio.timeout_at(self._loop_deadline()) as self._limit:
                while not await self._session():
                    await self._pause(self._retry_us)
                    self._retry_us = min(2 * self._retry_us, self._pace.retry_max_us)
        except TimeoutError:
            self._turn("stopped", logging.WARNING, "stopped with records unshipped; they stay in the journal")
            return False
        finally:
            self._limit = None
        self._turn("stopped", logging.INFO, "all records are shipped")
        return True

    async def _session(self) -> bool:
        """From opening the sink to its first failure (False), or to the end of a drain (True)."""
        try:
            self._committed = dict(await self._sink.open())
            self._sources.clear()
            await self._carry()
        except (SinkError, OSError) as error:
            self._fail(error)
            return False
        finally:
            await self._sink.close()
        return True

    async def _carry(self) -> None:
        poll_us = self._pace.poll_min_us
        while True:
            self._discover()
            ready = self._read()
            if ready:
                full = self._size(ready) > self._pace.batch_bytes // 2
                await self._ship(ready)
                poll_us = self._pace.poll_min_us
                if not full and not self._stopping.is_set():
                    await self._pause(poll_us)
            elif self._stopping.is_set():
                return
            else:
                self._quiet()
                await self._pause(poll_us)
                poll_us = min(2 * poll_us, self._pace.poll_max_us)

    def _discover(self) -> None:
        for worker in self._journals.workers():
            if worker not in self._sources:
                reader = self._journals.reader(worker, self._committed.get(worker))
                self._sources[worker] = _Source(worker, reader)

    def _read(self) -> list[_Source]:
        share = self._pace.batch_bytes // max(1, len(self._sources))
        ready = [source for source in self._sources.values() if source.fill(share)]
        if ready and self._uncommitted_since_us is None:
            self._uncommitted_since_us = self._clock.mono_us()
        return ready

    @staticmethod
    def _size(sources: list[_Source]) -> int:
        return sum(sum(map(len, map(_BODY, source.entries))) for source in sources)

    async def _ship(self, sources: list[_Source]) -> None:
        positions = {source.worker: str(source.position) for source in sources}
        while True:
            entries = [entry for source in sources for entry in source.entries]
            try:
                await self._sink.commit(entries, positions)
            except RefusedError as refused:
                self._set_aside(sources, refused)
            else:
                break
        self._committed.update(positions)
        self._count(len(entries))
        for source in sources:
            source.entries = []
            self.figures.freed += source.reader.free(source.position)

    def _set_aside(self, sources: list[_Source], refused: RefusedError) -> None:
        bad = {id(entry) for entry in refused.entries}
        for source in sources:
            for entry in source.entries:
                if id(entry) in bad:
                    self._quarantine.put(source.worker, entry, refused.reason)
                    self.figures.quarantined += 1
                    log.error(
                        "record %s of worker %s is in quarantine, the sink will never take it: %s",
                        *(entry.id.decode("ascii", "replace"), source.worker, refused.reason),
                    )
            source.entries = [entry for entry in source.entries if id(entry) not in bad]

    def _count(self, entries: int) -> None:
        self.figures.shipped += entries
        self.figures.batches += 1
        self.figures.last_error = ""
        self._uncommitted_since_us = None
        self._retry_us = self._pace.retry_min_us
        self._turn("shipping", logging.INFO, "records are being shipped")

    def _quiet(self) -> None:
        self._uncommitted_since_us = None
        self.figures.last_error = ""
        self.figures.backlog_bytes = self._journals.backlog_bytes(self._committed)
        self._turn("shipping", logging.INFO, "the sink is open")

    def _fail(self, error: Exception) -> None:
        self.figures.failures += 1
        self.figures.last_error = str(error) or type(error).__name__
        with suppress(OSError):
            self.figures.backlog_bytes = self._journals.backlog_bytes(self._committed)
        self._turn("failing", logging.ERROR, f"records wait in the journal: {self.figures.last_error}")

    def _turn(self, state: str, level: int, message: str) -> None:
        """Log on a change of state, never per try: an outage of a day is two lines."""
        if self.figures.state != state:
            self.figures.state = state
            log.log(level, "shipper %s: %s", state, message)

    async def _pause(self, us: int) -> None:
        """Sleep, unless told to stop; while stopping, a full sleep, bounded by the drain's deadline."""
        if self._stopping.is_set():
            await asyncio.sleep(us / 1e6)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(us / 1e6):
                await self._stopping.wait()

    def _loop_deadline(self) -> float | None:
        if self._deadline_us is None:
            return None
        return asyncio.get_running_loop().time() + (self._deadline_us - self._clock.mono_us()) / 1e6
