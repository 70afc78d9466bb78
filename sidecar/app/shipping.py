"""The shipper's process: reads every journal of the node, writes to Kafka or a file, and frees what is committed there.

It is the only writer of the sink and the only one that deletes segments, held by a lock on the journal's folder. What
it cannot ship stays in the journal: no ending of this process loses a record.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.app import kafka
from sidecar.app.children import Link
from sidecar.control.stats import WorkerStats
from sidecar.edge.clock import SystemClock
from sidecar.edge.file_sink import FileSink, StdoutSink
from sidecar.edge.journal_reader import JournalFolder
from sidecar.edge.kafka_sink import KafkaOptions, KafkaSink
from sidecar.edge.shipper import Shipper
from sidecar.edge.shipper_folder import FileQuarantine, journal_id, own
from sidecar.ports import RecordSink

if TYPE_CHECKING:
    from sidecar.config.settings import Settings

LOOK_SECONDS = 0.2
STDOUT_POSITIONS = "stdout.positions"
SECOND_US = 1_000_000
GC_OBJECTS = 50_000  # made between two looks of the collector: records are many, and in no circle
BUFFER_BYTES = 31 << 20  # the most that glibc learns from


class Shipping:
    """The shipper over one journal, and the journal's reader for its figures."""

    def __init__(self, settings: Settings) -> None:
        folder = settings.journal.dir
        self.journals = JournalFolder(folder)
        self.target = "kafka" if settings.kafka is not None else "sink"
        self.shipper = Shipper(self.journals, sink_of(settings), FileQuarantine(folder), SystemClock())

    def stats(self) -> WorkerStats:
        """The figures of this moment."""
        did, saw = self.shipper.figures, self.journals.figures
        return {
            "counts": {
                "shipped": did.shipped,
                "quarantined": did.quarantined,
                "ship_failures": did.failures,
                "missing": saw.missing,
                "corrupt_bytes": saw.corrupt_bytes,
            },
            "gauges": {"journal_backlog_bytes": did.backlog_bytes},
            "ages_us": {"journal_oldest": self.shipper.oldest_unshipped_us()},
        }

    def tell(self, link: Link) -> None:
        """Tell the supervisor whether the sink takes records."""
        figures = self.shipper.figures
        if figures.state == "shipping":
            link.back(self.target)
        elif figures.state == "failing":
            link.away(self.target, figures.last_error)


def sink_of(settings: Settings) -> RecordSink:
    """Kafka where it is configured, else standard output or the file. PolicyError: a certificate is wrong."""
    given, folder = settings.kafka, settings.journal.dir
    if given is not None:
        options = KafkaOptions(
            kafka.connection(given),
            node=settings.node,
            journal=journal_id(folder),
            prefix=given.transactional_id_prefix,
            topics=kafka.streams(given),
            positions_topic=given.topics.positions,
        )
        return KafkaSink(options)
    if settings.sink.stdout or settings.sink.file is None:
        return StdoutSink(folder / STDOUT_POSITIONS)
    return FileSink(settings.sink.file)


async def run_shipper(settings: Settings, link: Link) -> None:
    """Ship until `link` says to drain; then what is left, within the drain. SinkError: another process is shipping."""
    with _owned(settings.journal.dir):
        shipping = Shipping(settings)
        _settle()
        link.on_stats = shipping.stats
        link.ready()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(shipping.shipper.run())
            telling = tasks.create_task(_tell(shipping, link))
            await link.draining.wait()
            shipping.shipper.stop(link.drain_seconds * SECOND_US)
            hurry = tasks.create_task(_hurry(shipping, link))
            await running
            telling.cancel()
            hurry.cancel()


async def ship(settings: Settings, seconds: int) -> tuple[bool, Shipping]:
    """Carry the journal to the sink and stop: True where it is empty, False where `seconds` were not enough."""
    with _owned(settings.journal.dir):
        shipping = Shipping(settings)
        _settle()
        shipping.shipper.stop(seconds * SECOND_US)
        return await shipping.shipper.run(), shipping


def _settle() -> None:
    """What was built until here lives as long as the process, and what comes and goes is batches of megabytes.

    Memory of one batch is to serve the next: glibc returns less to the system once it has seen a large piece go. Else a
    fifth of the CPU is spent on getting it back, page by page. It is never touched, so it takes no memory itself.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_OBJECTS, 20, 100)
    bytearray(BUFFER_BYTES)


async def _tell(shipping: Shipping, link: Link) -> None:
    while True:
        shipping.tell(link)
        await asyncio.sleep(LOOK_SECONDS)


async def _hurry(shipping: Shipping, link: Link) -> None:
    await link.hurried.wait()
    shipping.shipper.stop(0)


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    lock = own(folder)
    try:
        yield
    finally:
        os.close(lock)
