"""Loads records into the ledger: committed messages of topics, by partition, or sink files.

Where to go on is in the names of the files that are there, and nowhere else. So a load that is killed at any point is
repeated from its last whole file, and nothing is lost or doubled. A file is cut after FLUSH_RECORDS, so that loads of
the same topic from the same place make the same files; with `follow` also after some time, and partitions that another
process lets go, or that are new, are taken over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from time import sleep
from typing import Final, TypeVar

from sidecar.core.errors import SinkError
from sidecar.edge.files import OwnedError
from sidecar.edge.kafka.bulk import BulkReader, Place
from sidecar.edge.kafka.connection import KafkaRefusalError
from sidecar.edge.ledger.earlier import Earlier
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import LedgerFolder
from sidecar.edge.ledger.schema import text
from sidecar.edge.ledger.writer import TAIL_KEY, PartitionWriter
from sidecar.ledger.load_options import FLUSH_BYTES, LoadOptions
from sidecar.ledger.report import LoadReport, Progress
from sidecar.ledger.sink_files import SinkFile
from sidecar.ledger.topic_load import Taken, TopicLoad, Writers

T = TypeVar("T")
_POLL_SECONDS: Final = 0.5  # between two attempts to reach Kafka


class Loader(AbstractContextManager["Loader"]):
    """One process that loads. It owns an engine and the locks of its partitions, until `close`."""

    def __init__(self, folder: LedgerFolder, options: LoadOptions, *, memory: str, threads: int = 1) -> None:
        folder.identify()
        self._folder = folder
        self._options = options
        self._closing = ExitStack()
        self._engine = self._closing.enter_context(Engine(folder=folder.path, memory=memory, threads=threads))
        self._shared = (self._engine, Earlier(self._engine, folder))
        self.report = LoadReport()
        listing = folder.listing()
        for name, why in listing.refused:
            self.fault(f"{name}: {why}")

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def fault(self, text: str) -> None:
        """Note what was refused, in the report; where a load follows, at once too."""
        self.report.fault(text)
        if self._options.follow:
            self._options.on_trouble(text)

    # Files.

    def load_file(self, path: Path) -> None:
        """Load what is new in a sink file.

        SinkError: it cannot be read, no sink wrote it, another file was loaded, or another process loads it.
        """
        with SinkFile(path) as file, ExitStack() as closing:
            file.check_format()
            if not file.topic:
                return  # no whole line yet
            writer = self._writer(closing, (file.topic, 0))
            position = writer.position
            file.check(position, self._tail(file.topic))
            for pairs, end in file.chunks(position):
                position = self._add_in_slices(writer, pairs, end, file)
                self._options.on_progress(Progress(str(file.path), 0, position, file.end))
                if self._options.stop():
                    break
            self.flush(writer, position, file)

    def _add_in_slices(self, writer: PartitionWriter, pairs: list[tuple[int, bytes]], end: int, file: SinkFile) -> int:
        """Collect, and write a file each time that there are enough; the place after the last one."""
        while pairs:
            room = self._options.flush_records - writer.records
            now, pairs = pairs[:room], pairs[room:]
            writer.add(now)
            position = pairs[0][0] if pairs else end
            if self.is_full(writer):
                self.flush(writer, position, file)
        return end

    def _tail(self, topic: str) -> str:
        files = self._folder.listing().of(topic, 0)
        if not files:
            return ""
        path = text(str(self._folder.at(files[-1])))
        digest = self._engine.run(f"SELECT value FROM parquet_kv_metadata({path}) WHERE key = '{TAIL_KEY}'")
        return bytes(digest[0][0]).decode() if digest else ""

    # Topics.

    def load_topics(self, reader: BulkReader, topics: Collection[str], wanted: Sequence[int] = ()) -> None:
        """Load the partitions that no other process has, or those that are wanted, up to their ends or for ever.

        With `follow`, a Kafka that does not answer is waited for, and so is a partition where other processes have all;
        else SinkError, OwnedError. OwnedError: another process has a wanted partition.
        """
        with ExitStack() as closing:

            def take(owned: Writers) -> Taken | None:
                if (known := self.reached(lambda: reader.partitions(topics), waits=not owned)) is None:
                    return None
                cluster, partitions = known
                self._folder.identify(dict.fromkeys(partitions, f"Kafka cluster {cluster}"))
                return self._begin(reader, self._own(closing, partitions, wanted, owned))

            TopicLoad(self, self._options, reader, take, takes_over=self._options.follow and not wanted).run()

    def reached(self, ask: Callable[[], T], *, waits: bool = True) -> T | None:
        """The answer of Kafka. With `follow` it is asked until it does; None: `stop` came first, or not `waits`."""
        while True:
            try:
                return ask()
            except (KafkaRefusalError, OwnedError):
                raise
            except SinkError as error:
                if not self._options.follow:
                    raise
                self._options.on_trouble(str(error))
            if not waits:
                return None
            sleep(_POLL_SECONDS)
            if self._options.stop():
                return None

    def _own(
        self, closing: ExitStack, partitions: dict[str, list[int]], wanted: Sequence[int], owned: Writers
    ) -> Writers:
        """Writers of the partitions that are free, beside those that this process has (`owned`)."""
        for number in wanted:
            if not any(number in known for known in partitions.values()):
                raise SinkError(f"no topic of {', '.join(partitions)} has a partition {number}")
        writers: Writers = {}
        owners = []
        for topic, known in partitions.items():
            for number in known:
                if (topic, number) in owned or (wanted and number not in wanted):
                    continue
                try:
                    writers[topic, number] = self._writer(closing, (topic, number))
                except OwnedError as error:
                    if wanted:
                        raise
                    owners.append(str(error))
        if not writers and not owned:
            text = "; ".join(owners[:3]) or "no partition to load"
            if not self._options.follow:
                raise OwnedError(text)
            self._options.on_trouble(text)
        return writers

    def _writer(self, closing: ExitStack, place: Place) -> PartitionWriter:
        writer = PartitionWriter(self._folder, *place, self._shared)
        closing.callback(writer.close)
        return writer

    def _begin(self, reader: BulkReader, writers: Writers) -> Taken | None:
        """The writers, each at the place to go on, and the ends of the logs. None: none, or `stop` came first."""
        if not writers:
            return None
        bounds = self.reached(lambda: reader.bounds(writers))
        if bounds is None:
            return None
        for place, writer in writers.items():
            name = f"{place[0]} partition {place[1]}"
            low, high = bounds[place]
            if writer.position > high:
                raise SinkError(
                    f"{name} ends at {high}, and the ledger has it up to {writer.position}: the topic was made anew; "
                    "set another ledger.dir, or move the folder of the topic away"
                )
            if low > writer.position:
                if writer.position:
                    self.fault(f"{name}: offsets {writer.position} to {low - 1} were deleted before a load")
                writer.position = low
        return writers, {place: high for place, (_, high) in bounds.items()}

    # Both.

    def is_full(self, writer: PartitionWriter) -> bool:
        """Whether what a writer has collected is a file."""
        return writer.records >= self._options.flush_records or writer.size >= FLUSH_BYTES

    def flush(self, writer: PartitionWriter, end: int, file: SinkFile | None = None) -> None:
        """Write what a writer has collected, up to the offset `end`."""
        loaded = writer.flush(end, {TAIL_KEY: file.tail(end)} if file is not None else None)
        if loaded is not None:
            self.report.add(loaded)
            self._options.on_file(loaded)
