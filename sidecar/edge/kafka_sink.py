"""Records to Kafka, in transactions that also hold how far the journals have been read: both are committed, or neither.

Opening fences every older producer of this node, so the last committed position is final, and reads it back; after any
doubt the sink is opened again. It waits for nothing without a bound of its own, trusts a producer no further than its
first error, and asks of aiokafka neither retries across producers nor a graceful stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NamedTuple, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, errors
from aiokafka.partitioner import murmur2

from sidecar.core.errors import RefusedError, SinkError
from sidecar.ports import Entry

RECORD_OVERHEAD_BYTES = 32  # above what a record's own head takes in a batch (lengths, deltas: at most 5 bytes each)
POSITIONS_PARTITION = 0  # always: were it found by hash, more partitions would lose the positions
_CLOSE_SECONDS = 5
_KEYS_CACHED = 1 << 16
_PROBES = 16  # into how many parts a refused batch is split, to find the record that is to blame


class InvalidRecordError(errors.BrokerResponseError):  # type: ignore[misc]  # aiokafka has no types
    """The broker's INVALID_RECORD. aiokafka 0.14 ends its table before it, and would report an unknown error."""

    errno: ClassVar[int] = 87
    message = "INVALID_RECORD"


errors.kafka_errors.setdefault(InvalidRecordError.errno, InvalidRecordError)

# What a broker answers where a record, or the batch it is in, will never do. All else may pass, and is tried again.
_REFUSALS: Final = (
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.InvalidTimestampError,
    errors.PolicyViolationError,
    errors.UnsupportedForMessageFormatError,
    InvalidRecordError,
)


def _default_topics() -> dict[str, str]:
    return {"records": "usage.records", "denials": "usage.denials"}


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """How to reach Kafka and what to send. `connection` holds aiokafka's own names: bootstrap_servers, ssl_context.

    `node` is this node's name, and `journal` the journal's (a new volume must not go by an old one's positions); both
    are in the positions' keys. `topics` maps a stream to its topic.
    """

    connection: Mapping[str, Any]
    node: str
    journal: str = ""
    prefix: str = "sidecar"
    topics: Mapping[str, str] = field(default_factory=_default_topics)
    positions_topic: str = "usage.positions"
    compression: str | None = None
    max_record_bytes: int = 1_000_000  # Kafka's default for max.message.bytes is 1,048,588, a whole batch
    max_batch_bytes: int = 900_000
    request_timeout_us: int = 10_000_000
    commit_timeout_us: int = 30_000_000
    transaction_timeout_us: int = 45_000_000  # above commit_timeout_us; a dead node holds readers up for so long
    # aiokafka wraps a partition's sequence wrongly at 2^31; a new producer starts at 0.
    producer_records: int = 1 << 30

    @property
    def transactional_id(self) -> str:
        """The same for all lives of this node's shipper: who comes later fences who was before."""
        return f"{self.prefix}-{self.node}"

    def position_key(self, worker: str) -> bytes:
        """The key of a worker's position: `node/worker`, and the journal's name where it has one."""
        return "/".join(part for part in (self.node, worker, self.journal) if part).encode()


class Message(Protocol):
    """What of an entry is sent."""

    @property
    def key(self) -> bytes: ...
    @property
    def body(self) -> bytes: ...


class _Mark(NamedTuple):
    """A position on its way."""

    key: bytes
    body: bytes


class _Batch(NamedTuple):
    """Messages of one partition, and aiokafka's builder that holds them. `turn`: how many go there before it."""

    turn: int
    tp: TopicPartition
    messages: Sequence[Any]
    builder: Any


class KafkaSink:
    """A RecordSink on Kafka. One commit at a time."""

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options
        self._producer: Any = None
        self._sent = 0  # records given to this producer, over all partitions
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
            return await self._read_positions()

    async def commit(self, entries: Sequence[Entry], positions: Mapping[str, str]) -> None:
        """One transaction: `entries`, each to its key's partition in the order given, and `positions`."""
        async with self._bounded("committing"):
            if self._sent + len(entries) > self._options.producer_records:
                await self._replace()
            refused = await self._transact(entries, positions)
            if refused is not None:
                await self._blame(*refused)

    async def close(self) -> None:
        """Drop the producer. An open transaction is aborted by whoever opens next, or by its time-out."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _drop(producer)

    # --- The transaction ---------------------------------------------------------------------------------------------

    async def _transact(
        self, entries: Sequence[Entry], positions: Mapping[str, str]
    ) -> tuple[TopicPartition, list[Entry], Exception] | None:
        """Write and commit. What a broker refused is returned; nothing was committed then."""
        parts = await self._parts(entries)
        marks = [_Mark(self._options.position_key(worker), text.encode()) for worker, text in positions.items()]
        batches = [batch for tp, messages in parts.items() for batch in self._batches(tp, messages)]
        batches += self._batches(TopicPartition(self._options.positions_topic, POSITIONS_PARTITION), marks)
        batches.sort(key=_turn)  # the first of each partition, then the second: a request carries one a partition
        await self._producer.begin_transaction()
        sent = [await self._send(batch) for batch in batches]
        outcomes = await asyncio.gather(*sent, return_exceptions=True)
        # Before the commit, because `commit_transaction` commits what arrived and is silent about what did not.
        for batch, outcome in zip(batches, outcomes, strict=True):
            if isinstance(outcome, _REFUSALS) and batch.tp in parts:
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
        """`messages` in batches, in order; a batch takes as much as the producer was made for, and one at the least."""
        batches: list[_Batch] = []
        while messages:
            builder = self._producer.create_batch()
            taken = _fill(builder, messages)
            batches.append(_Batch(len(batches), tp, messages[:taken], builder))
            messages = messages[taken:]
        return batches

    async def _parts(self, entries: Sequence[Entry]) -> dict[TopicPartition, list[Entry]]:
        """`entries` by partition, in order. RefusedError: some are larger than any may be."""
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
        """Kafka's own choice of partition, before the modulo. Kept, as murmur2 in Python costs microseconds."""
        found = self._partition_of.get(key)
        if found is None:
            if len(self._partition_of) >= _KEYS_CACHED:
                self._partition_of.clear()
            found = self._partition_of[key] = murmur2(key) & 0x7FFFFFFF
        return found

    # --- What the broker refuses -------------------------------------------------------------------------------------

    async def _blame(self, tp: TopicPartition, suspects: list[Entry], reason: Exception) -> None:
        """Find the record in a refused batch that is to blame, in transactions that are never committed.

        RefusedError names it; SinkError where only the whole batch was too large, and the next will be smaller.
        """
        while len(suspects) > 1:
            part = -(-len(suspects) // _PROBES)
            parts = [suspects[start : start + part] for start in range(0, len(suspects), part)]
            refused = await self._probe(tp, parts)
            if refused is None:
                (smaller,) = self._batches(tp, parts[0])
                self._batch_bytes = smaller.builder.size()  # as large as one that was taken; from the next opening on
                raise SinkError(f"{tp.topic} takes smaller batches only ({reason}): raise its max.message.bytes")
            suspects, reason = refused
        await self._replace()
        raise RefusedError(suspects, f"{tp.topic}: {reason}")

    async def _probe(self, tp: TopicPartition, parts: list[list[Entry]]) -> tuple[list[Entry], Exception] | None:
        """The first of `parts` that the broker refuses, each sent as a batch and none committed."""
        await self._replace()  # a refused batch uses up its sequence: all after it would be out of order
        await self._producer.begin_transaction()
        for part in parts:
            (batch,) = self._batches(tp, part)
            try:
                await (await self._send(batch))
            except _REFUSALS as error:
                return part, error
        return None

    # --- The producer ------------------------------------------------------------------------------------------------

    async def _replace(self) -> None:
        """A new producer under our id: the coordinator ends what the last one left open, and fences it."""
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
            raise SinkError(f"Kafka has no topic {', '.join(missing)}: `sidecar kafka init` makes what is missing")

    @asynccontextmanager
    async def _bounded(self, doing: str) -> AsyncIterator[None]:
        """A bound on the time, and one kind of error for all that can happen."""
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
            raise SinkError(f"{doing}: a task of aiokafka was cancelled") from None  # not ours: nobody cancelled us
        except TimeoutError:
            raise SinkError(f"{doing}: Kafka did not answer within {timeout_us // 1000} ms") from None
        except errors.ProducerFenced:
            raise SinkError(
                f"{doing}: {self._options.transactional_id} was taken over: two shippers have the same node name,"
                " or this one stood still for longer than its transaction may last"
            ) from None
        except Exception as error:  # aiokafka fails with assertions and key errors as well as its own
            raise SinkError(f"{doing}: {type(error).__name__}: {error}") from error

    # --- Positions ---------------------------------------------------------------------------------------------------

    async def _read_positions(self) -> dict[str, str]:
        """This node's committed positions by worker.

        Read up to the high watermark, not to the last stable offset: another node's open transaction holds the latter
        back, and a position that we committed behind it would be overlooked. That transaction ends, at the latest by
        its time-out.
        """
        tp = TopicPartition(self._options.positions_topic, POSITIONS_PARTITION)
        async with self._consumer("read_uncommitted", tp) as consumer:
            end = (await consumer.end_offsets([tp]))[tp]
        found: dict[bytes, bytes | None] = {}
        async with self._consumer("read_committed", tp) as consumer:
            await consumer.seek_to_beginning(tp)
            while await consumer.position(tp) < end:
                for message in (await consumer.getmany(tp, timeout_ms=100)).get(tp, ()):
                    found[message.key] = message.value
        return self._ours(found)

    def _ours(self, found: Mapping[bytes, bytes | None]) -> dict[str, str]:
        """Of `found` what is this node's and this journal's; a worker's name has no slash."""
        before, after = f"{self._options.node}/", f"/{self._options.journal}" if self._options.journal else ""
        ours = {}
        for key, value in found.items():
            name = key.decode()
            worker = name.removeprefix(before).removesuffix(after)
            if value is not None and "/" not in worker and name == before + worker + after:
                ours[worker] = value.decode()
        return ours

    @asynccontextmanager
    async def _consumer(self, isolation: str, tp: TopicPartition) -> AsyncIterator[Any]:
        consumer = AIOKafkaConsumer(
            isolation_level=isolation,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            request_timeout_ms=self._options.request_timeout_us // 1000,
            **self._options.connection,
        )
        try:
            await consumer.start()
            consumer.assign([tp])
            yield consumer
        finally:
            await _in_time(consumer.stop())


def _turn(batch: _Batch) -> int:
    return batch.turn


def _fill(builder: Any, messages: Sequence[Message]) -> int:
    """Put `messages` into an empty batch of aiokafka's; how many it took, one at the least.

    It is filled by what fills it: 0.3 µs a record, with the batch's own `append` 0.9, with `send` 14. Those are
    private, which is another reason why the version is pinned.
    """
    append, now, none = builder._builder.append, None, list[Any]()
    taken = 0
    for message in messages:
        put = append(taken, now, message.key, message.body, none)
        if put is None:
            break
        now = put.timestamp  # one time for all: the clock is read once
        taken += 1
    builder._relative_offset = taken
    builder.close()
    return taken


async def _drop(producer: Any) -> None:
    """End a producer that may be stuck, and all its tasks.

    `stop()` waits for batches that a dead broker will never acknowledge (aiokafka #1101, #1039), and a cancelled sender
    waits for its tasks; so all of them are cancelled one by one. They are private, which is why the version is pinned.
    """
    producer._closed = True
    tasks = [task for task in asyncio.all_tasks() if _owner(task) is producer._sender]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_CLOSE_SECONDS)
    await _in_time(producer.client.close())
    _hush(producer)


async def _in_time(closing: Coroutine[Any, Any, None]) -> None:
    """Close within a bound, whatever comes of it: with a broker away aiokafka may hang, fail, or end as cancelled."""
    task = asyncio.get_running_loop().create_task(closing)
    await asyncio.wait([task], timeout=_CLOSE_SECONDS)
    if not task.cancel() and not task.cancelled():
        task.exception()  # seen, so that asyncio does not report it


def _hush(producer: Any) -> None:
    """Look at the errors of futures that nobody awaits any more, which asyncio would report as forgotten."""
    accumulator = producer._message_accumulator
    batches = [*accumulator._pending_batches, *(batch for queue in accumulator._batches.values() for batch in queue)]
    futures = [future for batch in batches for future in (batch.future, batch._drain_waiter)]
    for future in (*futures, producer._txn_manager._transaction_waiter):
        if future is not None and future.done() and not future.cancelled():
            future.exception()


def _owner(task: asyncio.Task[Any]) -> object:
    """The `self` of the method that the task runs."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    return None if frame is None else frame.f_locals.get("self")
