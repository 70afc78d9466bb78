"""Reads a topic of records as a consumer does: committed records only, from given offsets to the end of the topic.

The end is determined at the start, so that reading terminates although records are added. If a transaction is open
there, its commit is awaited for a short time, since a commit is acknowledged a moment before it becomes visible.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from time import monotonic
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient

from sidecar.core.errors import SinkError

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
    connection: Mapping[str, Any], topic: str, begin: Mapping[int, int] | None = None, *, follow: bool = False
) -> AsyncGenerator[TopicRecord, None]:
    """The records of `topic`, in order within a partition, from the offsets in `begin` (by partition).

    `follow`: continue without end, with records that are committed later. `connection` has aiokafka's parameters. A
    caller that stops early must close the iterator (contextlib.aclosing). SinkError: Kafka does not answer, or the
    topic does not exist.
    """
    consumer = _consumer(connection, "read_committed")
    try:
        partitions = await _partitions(connection, topic)
        await consumer.start()
        ends = await _begin(consumer, partitions, await _ends(connection, partitions), begin)
        patient_until = monotonic() + _PATIENCE_SECONDS
        while follow or ends:
            fetched = (await consumer.getmany(timeout_ms=_POLL_MS)).values()
            for messages in fetched:
                for message in messages:
                    if follow or message.offset < ends.get(TopicPartition(topic, message.partition), 0):
                        yield TopicRecord(message.key or b"", message.value or b"", message.partition, message.offset)
            ends = {tp: end for tp, end in ends.items() if await consumer.position(tp) < end}
            if fetched:
                patient_until = monotonic() + _PATIENCE_SECONDS
            elif monotonic() > patient_until and not follow:
                ends = await _readable(consumer, ends)
    except (errors.KafkaError, TimeoutError, OSError) as error:
        raise SinkError(f"{topic} at {connection['bootstrap_servers']}: {type(error).__name__}: {error}") from error
    finally:
        await _stop(consumer)


async def read_last(connection: Mapping[str, Any], topic: str, number: int) -> tuple[list[TopicRecord], dict[int, int]]:
    """The last `number` records of each partition, and the offsets after them. SinkError: as `read_topic`.

    The ends of transactions take offsets too, so more than `number` offsets are read, and eight times as many again if
    there were too few records.
    """
    starts, ends = await _bounds(connection, topic)
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


async def _bounds(connection: Mapping[str, Any], topic: str) -> tuple[dict[int, int], dict[int, int]]:
    """The first offset and the end of each partition."""
    consumer = _consumer(connection, "read_uncommitted")
    try:
        partitions = await _partitions(connection, topic)
        await consumer.start()
        consumer.assign(partitions)
        starts, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        return {tp.partition: starts[tp] for tp in partitions}, {tp.partition: ends[tp] for tp in partitions}
    except (errors.KafkaError, TimeoutError, OSError) as error:
        raise SinkError(f"{topic} at {connection['bootstrap_servers']}: {type(error).__name__}: {error}") from error
    finally:
        await _stop(consumer)


def _consumer(connection: Mapping[str, Any], isolation: str) -> Any:
    return AIOKafkaConsumer(
        isolation_level=isolation,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=_FETCH_BYTES,
        **connection,
    )


async def _ends(connection: Mapping[str, Any], partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
    """The high watermarks. A consumer of committed records only would get the last stable offsets instead."""
    consumer = _consumer(connection, "read_uncommitted")
    try:
        await consumer.start()
        consumer.assign(partitions)
        offsets: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
        return offsets
    finally:
        await _stop(consumer)


async def _stop(consumer: Any) -> None:
    """Stop in a separate task: without a broker, `stop` can hang or be cancelled, which would look like our own."""
    stopping = asyncio.get_running_loop().create_task(consumer.stop())
    await asyncio.wait([stopping], timeout=_PATIENCE_SECONDS)
    if not stopping.cancel() and not stopping.cancelled():
        stopping.exception()


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


async def _readable(consumer: Any, ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """Those of `ends` before which records are left that are not in an open transaction. KafkaError: no answer."""
    stable = await consumer.end_offsets(list(ends))
    return {tp: end for tp, end in ends.items() if await consumer.position(tp) < stable[tp]}


async def _begin(
    consumer: Any, partitions: list[TopicPartition], ends: Mapping[TopicPartition, int], begin: Mapping[int, int] | None
) -> dict[TopicPartition, int]:
    """Assign the partitions and seek to the first offset to read. Returns the ends of those with records to read."""
    consumer.assign(partitions)
    starts = await consumer.beginning_offsets(partitions)
    for tp in partitions:
        starts[tp] = max(starts[tp], (begin or {}).get(tp.partition, 0))
        consumer.seek(tp, starts[tp])
    return {tp: ends[tp] for tp in partitions if ends[tp] > starts[tp]}
