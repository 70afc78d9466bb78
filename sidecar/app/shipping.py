"""The shipper's process: reads all journals of the node, writes to Kafka or a file, and deletes committed segments.

A lock on the journal's folder makes it the only process that writes to the sink and deletes segments. Records that it
cannot ship stay in the journal, so no end of this process loses a record.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from sidecar.app import kafka
from sidecar.control.build_variant import VERSION
from sidecar.control.stats import WorkerStats
from sidecar.edge.clock import SystemClock
from sidecar.edge.journal.backlog import note_committed
from sidecar.edge.journal.journals import JournalFolder
from sidecar.edge.journal.orphan_recovery import Orphans
from sidecar.edge.kafka.connection import no_connection
from sidecar.edge.kafka.options import KafkaOptions
from sidecar.edge.kafka.sink import KafkaSink
from sidecar.edge.memory.state_file import needed_from
from sidecar.edge.shipping.file_sink import FileSink, StdoutSink, own_file
from sidecar.edge.shipping.folder import FileQuarantine, journal_id, own
from sidecar.edge.shipping.shipper import Shipper
from sidecar.loading.certificates import Pem, renew
from sidecar.ports import RecordSink
from sidecar.supervisor.link import Json, Link

if TYPE_CHECKING:
    from sidecar.config.settings import Settings

REPORT_SECONDS = 0.2
STDOUT_POSITIONS = "stdout.positions"
SECOND_US = 1_000_000
GC_OBJECTS = 50_000  # allocations between two garbage collections: records are many, and in no reference cycle
BUFFER_BYTES = 31 << 20  # just below the maximum of glibc's dynamic mmap threshold (32 MiB)


class Shipping:
    """The shipper of one journal folder, and its reader for the figures. `living`: workers that have a process."""

    def __init__(self, settings: Settings, pem: Pem | None = None, living: Collection[str] = ()) -> None:
        folder = settings.journal.dir
        self._settings = settings
        self._kafka = kafka.connection(settings, pem) if settings.kafka is not None else {}
        self.journals = JournalFolder(folder, needed_from)
        self.target = "kafka" if settings.kafka is not None else "sink"
        self.shipper = Shipper(
            self.journals,
            sink_of(settings, self._kafka),
            FileQuarantine(folder),
            SystemClock(),
            note_committed=partial(note_committed, folder),
        )
        self.orphans = Orphans(folder, f"//sidecar/{settings.region}/{settings.node}", living, VERSION)
        self._faulty: set[str] = set()  # workers whose journals were unreadable at the last report

    def stats(self) -> WorkerStats:
        """The current figures."""
        shipper, journals = self.shipper.figures, self.journals.figures
        return {
            "counts": {
                "shipped": shipper.shipped,
                "quarantined": shipper.quarantined,
                "ship_failures": shipper.failures,
                "missing": journals.missing,
                "corrupt_bytes": journals.corrupt_bytes,
                "journal_lost_bytes": shipper.lost_bytes,
                "recovered": self.orphans.recovered,
            },
            "gauges": {"journals_unreadable": len(shipper.faults)},
        }

    def renew(self, pem: Pem) -> None:
        """Use these certificates for the next connections to the brokers."""
        context, kafka_settings = self._kafka.get("ssl_context"), self._settings.kafka
        if context is not None and kafka_settings is not None:
            renew(context, kafka_settings.security, pem)

    def report(self, link: Link) -> None:
        """Report to the supervisor whether the sink accepts records, and the faults of single journals."""
        figures = self.shipper.figures
        faults = {**self.orphans.faults, **figures.faults}
        for worker in self._faulty - faults.keys():
            link.back(f"journal of worker {worker}")
        for worker, reason in faults.items():
            link.away(f"journal of worker {worker}", reason)
        self._faulty = set(faults)
        for worker, loss in figures.losses.items():  # reported until this process ends
            link.away(f"lost journal of worker {worker}", loss)
        if figures.state == "shipping":
            link.back(self.target)
        elif figures.state == "failing":
            link.away(self.target, figures.last_error)


class Renewals:
    """The reload of this process: it only renews certificates, which the supervisor has validated."""

    def __init__(self, shipping: Shipping, link: Link) -> None:
        self._shipping = shipping
        self._link = link

    async def prepare(self, staged: Json) -> str:
        """Do nothing: the supervisor has validated everything that could fail."""
        del staged
        return ""

    async def commit(self) -> str:
        """Use the certificates of the current start message."""
        self._shipping.renew(self._link.start.get("pem", {}))
        return ""

    def discard(self) -> None:
        """Do nothing: nothing was prepared."""


def sink_of(settings: Settings, connection: Mapping[str, Any]) -> RecordSink:
    """The configured sink: Kafka over `connection`, standard output or a file."""
    kafka_settings, folder = settings.kafka, settings.journal.dir
    if kafka_settings is not None:
        options = KafkaOptions(
            connection,
            node=settings.node,
            journal=journal_id(folder),
            prefix=kafka_settings.transactional_id_prefix,
            topics=kafka.streams(kafka_settings),
            positions_topic=kafka_settings.topics.positions,
            no_connection=no_connection,
        )
        return KafkaSink(options)
    if settings.record_file is not None:
        return FileSink(settings.record_file, journal_id(folder))
    return StdoutSink(folder / STDOUT_POSITIONS, journal=journal_id(folder))


async def run_shipper(settings: Settings, link: Link) -> None:
    """Ship until `link` starts a drain, then ship the rest within the drain's time.

    SinkError: another process ships this journal, or writes to the file.
    """
    with _exclusive(settings):
        living = [str(index) for index in range(settings.workers)]
        shipping = Shipping(settings, link.start.get("pem"), living)
        _tune_memory()
        link.on_stats = shipping.stats
        link.reloads = Renewals(shipping, link)
        link.ready()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(shipping.shipper.run())
            beside = [tasks.create_task(_report(shipping, link)), tasks.create_task(shipping.orphans.run())]
            await link.draining.wait()
            shipping.shipper.stop(link.drain_seconds * SECOND_US)
            beside.append(tasks.create_task(_abort(shipping, link)))
            await running
            for task in beside:
                task.cancel()


async def ship(settings: Settings, seconds: int) -> tuple[bool, Shipping]:
    """Close the exchanges that the journal's workers left open, ship all records and stop.

    True if the journal is empty. False if `seconds` were not enough or a worker's journal cannot be read.
    """
    with _exclusive(settings):
        shipping = Shipping(settings)
        await shipping.orphans.recover_all()
        _tune_memory()
        shipping.shipper.stop(seconds * SECOND_US)
        return await shipping.shipper.run() and not shipping.orphans.faults, shipping


def _tune_memory() -> None:
    """Tune garbage collection and malloc for a process that handles batches of megabytes.

    The objects so far live as long as the process: freezing them takes them out of garbage collection. Freeing one
    large block raises glibc's mmap and trim thresholds, so that the memory of one batch serves the next; otherwise a
    fifth of the CPU is spent on page faults. The block is never written, so it takes no memory itself.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_OBJECTS, 20, 100)
    bytearray(BUFFER_BYTES)


async def _report(shipping: Shipping, link: Link) -> None:
    while True:
        shipping.report(link)
        await asyncio.sleep(REPORT_SECONDS)


async def _abort(shipping: Shipping, link: Link) -> None:
    await link.aborting.wait()
    shipping.shipper.stop(0)


@contextmanager
def _exclusive(settings: Settings) -> Iterator[None]:
    """Lock the journal's folder, and `sink.file`, against other shippers. SinkError: another process has the lock."""
    with ExitStack() as locks:
        locks.callback(os.close, own(settings.journal.dir))
        if settings.record_file is not None:
            locks.callback(os.close, own_file(settings.record_file))
        yield
