"""Where a measured shipper ships to, and what a consumer sees committed there: records, and positions with them.

Each knows one run: its stage, and the name of its node, which is in all that the run makes on a shared broker.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import orjson

from benchmarks.feed import WORKER
from benchmarks.stage import LOAD_CORE, Stage
from sidecar.core.record.frame import Position

PATIENCE_S = 300
KAFKA = """kafka:
  bootstrap_servers: "{bootstrap}"
  topics: {{ records: {node}.records, denials: {node}.denials, positions: {node}.positions }}
"""


class Target(Protocol):
    """Where the records of one run go. `config` is what the sidecar's settings say of it."""

    config: str
    topics: bool  # they are to be made before

    def committed(self) -> Iterator[Position | None]:
        """What is committed of the feed, as it comes; None, some milliseconds later, where nothing came."""

    def count(self) -> int:
        """How many records of the feed are there, for a consumer that sees what is committed."""


Makes = Callable[[Stage, str], Target]


class ToFile:
    """The file sink: its positions file is looked at every other millisecond."""

    config = "sink: { file: records.jsonl }\n"
    topics = False

    def __init__(self, stage: Stage, _node: str) -> None:
        self._path = stage.dir / "records.jsonl"

    def committed(self) -> Iterator[Position | None]:
        path, last = self._path.with_name("records.jsonl.positions"), ""
        while True:
            now = last
            with contextlib.suppress(FileNotFoundError):
                positions = orjson.loads(path.read_bytes())["positions"]  # by worker and journal
                now = next((place for key, place in positions.items() if key.partition("/")[0] == WORKER), "")
            if now == last:
                time.sleep(0.002)
                yield None
            else:
                last = now
                yield Position.parse(now)

    def count(self) -> int:
        with self._path.open("rb") as lines:
            return sum(_is_fed(line) for line in lines)


class ToKafka:
    """A real broker: its topics are read as any consumer would, committed records only."""

    topics = True

    def __init__(self, bootstrap: str, node: str) -> None:
        self.config = KAFKA.format(bootstrap=bootstrap, node=node)
        self._bootstrap = bootstrap
        self._node = node

    def committed(self) -> Iterator[Position | None]:
        with self._reading(f"{self._node}.positions") as (consumer, _):
            while True:
                found = None
                for message in consumer.consume(100, timeout=0.01):
                    if message.error() is None and f"/{WORKER}/" in message.key().decode():
                        found = Position.parse(message.value().decode())
                yield found

    def count(self) -> int:
        with self._reading(f"{self._node}.records") as (consumer, partitions):
            found, ended, deadline = 0, set[int](), time.monotonic() + PATIENCE_S
            while len(ended) < partitions and time.monotonic() < deadline:
                for message in consumer.consume(10_000, timeout=0.5):
                    if message.error() is None:
                        found += _is_fed(message.value())
                    else:
                        ended.add(message.partition())
            return found

    @contextlib.contextmanager
    def _reading(self, topic: str) -> Iterator[tuple[Any, int]]:
        """A consumer of all of a topic from its start, and how many partitions that has."""
        from confluent_kafka import Consumer, TopicPartition  # noqa: PLC0415 - who ships to a file does without

        settings = {"bootstrap.servers": self._bootstrap, "group.id": "bench", "isolation.level": "read_committed"}
        consumer = Consumer({**settings, "enable.auto.commit": False, "enable.partition.eof": True, "log_level": 0})
        try:
            known = consumer.list_topics(topic, timeout=30).topics[topic].partitions
            consumer.assign([TopicPartition(topic, number, 0) for number in known])
            yield consumer, len(known)
        finally:
            consumer.close()


def _is_fed(record: bytes) -> bool:
    return b"/%b/" % WORKER.encode() in record[:120]  # its source


@contextlib.contextmanager
def broker() -> Iterator[str]:
    """Apache Kafka as the tests run it, one broker, on the load's core; its address."""
    from tests.servers.kafka import KafkaServer, kafka_jars  # noqa: PLC0415 - who ships to a file does without

    folder = Path(tempfile.mkdtemp(prefix="bench-kafka-"))
    server = KafkaServer(folder, kafka_jars())
    mine = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {LOAD_CORE})  # children inherit it
        server.format()
        server.start()
        os.sched_setaffinity(0, mine)
        yield server.bootstrap
    finally:
        os.sched_setaffinity(0, mine)
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
