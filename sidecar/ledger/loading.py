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
from time import monotonic, sleep
from typing import Final, NamedTuple, TypeVar

from sidecar.core.errors import SinkError
from sidecar.edge.files import OwnedError
from sidecar.edge.kafka.bulk import BulkReader, Place
from sidecar.edge.kafka.connection import KafkaRefusalError
from sidecar.edge.ledger.earlier import Earlier
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import LedgerFolder
from sidecar.edge.ledger.schema import text
from sidecar.edge.ledger.writer import TAIL_KEY, Loaded, PartitionWriter
from sidecar.ledger.report import LoadReport, Progress
from sidecar.ledger.sink_files import SinkFile

T = TypeVar("T")
Writers = dict[Place, PartitionWriter]
Ends = dict[Place, int]
Taken = tuple[Writers, Ends]
Take = Callable[[Writers], Taken | None]
FLUSH_RECORDS: Final = 250_000
FLUSH_BYTES: Final = 512 << 20
FLUSH_SECONDS: Final = 60
_POLL_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 2  # for transactions that are open at the end
_LOOK_SECONDS: Final = 10  # between two looks for partitions that nobody loads


class LoadOptions(NamedTuple):
    """How to load. `stop` is asked between chunks; the others get each file, each step, and failures to be retried."""

    stop: Callable[[], bool] = lambda: False
    on_file: Callable[[Loaded], None] = lambda _: None
    on_progress: Callable[[Progress], None] = lambda _: None
    on_trouble: Callable[[str], None] = lambda _: None
    flush_records: int = FLUSH_RECORDS
    flush_seconds: float = FLUSH_SECONDS
    follow: bool = False


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

        SinkError: it cannot be read, another file was loaded, or another process loads it.
        """
        with SinkFile(path) as file, ExitStack() as closing:
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
            self._flush(writer, position, file)

    def _add_in_slices(self, writer: PartitionWriter, pairs: list[tuple[int, bytes]], end: int, file: SinkFile) -> int:
        """Collect, and write a file each time that there are enough; the place after the last one."""
        while pairs:
            room = self._options.flush_records - writer.records
            now, pairs = pairs[:room], pairs[room:]
            writer.add(now)
            position = pairs[0][0] if pairs else end
            if self._is_full(writer):
                self._flush(writer, position, file)
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
                if (known := self._reached(lambda: reader.partitions(topics), waits=not owned)) is None:
                    return None
                cluster, partitions = known
                self._folder.identify(dict.fromkeys(partitions, f"Kafka cluster {cluster}"))
                return self._begin(reader, self._own(closing, partitions, wanted, owned))

            _TopicLoad(self, reader, take, takes_over=self._options.follow and not wanted).run()

    def _reached(self, ask: Callable[[], T], *, waits: bool = True) -> T | None:
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
        bounds = self._reached(lambda: reader.bounds(writers))
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

    def _is_full(self, writer: PartitionWriter) -> bool:
        return writer.records >= self._options.flush_records or writer.size >= FLUSH_BYTES

    def _flush(self, writer: PartitionWriter, end: int, file: SinkFile | None = None) -> None:
        loaded = writer.flush(end, {TAIL_KEY: file.tail(end)} if file is not None else None)
        if loaded is not None:
            self.report.add(loaded)
            self._options.on_file(loaded)


class _TopicLoad:
    """The loop over the partitions of one process. `take` returns those that it gets beside those that it has."""

    def __init__(self, loader: Loader, reader: BulkReader, take: Take, *, takes_over: bool) -> None:
        self._loader, self._options = loader, loader._options
        self._reader, self._take, self._takes_over = reader, take, takes_over
        self._writers: Writers = {}
        self._ends: Ends = {}
        self._positions: dict[Place, int] = {}
        self._since: dict[Place, float] = {}  # when the first record of an unwritten batch came

    def run(self) -> None:
        """Read to the ends of the logs (with `follow` until `stop`), and write what was collected."""
        self._take_free()
        waiting_until, looking_at = monotonic() + _PATIENCE_SECONDS, monotonic() + _LOOK_SECONDS
        while not self._options.stop():
            if not self._options.follow and not self._behind():
                break
            if self._takes_over and monotonic() > looking_at:
                self._take_free()
                looking_at = monotonic() + _LOOK_SECONDS
            if not self._writers:
                sleep(_POLL_SECONDS)
                continue
            chunk = self._reader.read(_POLL_SECONDS)
            for place, pairs in chunk.messages.items():
                self._add(place, pairs)
            for place, position in chunk.positions.items():
                self._positions[place] = max(self._positions[place], position)
                self._ends[place] = max(self._ends[place], position)
            if chunk.messages:
                waiting_until = monotonic() + _PATIENCE_SECONDS
            elif monotonic() > waiting_until:
                waiting_until = monotonic() + _PATIENCE_SECONDS
                if not self._is_readable() and not self._options.follow:
                    break  # a transaction is open: the rest is for the next load
            self._flush_old()
        for place in self._writers:
            self._flush(place)

    def _take_free(self) -> None:
        """Get the partitions that nobody loads, and go on reading each from its place."""
        if (taken := self._take(self._writers)) is not None:
            writers, ends = taken
            self._writers |= writers
            self._ends |= ends
            self._positions |= {place: writer.position for place, writer in writers.items()}
            self._loader._reached(lambda: self._reader.assign(self._positions))

    def _is_readable(self) -> bool:
        """Whether messages are left that are not in an open transaction. With `follow` an outage is waited for."""
        try:
            return any(self._positions[place] < end for place, end in self._reader.stable_ends().items())
        except KafkaRefusalError:
            raise
        except SinkError as error:
            if not self._options.follow:
                raise
            self._options.on_trouble(str(error))
            return True

    def _behind(self) -> bool:
        return any(self._positions[place] < end for place, end in self._ends.items())

    def _add(self, place: Place, pairs: list[tuple[int, bytes]]) -> None:
        writer = self._writers[place]
        self._since.setdefault(place, monotonic())
        while pairs:
            room = self._options.flush_records - writer.records
            now, pairs = pairs[:room], pairs[room:]
            writer.add(now)
            self._positions[place] = now[-1][0] + 1
            if self._loader._is_full(writer):
                self._flush(place)
        self._options.on_progress(Progress(*place, self._positions[place], self._ends[place]))

    def _flush_old(self) -> None:
        due = monotonic() - self._options.flush_seconds
        if self._options.follow:
            for place in [place for place, since in self._since.items() if since < due]:
                self._flush(place)

    def _flush(self, place: Place) -> None:
        self._loader._flush(self._writers[place], self._positions[place])
        self._since.pop(place, None)
