"""Clients of Kafka that end in time, and errors that say what failed.

aiokafka logs the cause of a failed connection at each attempt, and raises an error without it. Its own lines about
failed connections are filtered out of the log. An outage is one line of ours, with the last cause.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, errors

from sidecar.core.errors import SinkError

_STOP_SECONDS = 2


class ConnectionFailures(logging.Filter):
    """Drops the lines of aiokafka's logger about connections; `cause` is the text of the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.cause = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep only lines above the level ERROR."""
        if isinstance(record.args, tuple) and record.args and isinstance(record.args[-1], Exception):
            self.cause = _cause(record.args[-1])
        return record.levelno > logging.ERROR


def _cause(error: Exception) -> str:
    inner = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(inner, TimeoutError):
        return "no answer in time"
    if isinstance(inner, OSError) and inner.errno is not None and inner.errno > 0:
        return os.strerror(inner.errno).lower()
    return str(inner) or type(inner).__name__


FAILURES: Final = ConnectionFailures()
logging.getLogger("aiokafka").addFilter(FAILURES)


def no_connection(servers: object) -> str:
    """The error text when no broker of `kafka.bootstrap_servers` can be reached."""
    named = ",".join(map(str, servers)) if isinstance(servers, list | tuple) else str(servers)
    return f"no connection to kafka.bootstrap_servers ({named}): {FAILURES.cause or 'no broker answers'}"


@contextmanager
def failing(what: str, connection: Mapping[str, Any]) -> Iterator[None]:
    """Raise what Kafka's client raises as a SinkError about `what`, with the servers."""
    try:
        yield
    except (errors.KafkaError, TimeoutError, OSError) as error:
        servers = connection["bootstrap_servers"]
        raise SinkError(f"{what} at {servers}: {type(error).__name__}: {error}") from error


@asynccontextmanager
async def consumer(connection: Mapping[str, Any], isolation: str, **options: Any) -> AsyncIterator[Any]:
    """A started consumer without a group, which begins at the oldest record."""
    made = AIOKafkaConsumer(
        isolation_level=isolation, enable_auto_commit=False, auto_offset_reset="earliest", **options, **connection
    )
    try:
        await made.start()
        yield made
    finally:
        await in_time(made.stop(), _STOP_SECONDS)


async def in_time(closing: Coroutine[Any, Any, None], seconds: float) -> None:
    """Close with a timeout, in a task of its own, and ignore the outcome.

    Without a broker aiokafka may hang, fail, or be cancelled, which would look like a cancellation of ours.
    """
    task = asyncio.get_running_loop().create_task(closing)
    await asyncio.wait([task], timeout=seconds)
    if not task.cancel() and not task.cancelled():
        task.exception()  # retrieved, so that asyncio does not report it
