"""The records of one customer, time or status, to answer why a request was refused. Nothing is changed.

A denial has a record of its own, or is one of those that a summary counts; both are in the stream of denials. Files are
read as a whole, topics from the time that is wanted, in bounded memory: only the last matches are kept.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from heapq import nlargest
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from sidecar.core.price.decimals import DIGITS, decimal_of
from sidecar.edge.rotation import with_rotated
from sidecar.records.sources import RecordSource, bodies

if TYPE_CHECKING:
    from collections.abc import Iterable

_TIME: Final = re.compile(r"(?:(\d{4}-\d\d-\d\d)T?)?(?:(\d\d:\d\d)(:\d\d)?)?Z?")
CLOCKS: Final = timedelta(minutes=15)  # by which the clocks of a node and of what gave a message its time may differ
ALL: Final = "all"
_EXCHANGES: Final = ("usage", "unattributed", "denial", "denial-summary")
_LENGTHS: Final = {"day": timedelta(days=1), "minute": timedelta(minutes=1), "second": timedelta(seconds=1)}


class Wanted(NamedTuple):
    """The records to find: those that have all that is given. Times are UTC, as in records; `end` is not included.

    `types` are short, such as "posting"; ALL among them: every type. Without any: usage and denials, or all for an id.
    """

    customer: str = ""
    status: int = 0
    id: str = ""
    begin: str = ""
    end: str = ""
    types: tuple[str, ...] = ()

    def includes(self, type_: str) -> bool:
        """Whether records of this type are shown."""
        return type_ in (self.types or _EXCHANGES) or ALL in self.types or bool(self.id and not self.types)

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


async def find(
    sources: Iterable[RecordSource], wanted: Wanted, number: int, left_out: Counter[str] | None = None
) -> list[bytes]:
    """The last `number` records of `sources` that match, oldest first. SinkError: a source cannot be read.

    A file of denials that does not exist yet has none. `left_out` counts by type what matches but for its type.
    """
    left_out = Counter() if left_out is None else left_out
    matches: list[tuple[str, bytes]] = []
    needle = (wanted.id or wanted.customer).encode()
    for source in sources:
        if source.stream == "denials" and source.file is not None and not _exists(source):
            continue
        async for body in bodies(source, since=wanted.since):
            if needle in body and (time := _matching(body, wanted, left_out)) is not None:
                matches.append((time, body))
                if len(matches) >= 2 * number + 1_000:
                    matches = nlargest(number, matches)
    return [body for _, body in sorted(nlargest(number, matches))]


def _exists(source: RecordSource) -> bool:
    assert source.file is not None  # noqa: S101 - the caller has looked
    return any(path.exists() for path in (with_rotated(source.file) if source.rotated else [source.file]))


def _matching(body: bytes, wanted: Wanted, left_out: Counter[str]) -> str | None:
    """The time of a record that matches."""
    try:
        record = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(record, dict) or not wanted.matches(record):
        return None
    if not wanted.includes(type_ := _type_of(record)):
        left_out[type_] += 1
        return None
    return str(record.get("time", ""))


def _type_of(record: dict[str, Any]) -> str:
    return str(record.get("type", "")).removeprefix("sidecar.").removesuffix(".v1")


def describe(body: bytes) -> str:
    """A record on one line: when, what was answered, to whom, and why. Of another type: the type, and what it did."""
    record = orjson.loads(body)
    data, type_ = record["data"], _type_of(record)
    time, customer = str(record.get("time", ""))[:23] + "Z", str(data.get("customer", "-"))
    if type_ not in _EXCHANGES:
        return " ".join([time, type_, customer, *_details(record, data), f"id {record.get('id', '')}"])
    words = [time, str(data.get("status", "")), customer]
    if "count" in data:
        return " ".join([*words, f"{data['count']} times {data['reason']}: limit {data['limit']}"])
    request = (data.get(name) for name in ("key_id", "method", "path"))
    words += [str(word) for word in request if word]
    decision = data.get("decision", {})
    violated = [limit for limit in decision.get("limits", []) if limit.get("id") == decision.get("violated")]
    if "violated" in decision:
        figures = ", ".join([figure for limit in violated for figure in _figures(limit)])
        words.append(f"refused by the limit {decision['violated']}" + (f" ({figures})" if figures else ""))
    elif data.get("outcome"):
        words.append(str(data["outcome"]))
    return " ".join([*words, f"id {record.get('id', '')}"])


def _figures(limit: dict[str, Any]) -> list[str]:
    """The figures of a limit; those of a wallet with its unit."""
    if "unit" in limit:
        return [f"{name} {_amount(limit, name)}" for name in limit.keys() - {"id", "unit", "digits"}]
    return [f"{name} {value}" for name, value in limit.items() if name != "id"]


def _details(record: dict[str, Any], data: dict[str, Any]) -> list[str]:
    details = [str(data[name]) for name in ("change", "action", "state", "about", "target", "grant") if data.get(name)]
    details += [f"{name} {_amount(data, name)}" for name in ("delta", "balance") if "unit" in data and name in data]
    if "percent" in data:
        used, amount = (_amount(data, name) if "unit" in data else data[name] for name in ("used", "amount"))
        details.append(f"{data['percent']} % of the limit {data['limit']} (used {used} of {amount})")
    details += [f"{meter} {units:+}" for meter, units in data.get("usage", {}).items()]
    details += [f"of {record['causationid']}"] if record.get("causationid") else []
    return details + [f"{name}: {data[name]}" for name in ("reason", "actor") if data.get(name)]


def _amount(data: dict[str, Any], name: str) -> str:
    """An amount of a wallet as a decimal with its unit. Anything else stays as it is."""
    amount = data[name]
    return f"{decimal_of(amount, data.get('digits', DIGITS))} {data['unit']}" if type(amount) is int else str(amount)
