"""Reads a topic of records as a consumer sees it: committed records only, from where it is told to the end.

The end is the last stable offset at the start, so that reading ends although records keep coming, and an open
transaction of somebody else cannot hold it up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition, errors

from sidecar.core.errors import SinkError

_POLL_MS = 200
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

    `follow`: go on for ever with what is committed later. `connection` is in aiokafka's names. SinkError: Kafka does
    not answer, or has no such topic.
    """
    consumer = AIOKafkaConsumer(
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=_FETCH_BYTES,
        **connection,
    )
    try:
        await consumer.start()
        ends = await _begin(consumer, topic, last)
        while follow or ends:
            for messages in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
                for message in messages:
                    if follow or message.offset < ends.get(TopicPartition(topic, message.partition), 0):
                        yield TopicRecord(message.key or b"", message.value or b"", message.partition, message.offset)
            ends = {tp: end for tp, end in ends.items() if await consumer.position(tp) < end}
    except (errors.KafkaError, TimeoutError, OSError) as error:
        raise SinkError(f"{topic} at {connection['bootstrap_servers']}: {type(error).__name__}: {error}") from error
    finally:
        await consumer.stop()


async def _begin(consumer: Any, topic: str, last: int | None) -> dict[TopicPartition, int]:
    """Assign all partitions and go to the first offset to be read; where each that is not empty ends."""
    if topic not in await consumer.topics():  # asks for all topics: asking for one may create it
        raise SinkError(f"Kafka has no topic {topic}")
    partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]
    consumer.assign(partitions)
    starts, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
    for tp in partitions:
        consumer.seek(tp, starts[tp] if last is None else max(starts[tp], ends[tp] - last))
    return {tp: ends[tp] for tp in partitions if ends[tp] > starts[tp] and last != 0}
