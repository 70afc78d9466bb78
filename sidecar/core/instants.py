"""Times as RFC 3339 in UTC, with six digits after the point."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@lru_cache(maxsize=16)
def second(seconds: int) -> bytes:
    """The time `seconds` after 1970 up to and with the point before the fraction."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.".encode()


def instant(time_us: int) -> str:
    """The time `time_us` µs after 1970."""
    return f"{second(time_us // 1_000_000).decode()}{time_us % 1_000_000:06d}Z"


def us_of(text: str) -> int:
    """The µs from 1970 to a time in RFC 3339, with its offset. ValueError, TypeError: it is not one."""
    return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND
