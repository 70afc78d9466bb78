"""Reads a topic of records as a consumer sees it: committed records only, from where it is told to the end.

The end is where the topic ended at the start, so that reading ends although records keep coming. A transaction that is
still open there is waited for, as a commit is acknowledged a moment before it is visible; but not for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from time import monotonic
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient

from sidecar.core.errors import SinkError

_POLL_MS = 200
_PATIENCE_SECONDS = 2
_FETCH_BYTES = 4 << 20


class TopicRecord(NamedTuple):
    """One message. `key` is b"" where it has none."""

    key: bytes
    value: bytes
    partition: int
    offset: int


async def read_topic(
    connection: Mapping[str, Any], topic: str, last: int | None = None, *, follow: bool = False
) -> AsyncIterator[TopicRecord]:
    """The records of `topic`, in order within a partition; the `last` offsets of each only, where given.

    `follow`: go on for ever with what is committed later. `connection` is in aiokafka's names. Who stops before the end
    closes the iterator (contextlib.aclosing). SinkError: Kafka does not answer, or has no such topic.
    """
    consumer = _consumer(connection, "read_committed")
    try:
        partitions = await _partitions(connection, topic)
        await consumer.start()
        ends = await _begin(consumer, partitions, await _ends(connection, partitions), last)
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


def _consumer(connection: Mapping[str, Any], isolation: str) -> Any:
    return AIOKafkaConsumer(
        isolation_level=isolation,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=_FETCH_BYTES,
        **connection,
    )


async def _ends(connection: Mapping[str, Any], partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
    """The high watermarks: a consumer that reads committed records only is told the last stable offsets."""
    consumer = _consumer(connection, "read_uncommitted")
    try:
        await consumer.start()
        consumer.assign(partitions)
        found: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
        return found
    finally:
        await _stop(consumer)


async def _stop(consumer: Any) -> None:
    """In a task of its own: with a broker away, `stop` can hang or end as cancelled, and that would look like us."""
    stopping = asyncio.get_running_loop().create_task(consumer.stop())
    await asyncio.wait([stopping], timeout=_PATIENCE_SECONDS)
    if not stopping.cancel() and not stopping.cancelled():
        stopping.exception()


async def _partitions(connection: Mapping[str, Any], topic: str) -> list[TopicPartition]:
    """All partitions. The broker is asked for all topics, because to ask for one may make it."""
    admin = AIOKafkaAdminClient(**connection)
    try:
        await admin.start()
        for known in await admin.describe_topics():
            if known["topic"] == topic:
                numbers = sorted(each["partition"] for each in known["partitions"])
                return [TopicPartition(topic, number) for number in numbers]
    finally:
        await admin.close()
    raise SinkError(f"Kafka has no topic {topic}")


async def _readable(consumer: Any, ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """Of `ends` those with something left that is no part of an open transaction. KafkaError: nobody answers."""
    stable = await consumer.end_offsets(list(ends))
    return {tp: end for tp, end in ends.items() if await consumer.position(tp) < stable[tp]}


async def _begin(
    consumer: Any, partitions: list[TopicPartition], ends: Mapping[TopicPartition, int], last: int | None
) -> dict[TopicPartition, int]:
    """Assign the partitions and go to the first offset to be read; where each that is not empty ends."""
    consumer.assign(partitions)
    starts = await consumer.beginning_offsets(partitions)
    for tp in partitions:
        consumer.seek(tp, starts[tp] if last is None else max(starts[tp], ends[tp] - last))
    return {tp: ends[tp] for tp in partitions if ends[tp] > starts[tp] and last != 0}
