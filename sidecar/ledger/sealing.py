"""Seals a period: a file beside the records that says of each source up to which number it is complete.

It is written once, and only if the period is sealed. Records of the period that are loaded after it are late: the file
has the offsets that the ledger had, so `late` finds them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from sidecar.core.billing.sealing import COMPLETE, DENIALS, MARGIN_US, SourceVerdict, verdicts
from sidecar.core.errors import SinkError
from sidecar.core.instants import instant
from sidecar.edge.files import write_atomic
from sidecar.edge.ledger.engine import Engine
from sidecar.ledger.connection import LedgerRows
from sidecar.ledger.facts import Proven, source_facts

FORMAT: Final = 1
FOLDER: Final = "sealed"
_POSITIONS: Final = """
    CREATE OR REPLACE TEMP TABLE positions AS
    SELECT unnest(?::VARCHAR[]) AS topic, unnest(?::INTEGER[]) AS part, unnest(?::BIGINT[]) AS until"""
_UNITS: Final = """
    SELECT meter, coalesce(sum(units) FILTER (billable), 0)::HUGEINT,
        coalesce(sum(units) FILTER (NOT billable), 0)::HUGEINT
    FROM {rows} WHERE meter IS NOT NULL AND NOT "copy" AND period_us >= ? AND period_us < ? {bound}
    GROUP BY meter ORDER BY meter"""
# A rejected line whose text has readable times is of the period that they say. Of any other the period is unknown.
_TIME: Final = "epoch_us(TRY_CAST((data->>'{}') AS TIMESTAMP))"
_REJECTED: Final = f"""
    SELECT count(*) FROM (
        SELECT {_TIME.format("$.time")} AS time_us, {_TIME.format("$.data.period_time")} AS period_us,
            (data->>'$.data.period_time') IS NOT NULL AS has_period, "offset", topic, part
        FROM (SELECT topic, part, "offset", CASE WHEN json_valid(data) THEN data END AS data
            FROM ledger WHERE kind = 'rejected'))
    LEFT JOIN positions USING (topic, part)
    WHERE CASE WHEN time_us IS NULL OR (has_period AND period_us IS NULL) THEN "offset" > coalesce(until, -1)
        ELSE least(time_us, period_us) < ? AND greatest(time_us, period_us) >= ? END"""


FindUnread = Callable[[int], tuple[str, ...]]


class Period(NamedTuple):
    """A period by its name, half-open, in µs since 1970."""

    name: str
    start_us: int
    end_us: int


class Sealing(NamedTuple):
    """Whether the period is sealed, and why.

    `faults`: files that the ledger could not read. `unread`: partitions of Kafka with records that may be of the period
    and are not loaded. `rejected`: how many lines of the ledger are not records, may be of the period, and were not
    accepted with an earlier seal.
    `document`: the contents of its file, None if it is not sealed. `is_new`: it was written now. `is_over`: the period
    has ended, and the margin after it.
    """

    period: Period
    sources: list[SourceVerdict]
    faults: tuple[str, ...]
    document: dict[str, Any] | None
    is_new: bool
    is_over: bool = True
    unread: tuple[str, ...] = ()
    rejected: int = 0

    @property
    def is_sealed(self) -> bool:
        """Whether its file exists."""
        return self.document is not None


def seal(
    ledger: LedgerRows,
    period: Period,
    now_us: int,
    margin_us: int = MARGIN_US,
    *,
    find_unread: FindUnread | None = None,
    accepts_rejected: bool = False,
) -> Sealing:
    """Seal the period if it is complete. A period that was sealed before stays as it is.

    `find_unread`: says what is not loaded of records before a time (µs since 1970); None: nobody can be asked.
    `accepts_rejected`: seal it although rejected lines may be of it; the file has their number.
    """
    path = sealed_path(ledger.folder, period.name)
    facts = source_facts(ledger.engine, period.end_us, proven(ledger.folder), margin_us)
    sources = verdicts(facts, period.end_us, margin_us)
    if path.exists():
        return Sealing(period, sources, ledger.faults, read_seal(path), is_new=False)
    if now_us < period.end_us + margin_us:  # a source that has ended may have a successor before the period is over
        return Sealing(period, sources, ledger.faults, None, is_new=False, is_over=False)
    unread = find_unread(period.end_us + margin_us) if find_unread is not None else ()
    rejected = _rejected(ledger, period, margin_us)
    is_complete = bool(sources) and all(each.is_complete for each in sources)
    if ledger.faults or unread or not is_complete or (rejected and not accepts_rejected):
        return Sealing(period, sources, ledger.faults, None, is_new=False, unread=unread, rejected=rejected)
    document = {
        "format": FORMAT,
        "period": period.name,
        "start": instant(period.start_us),
        "end": instant(period.end_us),
        "margin_us": margin_us,
        "sealed": instant(now_us),
        "kafka_asked": find_unread is not None,
        "rejected": rejected,
        "sources": {each.source: _described(each) for each in sources},
        "positions": ledger.positions(),
        "files_sha256": sha256("\n".join(map(str, ledger.files)).encode()).hexdigest(),
        "units": units_of(ledger, period),
    }
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    except OSError as error:
        raise SinkError(f"{path}: the period is complete, and cannot be sealed: {error.strerror}") from None
    return Sealing(period, sources, (), document, is_new=True, rejected=rejected)


def _rejected(ledger: LedgerRows, period: Period, margin_us: int) -> int:
    """How many rejected lines may be records of the period.

    A line without readable times is looked at once, before the first seal after it was loaded. A seal of an earlier
    version has no `rejected`: it was made without that.
    """
    accepted: dict[str, int] = {}
    for document in seals(ledger.folder):
        if "rejected" in document:
            for place, until in document["positions"].items():
                accepted[place] = max(until, accepted.get(place, -1))
    take_positions(ledger.engine, {"positions": accepted})
    return int(ledger.engine.run(_REJECTED, [period.end_us + margin_us, period.start_us])[0][0])


def sealed_path(folder: Path, name: str) -> Path:
    """The file of a sealed period."""
    return folder / FOLDER / f"{name}.json"


def read_seal(path: Path) -> dict[str, Any]:
    """The contents of a sealed period's file. SinkError: it cannot be read, or a newer version wrote it."""
    try:
        document = orjson.loads(path.read_bytes())
        version = document["format"]
    except (OSError, ValueError, KeyError, TypeError):
        raise SinkError(f"{path}: is not the file of a sealed period: restore it") from None
    if version > FORMAT:
        raise SinkError(f"{path}: format {version} is newer than this version reads ({FORMAT}): use a newer sidecar")
    return dict(document)


def seals(folder: Path) -> Sequence[dict[str, Any]]:
    """All sealed periods, in order of their names."""
    return [read_seal(path) for path in sorted((folder / FOLDER).glob("*.json"))]


def proven(folder: Path) -> Proven:
    """The numbers that the seals of a ledger say to be complete."""
    numbers: dict[str, int] = {}
    ended: dict[str, dict[str, int]] = {}
    for document in seals(folder):
        for source, described in document["sources"].items():
            highest = described["highest"]
            for name, stream in ((source, "records"), (source + DENIALS, "denials")):
                numbers[name] = max(highest.get(stream, 0), numbers.get(name, 0))
            if described["state"] != COMPLETE:
                ended[source] = highest
    return Proven({source: number for source, number in numbers.items() if number}, ended)


def _described(verdict: SourceVerdict) -> dict[str, Any]:
    described: dict[str, Any] = {"state": verdict.state, "highest": dict(verdict.highest)}
    return described | ({"may_be_missing": list(verdict.may_be_missing)} if verdict.may_be_missing else {})


def units_of(ledger: LedgerRows, period: Period, *, before: bool = False) -> dict[str, dict[str, int]]:
    """Units by meter, billable and not, of the records of a period. `before`: only up to the table `positions`."""
    rows = "ledger JOIN positions USING (topic, part)" if before else "ledger"
    sql = _UNITS.format(rows=rows, bound='AND "offset" <= until' if before else "")
    sums = ledger.engine.run(sql, [period.start_us, period.end_us])
    return {meter: {"billable": int(billable), "not_billable": int(other)} for meter, billable, other in sums}


def take_positions(engine: Engine, document: Mapping[str, Any]) -> None:
    """Make the table `positions` of the offsets that the ledger had when a period was sealed."""
    places = [name.rpartition("/p") for name in document["positions"]]
    parts = [int(part) for _, _, part in places]
    engine.run(_POSITIONS, [[topic for topic, _, _ in places], parts, list(document["positions"].values())])
