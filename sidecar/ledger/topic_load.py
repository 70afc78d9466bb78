"""The loop of one process over the partitions of topics: read, collect, and write a file when it is time.

It reads to the ends that the logs had at its start, or follows them until `stop`. A transaction that is open at an end
is waited for _PATIENCE_SECONDS. Where it takes over, it looks each _LOOK_SECONDS for partitions that nobody loads.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep
from typing import Final, Protocol

from sidecar.core.errors import SinkError
from sidecar.edge.kafka.bulk import BulkReader, Place
from sidecar.edge.kafka.connection import KafkaRefusalError
from sidecar.edge.ledger.writer import PartitionWriter
from sidecar.ledger.load_options import LoadOptions
from sidecar.ledger.report import Progress

Writers = dict[Place, PartitionWriter]
Ends = dict[Place, int]
Taken = tuple[Writers, Ends]
Take = Callable[[Writers], Taken | None]
_POLL_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 2  # for transactions that are open at the end
_LOOK_SECONDS: Final = 10  # between two looks for partitions that nobody loads


class Partitions(Protocol):
    """The loader that owns the writers, as far as the loop needs it."""

    def reached(self, ask: Callable[[], None]) -> None:
        """Ask Kafka; an outage is waited for where the load follows. SinkError: it failed."""

    def is_full(self, writer: PartitionWriter) -> bool:
        """Whether what a writer has collected is a file."""

    def flush(self, writer: PartitionWriter, end: int) -> None:
        """Write what a writer has collected, up to the offset `end`."""


class TopicLoad:
    """The loop over the partitions of one process. `take` returns those that it gets beside those that it has."""

    def __init__(
        self, loader: Partitions, options: LoadOptions, reader: BulkReader, take: Take, *, takes_over: bool
    ) -> None:
        self._loader, self._options = loader, options
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
            self._loader.reached(lambda: self._reader.assign(self._positions))

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
            if self._loader.is_full(writer):
                self._flush(place)
        self._options.on_progress(Progress(*place, self._positions[place], self._ends[place]))

    def _flush_old(self) -> None:
        due = monotonic() - self._options.flush_seconds
        if self._options.follow:
            for place in [place for place, since in self._since.items() if since < due]:
                self._flush(place)

    def _flush(self, place: Place) -> None:
        self._loader.flush(self._writers[place], self._positions[place])
        self._since.pop(place, None)
