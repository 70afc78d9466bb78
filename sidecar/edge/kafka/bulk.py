"""Committed messages in bulk: offsets and values by partition, for a caller that has no event loop.

Partitions are assigned, not shared by a group: nothing is committed to Kafka. aiokafka reads about 100,000 messages a
second of CPU like this, librdkafka a quarter more (`python -m benchmarks.billing`): not enough to need a second client.
It works while a method runs, so a caller that is busy with other things reads nothing ahead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractContextManager, AsyncExitStack
from typing import Any, Final, NamedTuple, TypeVar

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from sidecar.core.errors import SinkError
from sidecar.edge.kafka.connection import consumer, failing
from sidecar.edge.kafka.records import offset_bounds

T = TypeVar("T")
Place = tuple[str, int]  # topic, partition
CHUNK: Final = 10_000  # messages in one call
_FETCH_BYTES: Final = 4 << 20


class Chunk(NamedTuple):
    """Messages by place, in order; and the offset after all that was read there, ends of transactions included."""

    messages: dict[Place, list[tuple[int, bytes]]]
    positions: dict[Place, int]


class BulkReader(AbstractContextManager["BulkReader"]):
    """Reads partitions from given offsets. `connection` has aiokafka's parameters.

    SinkError from each method:
    Kafka does not answer; KafkaRefusalError: it refuses this client.
    """

    def __init__(self, connection: Mapping[str, Any]) -> None:
        self._connection = connection
        self._runner = asyncio.Runner()
        self._closing = AsyncExitStack()
        self._consumer: Any = None
        self._places: dict[Place, TopicPartition] = {}

    def partitions(self, topics: Iterable[str]) -> tuple[str, dict[str, list[int]]]:
        """The id of the cluster, and the partitions of each topic. SinkError: a topic is missing."""
        return self._run(self._partitions(list(topics)))

    def bounds(self, places: Iterable[Place]) -> dict[Place, tuple[int, int]]:
        """The first offset that is retained, and the one after the last message, committed or not, by place."""
        wanted = [TopicPartition(*place) for place in places]
        starts, ends = self._run(offset_bounds(self._connection, wanted))
        return {(tp.topic, tp.partition): (starts[tp], ends[tp]) for tp in wanted}

    def assign(self, positions: Mapping[Place, int]) -> None:
        """Read these partitions, each from its offset, and no others that were assigned before."""
        self._run(self._assign(positions))

    def read(self, seconds: float) -> Chunk:
        """The next messages: those that arrive within `seconds`, at most CHUNK."""
        return self._run(self._read(seconds))

    def stable_ends(self) -> dict[Place, int]:
        """By place, the offset before which no transaction is open. SinkError: Kafka does not answer."""
        wanted = list(self._places.values())
        ends = self._run(self._call(lambda: self._consumer.end_offsets(wanted)))
        return {(tp.topic, tp.partition): int(end) for tp, end in ends.items()}

    def close(self) -> None:
        """Disconnect."""
        try:
            self._runner.run(self._closing.aclose())
        finally:
            self._runner.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with failing("Kafka", self._connection):
            return self._runner.run(work)

    async def _call(self, call: Callable[[], Any]) -> Any:
        return await call()

    async def _partitions(self, topics: list[str]) -> tuple[str, dict[str, list[int]]]:
        admin = AIOKafkaAdminClient(**self._connection)
        try:
            await admin.start()
            about = await admin.describe_cluster()
            known = {each["topic"]: each["partitions"] for each in await admin.describe_topics()}
        finally:
            await admin.close()
        for topic in topics:
            if topic not in known:
                raise SinkError(f"Kafka has no topic {topic}: `sidecar kafka init` creates it")
        numbers = {topic: sorted(each["partition"] for each in known[topic]) for topic in topics}
        return str(about["cluster_id"]), numbers

    async def _assign(self, positions: Mapping[Place, int]) -> None:
        options = {"max_partition_fetch_bytes": _FETCH_BYTES, "auto_offset_reset": "none"}  # a gap is an error
        if self._consumer is None:
            self._consumer = await self._closing.enter_async_context(
                consumer(self._connection, "read_committed", **options)
            )
        self._places = {place: TopicPartition(*place) for place in positions}
        self._consumer.assign(list(self._places.values()))
        for place, offset in positions.items():
            self._consumer.seek(self._places[place], offset)

    async def _read(self, seconds: float) -> Chunk:
        fetched = await self._consumer.getmany(timeout_ms=int(seconds * 1_000), max_records=CHUNK)
        messages = {
            (tp.topic, tp.partition): [(each.offset, each.value or b"") for each in batch]
            for tp, batch in fetched.items()
            if batch
        }
        return Chunk(messages, {place: await self._consumer.position(tp) for place, tp in self._places.items()})
