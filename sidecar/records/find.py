"""The records of one customer, time or status, to answer why a request was refused. Nothing is changed.

A denial has a record of its own, or is one of those that a summary counts; both are in the stream of denials. Files are
read as a whole, topics from the time that is wanted, in bounded memory: only the last matches are kept.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from heapq import nlargest
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from sidecar.records.sources import RecordSource, bodies

if TYPE_CHECKING:
    from collections.abc import Iterable

_TIME: Final = re.compile(r"(?:(\d{4}-\d\d-\d\d)T?)?(?:(\d\d:\d\d)(:\d\d)?)?Z?")
CLOCKS: Final = timedelta(minutes=15)  # by which the clocks of a node and of what gave a message its time may differ
_LENGTHS: Final = {"day": timedelta(days=1), "minute": timedelta(minutes=1), "second": timedelta(seconds=1)}


class Wanted(NamedTuple):
    """The records to find: those that have all that is given. Times are UTC, as in records; `end` is not included."""

    customer: str = ""
    status: int = 0
    id: str = ""
    begin: str = ""
    end: str = ""

    @property
    def since(self) -> datetime | None:
        """A message with a match was sent after this time, since a record is shipped after it was written."""
        return datetime.fromisoformat(self.begin) - CLOCKS if self.begin else None

    def matches(self, record: dict[str, Any]) -> bool:
        """Whether a record, or a summary of denials, has what is wanted."""
        data = record.get("data", {})
        if self.customer and data.get("customer", record.get("partitionkey")) != self.customer:
            return False
        if (self.status and data.get("status") != self.status) or (self.id and record.get("id") != self.id):
            return False
        first, last = data.get("first", record.get("time", "")), data.get("last", record.get("time", ""))
        return not self.begin or (last >= self.begin and first < self.end)


def time_span(text: str, now: datetime, margin: timedelta = timedelta(0)) -> tuple[str, str]:
    """A day, a minute or a second as two times of records, with a margin on both sides. Without a day: the last such.

    ValueError: what would be right.
    """
    match = _TIME.fullmatch(text)
    day, minute, second = match.groups() if match is not None else (None, None, None)
    length = _LENGTHS["second" if second else "minute" if minute else "day"]
    given = f"{day or now.date()}T{minute or '00:00'}{second or ''}" if day or minute else ""
    try:
        begin = datetime.fromisoformat(given).replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"'{text}' is not a time: write 14:03, 2026-11-21 or 2026-11-21T14:03:20, in UTC") from None
    if not day and begin > now:
        begin -= timedelta(days=1)
    return tuple(f"{moment:%Y-%m-%dT%H:%M:%S.000000Z}" for moment in (begin - margin, begin + length + margin))  # type: ignore[return-value] # two of them


async def find(sources: Iterable[RecordSource], wanted: Wanted, number: int) -> list[bytes]:
    """The last `number` records of `sources` that match, oldest first. SinkError: a source cannot be read.

    A file of denials that does not exist yet has none.
    """
    matches: list[tuple[str, bytes]] = []
    needle = (wanted.id or wanted.customer).encode()
    for source in sources:
        if source.stream == "denials" and source.file is not None and not source.file.exists():
            continue
        async for body in bodies(source, since=wanted.since):
            if needle in body and (time := _matching(body, wanted)) is not None:
                matches.append((time, body))
                if len(matches) >= 2 * number + 1_000:
                    matches = nlargest(number, matches)
    return [body for _, body in sorted(nlargest(number, matches))]


def _matching(body: bytes, wanted: Wanted) -> str | None:
    try:
        record = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return str(record.get("time", "")) if isinstance(record, dict) and wanted.matches(record) else None


def describe(body: bytes) -> str:
    """A record on one line: when, what was answered, to whom, and why."""
    record = orjson.loads(body)
    data = record["data"]
    words = [str(record.get("time", ""))[:23] + "Z", str(data.get("status", "")), str(data.get("customer", "-"))]
    if "count" in data:
        return " ".join([*words, f"{data['count']} times {data['reason']}: limit {data['limit']}"])
    request = (data.get(name) for name in ("key_id", "method", "path"))
    words += [str(word) for word in request if word]
    decision = data.get("decision", {})
    violated = [limit for limit in decision.get("limits", []) if limit.get("id") == decision.get("violated")]
    if "violated" in decision:
        figures = ", ".join([f"{name} {value}" for limit in violated for name, value in limit.items() if name != "id"])
        words.append(f"refused by the limit {decision['violated']}" + (f" ({figures})" if figures else ""))
    elif data.get("outcome"):
        words.append(str(data["outcome"]))
    return " ".join([*words, f"id {record.get('id', '')}"])
