"""Usage records of a time that was not metered, from a file of JSON lines, each with `origin: ingested`.

The whole file is checked before anything is recorded. The id of a record is made of the batch, of the line's own id
(else its number) and of its time: the same file recorded twice gives copies, which consumers drop.

    {"customer": "acme", "key_id": "k_7f", "subject": "app", "plan": "pro@3", "route": "api",
     "time": "2026-11-21T14:03:20Z", "usage": {"requests": 120}}
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from sidecar.config.document import did_you_mean
from sidecar.config.patterns import CUSTOMER, NAME, RIGHT
from sidecar.core.errors import Fault, PolicyError, SidecarError, unreadable
from sidecar.core.instants import instant
from sidecar.core.limits import id_us
from sidecar.core.record.fields import fields_of
from sidecar.core.record.ids import derived_id
from sidecar.core.record.text import whole_record
from sidecar.core.usage import MAX_UNITS
from sidecar.core.words import counted
from sidecar.edge.journal.command_source import PendingRecord
from sidecar.records.find import CLOCKS
from sidecar.records.seen import Ids
from sidecar.records.sources import RecordSource, bodies, schema_faults

Json = dict[str, Any]
FAULTS_MAX: Final = 20
_REQUIRED: Final = ("customer", "key_id", "subject", "plan", "route", "time", "usage")
_ENVELOPE: Final = frozenset({"id", "subject", "time", "traceparent"})
_DERIVED: Final = frozenset({"origin", "decision"})  # what the gateway decides; nothing was decided here
_FIELDS: Final = frozenset(field.name for field in fields_of("usage")) - _DERIVED | _ENVELOPE
_DEFAULTS: Final[Json] = {
    "method": "unknown", "path": "", "status": 0, "quality": "exact", "billable": True, "billable_reason": "backfill",
    "outcome": "ok", "dims": {}, "attempts": 0, "client_disconnected": False, "duration_us": 0, "upstream_us": 0,
    "bytes_in": 0, "bytes_out": 0,
}  # fmt: skip
_PLACEHOLDERS: Final[Json] = {name: {} if name == "usage" else "x" for name in _REQUIRED}  # of what is missing
_INGESTED: Final = b'"origin":"ingested"'
_GIVEN: Final = ("type", "subject", "partitionkey", "traceparent", "time", "data")
_TIME_CHARS: Final = 10  # of an id
_NAMES: Final = ("account", "customer", "key_id", "plan", "route", "subject")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
_MARGIN_US: Final = CLOCKS // _US

Check = Callable[[Json], list[str]]


class Batch(NamedTuple):
    """A checked file: how many records it has, their units by meter, the months of their periods, and their first time.

    `months` are those of `period_time`, in UTC, such as 2026-11; `since_us` is the earliest `time`, since the epoch.
    """

    path: Path
    name: str
    now_us: int
    records: int
    usage: dict[str, int]
    months: frozenset[str] = frozenset()
    since_us: int = 0

    def pending(self) -> Iterator[PendingRecord]:
        """The records, read from the file again. SidecarError: it was changed since it was checked."""
        return (pending for _, pending in self.numbered())

    def numbered(self) -> Iterator[tuple[int, PendingRecord]]:
        """The same with the numbers of their lines."""
        records = 0
        for line, body in _lines(self.path):
            records += 1
            pending, faults = _read(body, line, self)
            if pending is None or faults:
                raise SidecarError(f"{self.path}:{line}: the file was changed while it was read; nothing was recorded")
            yield line, pending
        if records != self.records:
            raise SidecarError(f"{self.path}: the file was changed while it was read; nothing was recorded")


def read_batch(path: Path, name: str, now_us: int) -> Batch:
    """Check every line of the file at `path`. PolicyError: the first faults, with line and field."""
    batch, check, ids = Batch(path, name, now_us, 0, {}), schema_faults(), Ids()
    faults: list[Fault] = []
    number, records, since_us = 0, 0, now_us
    usage: dict[str, int] = {}
    months: set[str] = set()
    for line, body in _lines(path):
        records += 1
        pending, wrong = _read(body, line, batch, check)
        if pending is not None and not ids.add(pending.id.decode()):
            wrong.append(("id", "another line has the same id and time: records need ids of their own"))
        number += len(wrong)
        faults += [Fault(str(path), line, where, what) for where, what in wrong[: FAULTS_MAX - len(faults)]]
        for meter, units in pending.usage.items() if pending is not None and not wrong else ():
            usage[meter] = usage.get(meter, 0) + units
        if pending is not None and not wrong:
            since_us = min(since_us, id_us(pending.id))
            months.add(orjson.loads(pending.render(0, "//sidecar", 1))["data"]["period_time"][:7])
    ids.close()
    if number:
        raise _refusal(path, faults, number)
    return batch._replace(records=records, usage=usage, months=frozenset(months), since_us=since_us)


async def count_recorded(batch: Batch, sources: Sequence[RecordSource]) -> int:
    """How many records of the batch are in `sources` already. Memory: 24 bytes for each line of the batch.

    PolicyError: lines differ from what was recorded of them. SinkError: the sources cannot be read. SidecarError: the
    file was changed since it was checked.
    """
    since = _EPOCH + batch.since_us * _US - CLOCKS if batch.since_us > _MARGIN_US else None
    stored = _Stored(batch)
    for source in sources:
        async for body in bodies(source, since=since):
            if _INGESTED in body:
                stored.add(body)
    faults: list[Fault] = []
    number = recorded = 0
    for line, pending in batch.numbered():
        id_, is_same = stored.find(pending)
        recorded += is_same
        if id_ and not is_same:
            number += 1
            what = f"differs from what was recorded under this batch as {id_}: choose another --batch"
            faults += [Fault(str(batch.path), line, "", what)][: FAULTS_MAX - len(faults)]
    if number:
        raise _refusal(batch.path, faults, number)
    return recorded


def _refusal(path: Path, faults: list[Fault], number: int) -> PolicyError:
    more = f", of which {FAULTS_MAX} are shown" if number > FAULTS_MAX else ""
    return PolicyError([*faults, Fault(str(path), 0, "", f"nothing was recorded: {counted(number, 'fault')}{more}")])


class _Stored:
    """The records of a batch that are recorded: for each line the time in its id, and a digest of its content.

    An id is its time and a digest of batch and line (`derived_id`), so a line is known whose time has changed.
    """

    def __init__(self, batch: Batch) -> None:
        self._lines = array("q", sorted(hash(pending.id[_TIME_CHARS:]) for pending in batch.pending()))
        self._times = array("q", [-1]) * len(self._lines)
        self._contents = array("q", [0]) * len(self._lines)

    def add(self, body: bytes) -> None:
        """Note a record, if it is one of the batch; the first one counts."""
        try:
            read = orjson.loads(body)
            id_ = str(read["id"]).encode()
            time_us = id_us(id_)
        except (ValueError, LookupError, TypeError):
            return
        place = self._place(id_)
        if place >= 0 and self._times[place] < 0:
            self._times[place], self._contents[place] = time_us, _content(read)

    def find(self, pending: PendingRecord) -> tuple[str, bool]:
        """The id of what is recorded of a line ("": nothing), and whether it is the same."""
        place = self._place(pending.id)
        if place < 0 or self._times[place] < 0:
            return "", False
        time = derived_id("", self._times[place])[:_TIME_CHARS]
        is_same = self._contents[place] == _content(orjson.loads(pending.render(0, "//sidecar", 1)))
        return (time + pending.id[_TIME_CHARS:]).decode(), is_same

    def _place(self, id_: bytes) -> int:
        mark = hash(id_[_TIME_CHARS:])
        place = bisect_left(self._lines, mark)
        return place if place < len(self._lines) and self._lines[place] == mark else -1


def _content(record: Json) -> int:
    """A digest of all that a line gives its record."""
    return hash(orjson.dumps([record.get(name) for name in _GIVEN], option=orjson.OPT_SORT_KEYS))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers. SidecarError: the file cannot be read."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if body := line.strip():
                    yield number, body
    except OSError as error:
        raise SidecarError(f"{path}: {unreadable(error)}") from None


def _read(
    body: bytes, line: int, batch: Batch, check: Check | None = None
) -> tuple[PendingRecord | None, list[tuple[str, str]]]:
    """The record of a line, and all its faults: the field, and what would be right."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return None, [("", f"is not JSON: {error}")]
    if not isinstance(given, dict):
        return None, [("", "is not an object: write one record per line, as in docs/corrections.md")]
    faults = {name: f"unknown field; {did_you_mean(name, _FIELDS)}" for name in given.keys() - _FIELDS}
    faults |= {name: "is missing" for name in _REQUIRED if name not in given}
    times: dict[str, int] = {}
    for name in ("time", "period_time"):
        if name in given:
            try:
                times[name] = _time_us(given[name], batch.now_us)
            except ValueError as error:
                faults[name] = str(error)
    faults |= {
        f"usage.{meter}": f"{units!r} is not a whole number from 0 to {MAX_UNITS}"
        for meter, units in (given["usage"].items() if isinstance(given.get("usage"), dict) else ())
        if (isinstance(units, float) and units.is_integer()) or (isinstance(units, int) and units > MAX_UNITS)
    }
    faults |= _name_faults(given)
    known = {name: value for name, value in given.items() if name in _FIELDS}
    missing = {name: value for name, value in _PLACEHOLDERS.items() if name not in known}
    pending = _pending(known | missing, line, batch, {"time": 0} | times)
    if check is not None:
        for fault in check(orjson.loads(pending.render(0, "//sidecar", 1))):
            where, _, what = fault.partition(": ")
            faults.setdefault(where.removeprefix("$.").removeprefix("data."), what)
    return None if faults else pending, sorted(faults.items())


def _name_faults(given: Json) -> dict[str, str]:
    """Texts that a key or a policy could not have; other types are left to the schema."""
    faults = {
        name: f"{given[name]!r} is not a name: {RIGHT[CUSTOMER]}"
        for name in _NAMES
        if isinstance(given.get(name), str) and not re.fullmatch(CUSTOMER, given[name])
    }
    usage = given.get("usage")
    faults |= {
        f"usage.{meter}": f"is not the name of a meter: {RIGHT[NAME]}"
        for meter in (usage if isinstance(usage, dict) else ())
        if not re.fullmatch(NAME, meter)
    }
    return faults


def _pending(given: Json, line: int, batch: Batch, times: dict[str, int]) -> PendingRecord:
    time_us = times["time"]
    id_ = derived_id(f"backfill {batch.name} {given.get('id', line)}", time_us)
    customer = str(given["customer"])
    envelope = {"id": id_.decode(), "subject": given["subject"], "partitionkey": customer}
    if "traceparent" in given:
        envelope["traceparent"] = given["traceparent"]
    data = _DEFAULTS | {name: value for name, value in given.items() if name not in _ENVELOPE}
    data |= {"origin": "ingested", "period_time": instant(times.get("period_time", time_us))}
    usage = given["usage"] if isinstance(given["usage"], dict) else {}
    return PendingRecord(id_, customer, partial(_render, envelope, time_us, data), usage)


def _render(envelope: dict[str, str], ended_us: int, data: Json, _now_us: int, source: str, sequence: int) -> bytes:
    return whole_record("usage", envelope, (ended_us, source, sequence), data)


def _time_us(text: Any, now_us: int) -> int:
    """ValueError: what would be right."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        moment = None
    if moment is None or moment.tzinfo is None or moment < _EPOCH:
        raise ValueError(f"{text!r} is not a time: write 2026-11-21T14:03:20.123456Z")
    time_us = (moment - _EPOCH) // _US
    if time_us > now_us:
        raise ValueError(f"{text} is in the future")
    return time_us
