"""Clients of Kafka that end in time, and errors that say what failed and which setting or permission mends it.

aiokafka logs the cause of a failed connection at each attempt, and raises an error without it. Its own lines about
failed connections are filtered out of the log. An outage is one line of ours, with the last cause.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, errors

from sidecar.core.errors import SinkError

_STOP_SECONDS = 2


class KafkaRefusalError(SinkError):
    """The broker refuses this client, or this client the broker: waiting does not help."""


_REFUSALS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (
        errors.SaslAuthenticationFailed,
        "the broker refuses this user, password or token: correct them in kafka.security",
    ),
    (
        errors.UnsupportedSaslMechanismError,
        "the broker does not offer this mechanism: set kafka.security.mechanism to one that its listener enables",
    ),
    (
        errors.IllegalSaslStateError,
        "the broker's listener takes no user: set kafka.security.protocol to that of the listener",
    ),
    (
        errors.TransactionalIdAuthorizationFailed,
        "the broker does not let this user write with the transactional id {}: allow it WRITE and DESCRIBE there",
    ),
    (
        errors.TopicAuthorizationFailedError,
        "the broker does not let this user use the topic {}: allow it what docs/kafka.md lists",
    ),
    (
        errors.ClusterAuthorizationFailedError,
        "the broker does not let this user do that ({}): allow it what docs/kafka.md lists",
    ),
)
_CLOSED: Final = (
    "the broker closed the connection: if it does so each time, kafka.security.protocol is not its listener's"
)


class ConnectionFailures(logging.Filter):
    """Drops the lines of aiokafka's logger about connections; `error` is that of the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep only lines above the level ERROR."""
        if isinstance(record.args, tuple) and record.args and isinstance(record.args[-1], Exception):
            self.error = record.args[-1]
        return record.levelno > logging.ERROR


def explain(error: BaseException) -> str:
    """The failure in plain words, with the remedy where there is one."""
    for kind, text in _REFUSALS:
        if isinstance(error, kind):
            return text.format(*error.args or ("",))
    if isinstance(error, ssl.SSLCertVerificationError):
        is_name = "mismatch" in error.verify_message
        remedy = (
            "write a name of it in kafka.bootstrap_servers" if is_name else "set kafka.security.ca to its authority"
        )
        return f"the broker's certificate is not trusted ({error.verify_message.rstrip('.')}): {remedy}"
    if isinstance(error, ssl.SSLError):
        return f"TLS with the broker failed ({error.reason or error}): check kafka.security.protocol and cert"
    inner = error.__cause__ if isinstance(error.__cause__, OSError | EOFError) else error
    if isinstance(inner, EOFError | ConnectionResetError):
        return _CLOSED
    if isinstance(inner, TimeoutError):
        return "no answer in time"
    if isinstance(inner, OSError) and inner.errno is not None and inner.errno > 0:
        return os.strerror(inner.errno).lower()
    return f"{type(inner).__name__}: {inner}" if str(inner) else type(inner).__name__


def _error_class(error: BaseException | None) -> type[SinkError]:
    refusals: tuple[type[Exception], ...] = (ssl.SSLCertVerificationError, *[kind for kind, _ in _REFUSALS])
    return KafkaRefusalError if isinstance(error, refusals) else SinkError


FAILURES: Final = ConnectionFailures()
logging.getLogger("aiokafka").addFilter(FAILURES)


def no_connection(servers: object) -> str:
    """The error text when no broker of `kafka.bootstrap_servers` can be reached."""
    named = ",".join(map(str, servers)) if isinstance(servers, list | tuple) else str(servers)
    cause = explain(FAILURES.error) if FAILURES.error is not None else "no broker answers"
    return f"no connection to kafka.bootstrap_servers ({named}): {cause}: start it, or correct the address"


@contextmanager
def failing(what: str, connection: Mapping[str, Any]) -> Iterator[None]:
    """Raise what Kafka's client raises as a SinkError about `what`, with the servers. KafkaRefusalError: it is one."""
    FAILURES.error = None
    try:
        yield
    except errors.KafkaConnectionError as error:
        text = f"{what}: {no_connection(connection['bootstrap_servers'])}"
        raise _error_class(FAILURES.error)(text) from error
    except (errors.KafkaError, TimeoutError, OSError) as error:
        servers = connection["bootstrap_servers"]
        raise _error_class(error)(f"{what} at {servers}: {explain(error)}") from error


@asynccontextmanager
async def consumer(connection: Mapping[str, Any], isolation: str, **options: Any) -> AsyncIterator[Any]:
    """A started consumer without a group, which begins at the oldest record."""
    options = {"auto_offset_reset": "earliest", "enable_auto_commit": False, **options, **connection}
    made = AIOKafkaConsumer(isolation_level=isolation, **options)
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
