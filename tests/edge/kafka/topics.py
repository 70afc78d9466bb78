"""What the tests of shipping share: topics of their own, a journal in memory, and what a foreign client reads back."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import NamedTuple

import orjson
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from sidecar.edge.kafka.options import KafkaOptions

_NUMBERS = itertools.count(1)


class Item(NamedTuple):
    """A journal entry in memory."""

    type: int
    stream: str
    sequence: int
    id: bytes
    key: bytes
    body: bytes
    position_after: int


def record(sequence: int, *, stream: str = "records", source: str = "//sidecar/test/n/0/1", size: int = 0) -> Item:
    """A record like ours: numbered, keyed by one of ten customers, padded to about `size` bytes."""
    name = f"{stream}-{sequence:022d}"
    body = {"id": name, "source": source, "sequence": f"{sequence:018d}", "data": {"customer": f"c{sequence % 10}"}}
    body["pad"] = "x" * max(0, size - len(orjson.dumps(body)) - 9)
    return Item(2, stream, sequence, name.encode(), b"c%d" % (sequence % 10), orjson.dumps(body), sequence)


class MemoryJournal:
    """Journals that are lists; a position is how many entries lie before it. Bounded reads, as from a file."""

    def __init__(self, **entries):
        self.entries = {worker: list(each) for worker, each in entries.items()}
        self.freed = dict.fromkeys(entries, 0)

    def workers(self):
        return list(self.entries)

    def reader(self, worker, position):
        return MemoryReader(self, worker, int(position or 0))


class MemoryReader:
    def __init__(self, journal, worker, at):
        self.journal, self.worker, self.at = journal, worker, at

    def read(self, max_bytes):
        found, size = [], 0
        for entry in self.journal.entries[self.worker][self.at :]:
            if found and size + len(entry.body) > max_bytes:
                break
            self.at += 1
            size += len(entry.body)
            found.append(entry._replace(position_after=self.at))
        return found

    def free(self, committed):
        self.journal.freed[self.worker] = committed
        return 0


class ListQuarantine:
    def __init__(self):
        self.lines = []

    def put(self, worker, entry, reason):
        self.lines.append((worker, entry.sequence, reason))


class Topics(NamedTuple):
    bootstrap: str
    records: str
    denials: str
    positions: str

    def options(self, node="n1", **changes) -> KafkaOptions:
        return KafkaOptions(
            **{
                "connection": {"bootstrap_servers": self.bootstrap, "retry_backoff_ms": 50},
                "node": node,
                "prefix": self.records,  # a transactional id a test
                "topics": {"records": self.records, "denials": self.denials},
                "positions_topic": self.positions,
                "request_timeout_us": 3_000_000,
                "commit_timeout_us": 6_000_000,
                "transaction_timeout_us": 10_000_000,
                **changes,
            }
        )


def make_topics(bootstrap: str, **settings: str) -> Topics:
    """Fresh topics: records on four partitions, the others on one. `settings` are of the records' topic."""
    name = f"t{time.monotonic_ns()}-{next(_NUMBERS)}"
    topics = Topics(bootstrap, f"{name}.records", f"{name}.denials", f"{name}.positions")
    make_topic(bootstrap, topics.records, 4, **settings)
    make_topic(bootstrap, topics.denials, 1)
    make_topic(bootstrap, topics.positions, 1, **{"cleanup.policy": "compact"})
    return topics


def make_topic(bootstrap: str, name: str, partitions: int, **settings: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    config = {key.replace("_", "."): value for key, value in settings.items()}
    for made in admin.create_topics([NewTopic(name, partitions, 1, config=config)]).values():
        made.result(20)
    deadline = time.monotonic() + 60  # the controller has made it; a busy broker tells of it and leads it later
    while not _led(admin, name, partitions):
        assert time.monotonic() < deadline, f"topic {name} was made and is not led"
        time.sleep(0.02)


def _led(admin: AdminClient, name: str, partitions: int) -> bool:
    found = admin.list_topics(timeout=20).topics.get(name)
    return (
        found is not None
        and len(found.partitions) == partitions
        and all(each.leader >= 0 for each in found.partitions.values())
    )


def read_topic(bootstrap: str, topic: str, isolation: str = "read_committed") -> list:
    """Every message of a topic, read by librdkafka to the high watermark.

    Not to the last stable offset: a commit is acknowledged before its markers are written, and a killed shipper leaves
    a transaction that its time-out ends.
    """
    settings = {"bootstrap.servers": bootstrap, "group.id": "none", "isolation.level": isolation}
    consumer = Consumer({**settings, "enable.auto.commit": False, "enable.partition.eof": True})
    try:
        partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
        known = [TopicPartition(topic, number, 0) for number in partitions]
        ends = {tp.partition: consumer.get_watermark_offsets(tp, timeout=20)[1] for tp in known}
        consumer.assign(known)
        found, open_, deadline = [], set(ends), time.monotonic() + 40
        while open_ and time.monotonic() < deadline:
            for message in consumer.consume(1000, timeout=0.2):
                if message.error() is None:
                    found.append(message)
                elif message.offset() >= ends[message.partition()]:
                    open_.discard(message.partition())
        assert not open_, f"{topic} could not be read to its end"
        return found
    finally:
        consumer.close()


def sequences(messages) -> dict[str, list[int]]:
    """The sequence numbers by source, in order of partition and offset."""
    found = {}
    for message in messages:
        body = orjson.loads(message.value())
        found.setdefault(body["source"], []).append(int(body["sequence"]))
    return found


def positions(topics: Topics) -> dict[bytes, bytes]:
    return {message.key(): message.value() for message in read_topic(topics.bootstrap, topics.positions)}


async def until(condition, what: str, seconds: float = 30) -> None:
    """Poll a condition, with a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:g} s"
        await asyncio.sleep(0.01)


def records(first, last, **kind):
    return [record(number, **kind) for number in range(first, last + 1)]
