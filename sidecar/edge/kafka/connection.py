"""The cause of a failed connection to Kafka: aiokafka logs it at each attempt, and raises an error without it.

Its own lines about failed connections are filtered out of the log. An outage is one line of ours, with the last cause.
"""

from __future__ import annotations

import logging
import os
from typing import Final


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
