"""Carries what the workers' journals hold to a sink, in order, in batches, and frees what the sink has committed.

It remembers nothing of its own: what is committed is what the sink says when it is opened, and after any failure the
sink is opened anew and the journals are read again from there. So a lost acknowledgement costs a look, never a record
and never a double. Entries that the sink refuses for good are put aside on disk before the position moves past it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, Protocol

from sidecar.core.errors import LostStretchError, RefusedError, SinkError
from sidecar.edge.shipping.figures import Figures
from sidecar.edge.shipping.source import Journals, Source
from sidecar.ports import Clock, Entry, RecordSink

log = logging.getLogger(__name__)
_BODY: Final = attrgetter("body")


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


class Shipper:
    """The loop. `run` in a task, `stop` from anywhere on its loop; `figures` at any time.

    `note_committed` is called with what the sink has committed, by worker, once it is opened and after each commit.
    """

    def __init__(
        self,
        journals: Journals,
        sink: RecordSink,
        quarantine: Quarantine,
        clock: Clock,
        pace: Pace | None = None,
        note_committed: Callable[[Mapping[str, str]], None] = lambda _positions: None,
    ) -> None:
        self.figures = Figures()
        self._journals = journals
        self._note_committed = note_committed
        self._sink = sink
        self._quarantine = quarantine
        self._clock = clock
        self._pace = pace or Pace()
        self._sources: dict[str, Source] = {}
        self._again_us: dict[str, int] = {}  # when a journal that could not be read is tried again, by worker
        self._committed: dict[str, str] = {}
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

    async def run(self) -> bool:
        """Ship until stopped. True: all that the journals held then was committed.

        False: the deadline came first, or a journal could not be read; `figures.last_error` says why, if it is known.
        """
        try:
            async with asyncio.timeout_at(self._loop_deadline()) as self._limit:
                while not await self._session():
                    await self._pause(self._retry_us)
                    self._retry_us = min(2 * self._retry_us, self._pace.retry_max_us)
        except TimeoutError:
            self.figures.turn("stopped", logging.WARNING, "records are left in the journal")
            return False
        finally:
            self._limit = None
        if self.figures.faults:
            self.figures.last_error = "; ".join(self.figures.faults.values())
            self.figures.turn("stopped", logging.ERROR, f"records stay in the journal: {self.figures.last_error}")
            return False
        self.figures.turn("stopped", logging.INFO, "all records are shipped")
        return True

    async def _session(self) -> bool:
        """From opening the sink to its first failure (False), or to the end of a drain (True)."""
        try:
            self._committed = dict(await self._sink.open())
            self._note_committed(self._committed)
            self._sources.clear()
            await self._ship_all()
        except (SinkError, OSError) as error:
            self.figures.fail(error)
            return False
        finally:
            await self._sink.close()
        return True

    async def _ship_all(self) -> None:
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
                self.figures.quiet()
                await self._pause(poll_us)
                poll_us = min(2 * poll_us, self._pace.poll_max_us)

    def _discover(self) -> None:
        workers = list(self._journals.workers())
        for gone in self.figures.faults.keys() - set(workers):
            del self.figures.faults[gone]
        for worker in workers:
            if worker in self._sources or self._clock.mono_us() < self._again_us.get(worker, 0):
                continue
            try:
                reader = self._journals.reader(worker, self._committed.get(worker))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one journal, the others go on
                self._note_fault(worker, error)
            else:
                self._sources[worker] = Source(worker, reader)

    def _read(self) -> list[Source]:
        share = self._pace.batch_bytes // max(1, len(self._sources))
        return [source for source in list(self._sources.values()) if self._fill(source, share)]

    def _fill(self, source: Source, max_bytes: int) -> bool:
        """Read on. True where there is something to ship."""
        worker = source.worker
        try:
            is_ready = source.fill(max_bytes)
        except LostStretchError as lost:
            self.figures.note_loss(worker, lost)
            is_ready = False
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one journal, the others go on
            self._note_fault(worker, error)
            return False
        if self.figures.faults.pop(worker, None) is not None:
            log.warning("worker %s: its journal can be read again", worker)
        return is_ready

    def _note_fault(self, worker: str, error: Exception) -> None:
        """Leave this worker's journal alone for a while; it is read again from what is committed."""
        self._sources.pop(worker, None)
        self._again_us[worker] = self._clock.mono_us() + self._pace.retry_max_us
        reason = str(error) if isinstance(error, SinkError | OSError) else repr(error)
        if self.figures.faults.get(worker) != reason:
            self.figures.faults[worker] = reason
            log.error("worker %s: its records wait in the journal, which cannot be read: %s", worker, reason)

    @staticmethod
    def _size(sources: list[Source]) -> int:
        return sum(sum(map(len, map(_BODY, source.entries))) for source in sources)

    async def _ship(self, sources: list[Source]) -> None:
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
        self._note_committed(self._committed)
        self._retry_us = self._pace.retry_min_us
        self.figures.count(len(entries))
        for source in sources:
            source.entries = []
            try:
                source.reader.free(source.position)
            except OSError as error:
                self.figures.note_unfreed(source.worker, str(error))

    def _set_aside(self, sources: list[Source], refused: RefusedError) -> None:
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

    async def _pause(self, us: int) -> None:
        """Sleep, unless stopped; while stopping, a full sleep, bounded by the drain's deadline."""
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
