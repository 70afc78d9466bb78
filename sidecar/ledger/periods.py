"""Periods of the ledger, as commands take them: half-open, [start, end), UTC, in µs since 1970."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from sidecar.core.window import calendar_window

_CALENDARS: Final = ((re.compile(r"\d{4}"), "year", "%Y"), (re.compile(r"\d{4}-\d\d"), "month", "%Y-%m"),
                     (re.compile(r"\d{4}-\d\d-\d\d"), "day", "%Y-%m-%d"),
                     (re.compile(r"\d{4}-\d\d-\d\dT\d\d"), "hour", "%Y-%m-%dT%H"))  # fmt: skip
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def period(text: str) -> tuple[int, int]:
    """The year, month, day or hour that is named. ValueError: what would be right."""
    for pattern, calendar, form in _CALENDARS:
        if pattern.fullmatch(text):
            window = calendar_window(calendar, "UTC", 0, _parsed(text, form))
            return window.start_us, window.end_us
    raise ValueError(f"'{text}' is not a period: write 2026-11, or a year, a day or an hour (2026-11-21T14), in UTC")


def instant(text: str) -> int:
    """A time, or the start of a day. ValueError: what would be right."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"'{text}' is not a time: write 2026-11-21 or 2026-11-21T14:03:20, in UTC") from None
    return _us(moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment)


def _parsed(text: str, form: str) -> int:
    try:
        return _us(datetime.strptime(text, form).replace(tzinfo=UTC))
    except ValueError:
        raise ValueError(f"'{text}' is not in the calendar") from None


def _us(moment: datetime) -> int:
    seconds = moment - _EPOCH
    return (seconds.days * 86_400 + seconds.seconds) * 1_000_000 + seconds.microseconds
