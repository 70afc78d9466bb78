"""Reads a topic of records as a consumer does: committed records only, from given offsets to the end of the topic.

The end is determined at the start, so that reading terminates although records are added. If a transaction is open
there, its commit is awaited for a short time, since a commit is acknowledged a moment before it becomes visible.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from itertools import chain
from time import monotonic
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from sidecar.core.errors import SinkError
from sidecar.edge.kafka.connection import consumer, failing

_POLL_MS = 200
_PATIENCE_SECONDS = 2
_FETCH_BYTES = 4 << 20


class TopicRecord(NamedTuple):
    """One message. `key` is b"" if the message has no key."""

    key: bytes
    value: bytes
    partition: int
    offset: int


async def read_topic(
    connection: Mapping[str, Any],
    topic: str,
    begin: Mapping[int, int] | None = None,
    *,
    follow: bool = False,
    since_ms: int = 0,
) -> AsyncGenerator[TopicRecord, None]:
    """The records of `topic`, in order within a partition, from the offsets in `begin` (by partition).

    `since_ms`: from the first message of each partition whose timestamp is that or later. `follow`: continue without
    end, with records that are committed later. `connection` has aiokafka's parameters. A caller that stops early must
    close the iterator (contextlib.aclosing). SinkError: Kafka does not answer, or the topic does not exist.
    """
    with failing(topic, connection):
        partitions = await _partitions(connection, topic)
        starts, ends = await offset_bounds(connection, partitions, since_ms)
        async with consumer(connection, "read_committed", max_partition_fetch_bytes=_FETCH_BYTES) as reader:
            reader.assign(partitions)
            for tp in partitions:
                starts[tp] = max(starts[tp], (begin or {}).get(tp.partition, 0))
                reader.seek(tp, starts[tp])
            ends = {tp: end for tp, end in ends.items() if end > starts[tp]}
            patient_until = monotonic() + _PATIENCE_SECONDS
            while follow or ends:
                fetched = (await reader.getmany(timeout_ms=_POLL_MS)).values()
                for message in chain.from_iterable(fetched):
                    if follow or message.offset < ends.get(TopicPartition(topic, message.partition), 0):
                        yield TopicRecord(message.key or b"", message.value or b"", message.partition, message.offset)
                ends = {tp: end for tp, end in ends.items() if await reader.position(tp) < end}
                if fetched:
                    patient_until = monotonic() + _PATIENCE_SECONDS
                elif monotonic() > patient_until and not follow:
                    ends = await _readable(reader, ends)


async def read_last(connection: Mapping[str, Any], topic: str, number: int) -> tuple[list[TopicRecord], dict[int, int]]:
    """The last `number` records of each partition, and the offsets after them. SinkError: as `read_topic`.

    The ends of transactions take offsets too, so more than `number` offsets are read, and eight times as many again if
    there were too few records.
    """
    with failing(topic, connection):
        bounds = await offset_bounds(connection, await _partitions(connection, topic))
    starts, ends = ({tp.partition: offset for tp, offset in each.items()} for each in bounds)
    last: dict[int, deque[TopicRecord]] = {partition: deque(maxlen=number) for partition in ends}
    short, width = set(ends if number else ()), 4 * number
    while short:
        begin = {partition: max(starts[partition], ends[partition] - width) for partition in short}
        for partition in short:
            last[partition].clear()
        async with aclosing(read_topic(connection, topic, ends | begin)) as records:
            async for record in records:
                if record.partition in short and record.offset < ends[record.partition]:
                    last[record.partition].append(record)
        short = {each for each in short if len(last[each]) < number and begin[each] > starts[each]}
        width *= 8
    return [record for records in last.values() for record in records], ends


async def offset_bounds(
    connection: Mapping[str, Any], partitions: list[TopicPartition], since_ms: int = 0
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    """The first offsets and the high watermarks. A consumer of committed records would get the last stable offsets.

    With `since_ms` a partition begins at its first message of that time or later, at its end where it has none.
    """
    async with consumer(connection, "read_uncommitted") as reader:
        reader.assign(partitions)
        starts, ends = await reader.beginning_offsets(partitions), await reader.end_offsets(partitions)
        if since_ms:
            first = await reader.offsets_for_times(dict.fromkeys(partitions, since_ms))
            starts = {tp: each.offset if (each := first[tp]) is not None else ends[tp] for tp in partitions}
        return starts, ends


async def _partitions(connection: Mapping[str, Any], topic: str) -> list[TopicPartition]:
    """All partitions. The request is for all topics, because a request for one topic may create it."""
    admin = AIOKafkaAdminClient(**connection)
    try:
        await admin.start()
        for known in await admin.describe_topics():
            if known["topic"] == topic:
                numbers = sorted(each["partition"] for each in known["partitions"])
                return [TopicPartition(topic, number) for number in numbers]
    finally:
        await admin.close()
    raise SinkError(f"Kafka has no topic {topic}: `sidecar kafka init` creates it")


async def _readable(reader: Any, ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """Those of `ends` before which records are left that are not in an open transaction. KafkaError: no answer."""
    stable = await reader.end_offsets(list(ends))
    return {tp: end for tp, end in ends.items() if await reader.position(tp) < stable[tp]}
