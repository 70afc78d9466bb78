"""Ships records to Kafka, in transactions that also contain the positions in the journals: both are committed, or none.

Opening fences every older producer of this node, so that the last committed positions are final, and reads them. After
any error the sink is opened again. Every wait has a timeout of this module, a producer is replaced after its first
error, and neither aiokafka's retries across producers nor its graceful stop are used.

    begin; record 412 -> usage.records/7; record 413 -> usage.records/2; position "gw-3/0/ab12" = 3.7.9120; commit
    killed before the commit: the next opening reads 3.7.8800, and the same two records are sent again
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer, TopicPartition, errors
from aiokafka.partitioner import murmur2

from sidecar.core.errors import RefusedError, SinkError
from sidecar.edge.kafka.connection import explain
from sidecar.edge.kafka.options import KafkaOptions
from sidecar.edge.kafka.positions import POSITIONS_PARTITION, Positions
from sidecar.edge.kafka.producer import REFUSALS, Message, drop, fill
from sidecar.ports import Entry

RECORD_OVERHEAD_BYTES = 32  # an upper bound of a record's head in a batch (lengths and deltas of at most 5 bytes each)
_KEYS_CACHED = 1 << 16
_PROBES = 16  # parts into which a refused batch is split, to identify the refused record


class _Mark(NamedTuple):
    """A position to send."""

    key: bytes
    body: bytes


class _Batch(NamedTuple):
    """Messages of one partition, with aiokafka's builder. `turn`: the number of batches to this partition before it."""

    turn: int
    tp: TopicPartition
    messages: Sequence[Any]
    builder: Any


class KafkaSink:
    """A RecordSink on Kafka. One commit at a time."""

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options
        self._positions = Positions(options)
        self._producer: Any = None
        self._sent = 0  # records passed to this producer, over all partitions
        self._batch_bytes = options.max_batch_bytes
        self._partition_of: dict[bytes, int] = {}
        self._partitions: dict[str, int] = {}

    # --- RecordSink --------------------------------------------------------------------------------------------------

    async def open(self) -> Mapping[str, str]:
        """Fence all older producers of this node and read their last committed positions.

        SinkError: Kafka does not answer, or a topic is missing.
        """
        async with self._bounded("opening"):
            await self._replace()
            await self._require_topics()
            return await self._positions.read()

    async def commit(self, entries: Sequence[Entry], positions: Mapping[str, str]) -> None:
        """Commit `entries` and `positions` in one transaction; entries go to the partition of their key, in order."""
        async with self._bounded("committing"):
            if self._sent + len(entries) > self._options.producer_records:
                await self._replace()
            refused = await self._transact(entries, positions)
            if refused is not None:
                await self._isolate(*refused)

    async def close(self) -> None:
        """Drop the producer. An open transaction is aborted by the next opening, or by its timeout."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await drop(producer)

    # --- The transaction ---------------------------------------------------------------------------------------------

    async def _transact(
        self, entries: Sequence[Entry], positions: Mapping[str, str]
    ) -> tuple[TopicPartition, list[Entry], Exception] | None:
        """Write and commit. Returns None, or the entries that a broker refused; then nothing is committed."""
        parts = await self._parts(entries)
        marks = [_Mark(self._options.position_key(worker), text.encode()) for worker, text in positions.items()]
        batches = [batch for tp, messages in parts.items() for batch in self._batches(tp, messages)]
        batches += self._batches(TopicPartition(self._options.positions_topic, POSITIONS_PARTITION), marks)
        batches.sort(key=_turn)  # the first of each partition, then the second: a request has one batch per partition
        await self._producer.begin_transaction()
        sent = [await self._send(batch) for batch in batches]
        outcomes = await asyncio.gather(*sent, return_exceptions=True)
        # Before the commit, because `commit_transaction` commits the batches that arrived and ignores the others.
        for batch, outcome in zip(batches, outcomes, strict=True):
            if isinstance(outcome, REFUSALS) and batch.tp in parts:
                return batch.tp, list(batch.messages), outcome
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        await self._producer.commit_transaction()
        return None

    async def _send(self, batch: _Batch) -> asyncio.Future[Any]:
        self._sent += len(batch.messages)
        sent: asyncio.Future[Any] = await self._producer.send_batch(
            batch.builder, batch.tp.topic, partition=batch.tp.partition
        )
        return sent

    def _batches(self, tp: TopicPartition, messages: Sequence[Message]) -> list[_Batch]:
        """`messages` in batches, in order. A batch has the producer's maximal size, or a single larger message."""
        batches: list[_Batch] = []
        while messages:
            builder = self._producer.create_batch()
            taken = fill(builder, messages)
            batches.append(_Batch(len(batches), tp, messages[:taken], builder))
            messages = messages[taken:]
        return batches

    async def _parts(self, entries: Sequence[Entry]) -> dict[TopicPartition, list[Entry]]:
        """`entries` by partition, in order. RefusedError: some are larger than `max_record_bytes`."""
        for topic in self._options.topics.values():
            self._partitions[topic] = len(await self._producer.partitions_for(topic))
        parts: dict[TopicPartition, list[Entry]] = {}
        puts: dict[tuple[str, bytes], Callable[[Entry], None]] = {}
        bound, large = self._options.max_record_bytes, []
        most = bound - RECORD_OVERHEAD_BYTES
        for entry in entries:
            stream, key = entry.stream, entry.key
            put = puts.get((stream, key))
            if put is None:
                put = puts[stream, key] = parts.setdefault(self._place(stream, key), []).append
            put(entry)
            if len(key) + len(entry.body) > most:
                large.append(entry)
        if large:
            raise RefusedError(large, f"larger than {bound} bytes, the most that a record may have")
        return parts

    def _place(self, stream: str, key: bytes) -> TopicPartition:
        topic = self._options.topics[stream]
        return TopicPartition(topic, self._hash(key) % self._partitions[topic])

    def _hash(self, key: bytes) -> int:
        """Kafka's own hash of a key, before the modulo. It is cached, since murmur2 in Python takes microseconds."""
        hashed = self._partition_of.get(key)
        if hashed is None:
            if len(self._partition_of) >= _KEYS_CACHED:
                self._partition_of.clear()
            hashed = self._partition_of[key] = murmur2(key) & 0x7FFFFFFF
        return hashed

    # --- Refused records ---------------------------------------------------------------------------------------------

    async def _isolate(self, tp: TopicPartition, suspects: list[Entry], reason: Exception) -> None:
        """Identify the refused record in a refused batch, with transactions that are never committed.

        RefusedError names it. SinkError: only the batch as a whole was too large; later batches will be smaller.
        """
        while len(suspects) > 1:
            part = -(-len(suspects) // _PROBES)
            parts = [suspects[start : start + part] for start in range(0, len(suspects), part)]
            refused = await self._probe(tp, parts)
            if refused is None:
                (smaller,) = self._batches(tp, parts[0])
                self._batch_bytes = smaller.builder.size()  # an accepted size; used from the next opening on
                raise SinkError(f"{tp.topic} accepts smaller batches only ({reason}): raise its max.message.bytes")
            suspects, reason = refused
        await self._replace()
        raise RefusedError(suspects, f"{tp.topic}: {reason}")

    async def _probe(self, tp: TopicPartition, parts: list[list[Entry]]) -> tuple[list[Entry], Exception] | None:
        """The first of `parts` that the broker refuses, each sent as a batch and none committed."""
        await self._replace()  # a refused batch takes sequence numbers, so later batches would be out of order
        await self._producer.begin_transaction()
        for part in parts:
            (batch,) = self._batches(tp, part)
            try:
                await (await self._send(batch))
            except REFUSALS as error:
                return part, error
        return None

    # --- The producer ------------------------------------------------------------------------------------------------

    async def _replace(self) -> None:
        """Start a new producer with our id: the coordinator aborts the old one's transaction, and fences it."""
        await self.close()
        options = self._options
        self._producer = AIOKafkaProducer(
            transactional_id=options.transactional_id,
            acks="all",
            enable_idempotence=True,
            compression_type=options.compression,
            max_batch_size=self._batch_bytes,
            request_timeout_ms=options.request_timeout_us // 1000,
            transaction_timeout_ms=options.transaction_timeout_us // 1000,
            **options.connection,
        )
        self._sent = 0
        await self._producer.start()

    async def _require_topics(self) -> None:
        known = (await self._producer.client.fetch_all_metadata()).topics()
        wanted = {*self._options.topics.values(), self._options.positions_topic}
        if missing := sorted(wanted - set(known)):
            names = ", ".join(missing)
            raise SinkError(
                f"Kafka shows this user no topic {names}: `sidecar kafka init` creates missing topics; for one that is "
                "there allow the user what docs/kafka.md lists"
            )

    @asynccontextmanager
    async def _bounded(self, doing: str) -> AsyncIterator[None]:
        """Add a timeout, and turn every error into a SinkError."""
        timeout_us = self._options.commit_timeout_us
        try:
            async with asyncio.timeout(timeout_us / 1e6):
                yield
        except SinkError:
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise SinkError(f"{doing}: a task of aiokafka was cancelled") from None  # the current task was not
        except TimeoutError:
            raise SinkError(f"{doing}: Kafka did not answer within {timeout_us // 1000} ms") from None
        except errors.ProducerFenced:
            raise SinkError(
                f"{doing}: {self._options.transactional_id} was taken over: another shipper has the same node name,"
                " or this process was stopped for longer than the transaction timeout"
            ) from None
        except errors.KafkaConnectionError:
            why = self._options.no_connection(self._options.connection["bootstrap_servers"])
            raise SinkError(f"{doing}: {why}") from None
        except Exception as error:  # aiokafka also raises AssertionError and KeyError
            raise SinkError(f"{doing}: {explain(error)}") from error


def _turn(batch: _Batch) -> int:
    return batch.turn
