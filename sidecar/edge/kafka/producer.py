"""The parts of aiokafka's producer that are private to it, hence its pinned version: batches, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar, Final, Protocol

from aiokafka import errors

from sidecar.edge.kafka.connection import in_time

_CLOSE_SECONDS = 5


class InvalidRecordError(errors.BrokerResponseError):  # type: ignore[misc]  # aiokafka has no types
    """The broker's INVALID_RECORD, which is missing in the error table of aiokafka 0.14."""

    errno: ClassVar[int] = 87
    message = "INVALID_RECORD"


errors.kafka_errors.setdefault(InvalidRecordError.errno, InvalidRecordError)

# Errors of a broker that refuses a record, or its batch, for good. All other errors may be temporary: send it again.
REFUSALS: Final = (
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.InvalidTimestampError,
    errors.PolicyViolationError,
    errors.UnsupportedForMessageFormatError,
    InvalidRecordError,
)


class Message(Protocol):
    """The parts of an entry that are sent."""

    @property
    def key(self) -> bytes: ...
    @property
    def body(self) -> bytes: ...


def fill(builder: Any, messages: Sequence[Message]) -> int:
    """Put `messages` into an empty batch of aiokafka. Returns how many fit, at least one.

    It calls the innermost `append`, which takes 0.3 µs per record; the batch's own `append` takes 0.9 µs, `send` 14 µs.
    The method is private to aiokafka, which is another reason to pin its version.
    """
    append, now, none = builder._builder.append, None, list[Any]()
    taken = 0
    for message in messages:
        put = append(taken, now, message.key, message.body, none)
        if put is None:
            break
        now = put.timestamp  # the same for all records, so that the clock is read once
        taken += 1
    builder._relative_offset = taken
    builder.close()
    return taken


async def drop(producer: Any) -> None:
    """Stop a producer that may be blocked, and all its tasks.

    `stop()` waits for batches that a dead broker never acknowledges (aiokafka #1101, #1039), and a cancelled sender
    waits for its tasks; so each task is cancelled. They are private to aiokafka, hence its pinned version.
    """
    producer._closed = True
    tasks = [task for task in asyncio.all_tasks() if _owner(task) is producer._sender]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_CLOSE_SECONDS)
    await in_time(producer.client.close(), _CLOSE_SECONDS)
    _hush(producer)


def _hush(producer: Any) -> None:
    """Retrieve the errors of futures that nobody awaits, which asyncio would report otherwise."""
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
