"""Windows tile time: each instant is in exactly one window of a kind, and no two windows share an id.

A calendar window opens when the wall clock of its zone first reaches its boundary and lasts until it reaches the next
one, so a day of 23 or 25 hours is still one day, and a day that a zone skipped has no window. This module reads no
clock. Example: in Europe/Berlin the day 2026-03-29 is the 23 hours from 2026-03-28T23:00Z to 2026-03-29T22:00Z.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MONDAY = datetime(1, 1, 1)  # noqa: DTZ001 - wall time; the proleptic calendar begins on a Monday
_US = timedelta(microseconds=1)
_LENGTHS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}
_MONTHS = {"month": 1, "year": 12}

_UNITS = (("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1_000))

CALENDARS = (*_LENGTHS, *_MONTHS)


class Window(NamedTuple):
    """`start_us <= t < end_us`, in µs since the Unix epoch. `id` is unique among the windows of its kind."""

    id: str
    start_us: int
    end_us: int


def length_window(period_us: int, now_us: int) -> Window:
    """The window of `period_us` counted from the epoch, its id `s60:29394823` (length in seconds, then the number)."""
    number = now_us // period_us
    seconds, rest = divmod(period_us, 1_000_000)
    length = f"s{seconds}" if not rest else f"u{period_us}"
    return Window(f"{length}:{number}", number * period_us, (number + 1) * period_us)


def describe_length(us: int, *, one: str = "") -> str:
    """A length of time for people, as in `60 s`; of exactly one unit, `one` and the unit, as in `d`."""
    for unit, size in _UNITS:
        if us % size == 0:
            return one + unit if us == size else f"{us // size} {unit}"
    return f"{us} us"


def calendar_window(calendar: str, zone: str, anchor_us: int, now_us: int) -> Window:
    """The hour, day, week (ISO, from Monday), month or year of `zone` that holds `now_us`.

    With `anchor_us` it begins on the anchor's own minute, time, weekday, day or date instead. A day that a month does
    not have becomes its last one, and the next month uses the anchor's again (31, 28, 31). ValueError: an unknown
    calendar; ZoneInfoNotFoundError (a KeyError) or ValueError: an unknown zone.
    """
    tz = zone_info(zone)
    anchor = _wall(anchor_us, tz) if anchor_us else _MONDAY
    boundary = _boundaries(calendar, anchor)
    local = _wall(now_us, tz)
    # The wall clock gives the first candidate. Where it was set forward or back over a boundary, the instants decide.
    at = 1
    while _instant(boundary(local, at), tz) <= now_us:
        at += 1
    while _instant(boundary(local, at - 1), tz) > now_us:
        at -= 1
    start = boundary(local, at - 1)
    return Window(
        _name(calendar, start, anchor if anchor_us else None), _instant(start, tz), _instant(boundary(local, at), tz)
    )


@lru_cache(maxsize=1024)
def zone_info(zone: str) -> ZoneInfo:
    """The zone of an IANA name."""
    return ZoneInfo(zone)


def _wall(at_us: int, tz: ZoneInfo) -> datetime:
    return (_EPOCH + timedelta(microseconds=at_us)).astimezone(tz).replace(tzinfo=None, fold=0)


def _instant(wall: datetime, tz: ZoneInfo) -> int:
    # fold=0: the first time that a repeated wall time is reached. A skipped one is read with the offset before the gap.
    return (wall.replace(tzinfo=tz) - _EPOCH) // _US


def _boundaries(calendar: str, anchor: datetime) -> Callable[[datetime, int], datetime]:
    """A function (wall time, n) → the boundary n windows after the last one that is not later than the wall time."""
    if calendar in _LENGTHS:
        length = _LENGTHS[calendar]
        phase = (anchor - _MONDAY) % length
        return lambda wall, n: _MONDAY + phase + length * ((wall - _MONDAY - phase) // length + n)
    if calendar in _MONTHS:
        step = _MONTHS[calendar]
        return lambda wall, n: _month_boundary(anchor, step, wall, n)
    raise ValueError(f"no such calendar: {calendar!r}; one of {', '.join(CALENDARS)}")


def _month_boundary(anchor: datetime, step: int, wall: datetime, n: int) -> datetime:
    phase = (anchor.month - 1) % step
    number = (wall.year * 12 + wall.month - 1 - phase) // step
    boundary = _in_month(anchor, number * step + phase)
    if boundary > wall:
        number -= 1
    return _in_month(anchor, (number + n) * step + phase)


def _in_month(anchor: datetime, months: int) -> datetime:
    year, month = months // 12, months % 12 + 1
    return anchor.replace(year=year, month=month, day=min(anchor.day, monthrange(year, month)[1]))


def _name(calendar: str, start: datetime, anchor: datetime | None) -> str:
    plain, anchored = _NAMES[calendar]
    return plain(start) if anchor is None else f"{plain(start)}@{anchored(anchor)}"


def _week(wall: datetime) -> str:
    year, week, _ = wall.isocalendar()
    return f"{year}-W{week:02d}"


_NAMES: dict[str, tuple[Callable[[datetime], str], Callable[[datetime], str]]] = {
    "hour": (lambda wall: f"{wall:%Y-%m-%dT%H}", lambda anchor: f"{anchor:%M}"),
    "day": (lambda wall: f"{wall:%Y-%m-%d}", lambda anchor: f"{anchor:%H}"),
    "week": (_week, lambda anchor: str(anchor.isoweekday())),
    "month": (lambda wall: f"{wall:%Y-%m}", lambda anchor: str(anchor.day)),
    "year": (lambda wall: f"{wall:%Y}", lambda anchor: f"{anchor:%m-%d}"),
}
