"""Times as RFC 3339 in UTC, with six digits after the point."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


@lru_cache(maxsize=16)
def second(seconds: int) -> bytes:
    """The time `seconds` after 1970 up to and with the point before the fraction."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.".encode()


def instant(time_us: int) -> str:
    """The time `time_us` µs after 1970."""
    return f"{second(time_us // 1_000_000).decode()}{time_us % 1_000_000:06d}Z"
