"""Committed messages in bulk, by librdkafka (confluent-kafka, the extra `billing`): offsets and values, no objects.

aiokafka, which the shipper uses, makes an object of each message in Python and reads a fifth as fast
(`python -m benchmarks.billing`). Partitions are assigned, not shared by a group: no offset is committed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from time import monotonic
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from sidecar.core.errors import SinkError, StateError
from sidecar.edge.kafka.connection import KafkaRefusalError

Place = tuple[str, int]  # topic, partition
CHUNK: Final = 10_000  # messages in one call
_ANSWER_SECONDS = 10
_ATTEMPT_SECONDS: Final = 1
_MISSING: Final = "reading Kafka in bulk needs confluent-kafka: pip install 'metering-sidecar[billing]'"
# Errors of librdkafka, by name, that do not pass by waiting, and what to do.
_REFUSALS: Final = {
    "_AUTHENTICATION": "the broker refuses this user, password or token: correct them in kafka.security",
    "_SSL": "TLS with the broker failed: check kafka.security.protocol, ca and cert",
    "TOPIC_AUTHORIZATION_FAILED": "the broker does not let this user read the topic: allow it READ and DESCRIBE",
}
_OPTIONS: Final = {
    "group.id": "sidecar-ledger",  # required, and not used
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
    "fetch.message.max.bytes": 4 << 20,
    "queued.max.messages.kbytes": 32_768,  # of each partition that is fetched ahead
    "fetch.queue.backoff.ms": 10,  # by default it rests a second each time that so much is ahead
    "log_level": 0,
}


class Chunk(NamedTuple):
    """Messages by place, in order; and ends of the log that were reached, with their offset."""

    messages: dict[Place, list[tuple[int, bytes]]]
    ends: dict[Place, int]


class BulkReader:
    """Reads partitions from given offsets. `options` are librdkafka's, of the connection.

    SinkError from each method: Kafka does not answer. StateError: the extra is not installed.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        try:
            self._kafka: Any = import_module("confluent_kafka")
        except ImportError:
            raise StateError(_MISSING) from None
        self._servers = options["bootstrap.servers"]
        self._options = {**_OPTIONS, "error_cb": self._note, **options}
        self._last_error: Any = None
        self._consumer = self._kafka.Consumer({**self._options, "isolation.level": "read_committed"})
        self._consumer.poll(0)  # serves the callback for a token, which the first connection waits for

    def partitions(self, topics: Iterable[str]) -> tuple[str, dict[str, list[int]]]:
        """The id of the cluster, and the partitions of each topic. SinkError: a topic is missing."""
        wanted = list(topics)
        about = self._metadata()
        for topic in wanted:
            if topic not in about.topics:
                raise SinkError(f"Kafka has no topic {topic}: `sidecar kafka init` creates it")
        return str(about.cluster_id), {topic: sorted(about.topics[topic].partitions) for topic in wanted}

    def _metadata(self) -> Any:
        """The cluster's metadata. A refusal is reported at once: librdkafka would try again until the end."""
        deadline = monotonic() + _ANSWER_SECONDS
        while True:
            try:
                return self._consumer.list_topics(timeout=_ATTEMPT_SECONDS)
            except self._kafka.KafkaException as failure:
                self._consumer.poll(0)  # serves the callbacks
                error = self._last_error or failure.args[0]
                if error.name() in _REFUSALS or monotonic() > deadline:
                    raise self._explain(error) from failure

    def bounds(self, places: Iterable[Place]) -> dict[Place, tuple[int, int]]:
        """The first offset that is retained, and the one after the last message, committed or not, by place.

        A consumer of committed messages would get the end before the first open transaction.
        """
        consumer = self._kafka.Consumer({**self._options, "isolation.level": "read_uncommitted"})
        try:
            consumer.poll(0)
            return {place: self._watermarks(consumer, place) for place in places}
        finally:
            consumer.close()

    def _watermarks(self, consumer: Any, place: Place) -> tuple[int, int]:
        partition = self._kafka.TopicPartition(*place)
        low, high = self._call(lambda: consumer.get_watermark_offsets(partition, timeout=_ANSWER_SECONDS))
        return int(low), int(high)

    def assign(self, positions: Mapping[Place, int]) -> None:
        """Read these partitions, each from its offset."""
        places = [self._kafka.TopicPartition(*place, offset) for place, offset in positions.items()]
        self._call(lambda: self._consumer.assign(places))

    def read(self, seconds: float) -> Chunk:
        """The next messages: those that arrive within `seconds`, at most CHUNK."""
        messages: dict[Place, list[tuple[int, bytes]]] = {}
        ends: dict[Place, int] = {}
        for message in self._call(lambda: self._consumer.consume(CHUNK, timeout=seconds)):
            place = (message.topic(), message.partition())
            if (error := message.error()) is None:
                pair = (message.offset(), message.value() or b"")
                try:
                    messages[place].append(pair)
                except KeyError:
                    messages[place] = [pair]
            elif error.code() == self._kafka.KafkaError._PARTITION_EOF:  # librdkafka's own name
                ends[place] = message.offset()
            else:
                raise self._explain(error)
        if not messages and not ends and self._last_error is not None:
            self._metadata()  # raises while no broker answers
            self._last_error = None
        return Chunk(messages, ends)

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _note(self, error: Any) -> None:
        if self._last_error is None or self._last_error.name() not in _REFUSALS:
            self._last_error = error

    def _call(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except self._kafka.KafkaException as failure:
            raise self._explain(failure.args[0]) from failure

    def _explain(self, error: Any) -> SinkError:
        remedy = _REFUSALS.get(error.name())
        if remedy is None:
            return SinkError(f"Kafka at {self._servers}: {error.str()}")
        return KafkaRefusalError(f"Kafka at {self._servers}: {remedy} ({error.str()})")
