"""Verifies the ledger by itself: every number once, units as the checkpoints state them, nothing set aside.

All of it is SQL over the files, in bounded memory. The totals of a checkpoint are the units by meter of the usage
records of its source with lower numbers, billed or not; corrections and voids are not in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from sidecar.core.billing.sealing import DENIALS
from sidecar.core.instants import us_of
from sidecar.core.record.events import TOTAL_MAX
from sidecar.edge.ledger.engine import Engine
from sidecar.ledger.connection import LedgerRows
from sidecar.ledger.facts import BITS, EXAMPLES, WANTED, NumbersOf, Proven, numbers_by_source
from sidecar.ledger.sealing import Period, proven, seals, take_positions, units_of

_USAGE: Final = "kind IN ('usage', 'unattributed')"
_IS_CHECKPOINT: Final = """kind = 'checkpoint' AND "first\""""
_LATEST: Final = (
    f"SELECT source, max(sequence), arg_max(data, sequence) FROM ledger WHERE {_IS_CHECKPOINT} GROUP BY source"
)
_UNTIL: Final = f"""
    CREATE OR REPLACE TEMP TABLE latest AS
    SELECT source, max(sequence) AS until FROM ledger WHERE {_IS_CHECKPOINT} GROUP BY source"""
_UNITS: Final = f"""
    SELECT source, meter, sum(units)::HUGEINT FROM ledger JOIN latest USING (source)
    WHERE {_USAGE} AND meter IS NOT NULL AND sequence < until AND NOT "copy" GROUP BY ALL"""
# A copy under a number of its own is in the totals of its source; one under the number of another record is not.
_HELD: Final = f"""
    CREATE OR REPLACE TEMP TABLE held AS
    SELECT source, sequence >> 10 AS block, {BITS} AS bits FROM ledger JOIN wanted USING (source)
    WHERE "first" AND NOT "copy" GROUP BY ALL"""
_UNITS_OF_COPIES: Final = f"""
    SELECT source, meter, sum(units)::HUGEINT FROM (
        SELECT DISTINCT source, sequence, line, model, meter, units
        FROM ledger JOIN wanted USING (source) JOIN latest USING (source)
        LEFT JOIN held ON held.source = ledger.source AND held.block = sequence >> 10
        WHERE {_USAGE} AND meter IS NOT NULL AND sequence < until AND "copy"
            AND (bits IS NULL OR get_bit(bits, (sequence & 1023)::INTEGER) = 0))
    GROUP BY ALL"""
_STATES: Final = """SELECT data FROM ledger WHERE kind = 'source' AND "first\""""
_KINDS: Final = 'SELECT kind, count(*) FROM ledger WHERE "first" AND NOT "copy" GROUP BY kind ORDER BY kind'
_COPIES: Final = """
    SELECT source, count(*) FROM ledger WHERE "first" AND "copy" AND kind NOT IN ('alert', 'posting') GROUP BY source"""
# Of two records that are not copies one number has two ids. Only blocks with such numbers are looked at one by one.
_SHARED: Final = f"""
    CREATE OR REPLACE TEMP TABLE shared AS
    SELECT source, sequence >> 10 AS block, count(*) - bit_count({BITS}) AS more FROM ledger JOIN wanted USING (source)
    WHERE "first" AND NOT "copy" GROUP BY ALL HAVING count(*) > bit_count({BITS})"""
_REUSED: Final = f"""
    SELECT source, sequence, count(*) FROM ledger
    JOIN (FROM shared ORDER BY source, block LIMIT {EXAMPLES}) AS few USING (source)
    WHERE "first" AND NOT "copy" AND sequence >> 10 = few.block GROUP BY source, sequence HAVING count(*) > 1
    ORDER BY source, sequence LIMIT {EXAMPLES}"""
_REUSED_COUNT: Final = "SELECT coalesce(sum(more), 0)::BIGINT FROM shared"
_REJECTED: Final = f"""
    SELECT topic, part, "offset", fault, count(*) OVER () FROM ledger WHERE kind = 'rejected'
    ORDER BY ALL LIMIT {EXAMPLES}"""
_UNKNOWN: Final = f"""
    SELECT id, cause, count(*) OVER () FROM ledger
    WHERE kind IN ('correction', 'void') AND "first" AND NOT "copy" AND reason = 'original unknown'
    ORDER BY ALL LIMIT {EXAMPLES}"""
_LABELS: Final = f"""
    SELECT label.key, list(DISTINCT label.value ORDER BY label.value), list(DISTINCT source ORDER BY source) FROM (
        SELECT source, unnest(map_entries(TRY_CAST(data->'$.plans' AS MAP(VARCHAR, VARCHAR)))) AS label
        FROM ledger WHERE kind = 'policy' AND "first")
    GROUP BY label.key HAVING count(DISTINCT label.value) > 1 ORDER BY label.key LIMIT {EXAMPLES}"""
_LATE: Final = """
    SELECT kind IN ('correction', 'void') OR origin IS NOT DISTINCT FROM 'ingested' AS by_operator, meter,
        count(*) FILTER ("first"), sum(units)::HUGEINT
    FROM ledger LEFT JOIN positions USING (topic, part)
    WHERE NOT "copy" AND kind IN ('usage', 'unattributed', 'correction', 'void')
        AND period_us >= ? AND period_us < ? AND "offset" > coalesce(until, -1)
    GROUP BY ALL ORDER BY ALL"""


class Difference(NamedTuple):
    """The units of a meter that a checkpoint of `source` states, and those that its records have."""

    source: str
    meter: str
    stated: int
    units: int


class Late(NamedTuple):
    """Records of a sealed period that were loaded after it was sealed, by meter."""

    period: str
    by_operator: bool
    records: int
    units: Mapping[str, int]


@dataclass(slots=True)
class LedgerReport:
    """The result. `claimed`: the highest number of a source that a checkpoint or a closing states.

    `labels`: plan labels with several contents: the SHA-256 of each, and the sources that say so.
    `changed`: units of a sealed period that are not those of its seal (`source` is the period's name). Copies, and what
    operators have changed after a seal, are reported, and are not faults.
    """

    kinds: dict[str, int] = field(default_factory=dict)
    sources: dict[str, NumbersOf] = field(default_factory=dict)
    claimed: dict[str, int] = field(default_factory=dict)
    copies: dict[str, int] = field(default_factory=dict)
    reused: list[tuple[str, int, int]] = field(default_factory=list)
    reused_count: int = 0
    differences: list[Difference] = field(default_factory=list)
    rejected: list[tuple[str, int, int, str]] = field(default_factory=list)
    rejected_count: int = 0
    unknown_originals: list[tuple[str, str]] = field(default_factory=list)
    unknown_count: int = 0
    retired: set[str] = field(default_factory=set)
    late: list[Late] = field(default_factory=list)
    changed: list[Difference] = field(default_factory=list)
    labels: list[tuple[str, list[str], list[str]]] = field(default_factory=list)
    faults: tuple[str, ...] = ()

    def gaps(self, source: str) -> list[tuple[int, int]]:
        """The first gaps of a source, up to its last number or the one that a checkpoint states."""
        numbers = self.sources[source].numbers
        return numbers.missing(max(numbers.last, self.claimed.get(source, 0)))

    def is_retired(self, source: str) -> bool:
        """Whether an operator has given up what is missing of a source."""
        return source.removesuffix(DENIALS) in self.retired

    @property
    def missing(self) -> int:
        """Numbers that are missing, over all sources but those that are retired."""
        expected = {name: each for name, each in self.sources.items() if not self.is_retired(name)}
        highest = {name: max(each.numbers.last, self.claimed.get(name, 0)) for name, each in expected.items()}
        return sum(highest[name] - each.present for name, each in expected.items())

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        wrong = (
            *(self.missing, self.reused, self.differences, self.changed),
            *(self.rejected, self.unknown_originals, self.labels, self.faults),
        )
        return not any(wrong) and all(late.by_operator for late in self.late)


def verify(ledger: LedgerRows) -> LedgerReport:
    """Look at everything that is in the ledger."""
    run, known = ledger.engine.run, proven(ledger.folder)
    report = LedgerReport(faults=ledger.faults, sources=numbers_by_source(ledger.engine, known))
    report.kinds = dict(run(_KINDS))
    report.copies = {source or "": count for source, count in run(_COPIES)}
    checkpoints = {source: orjson.loads(data) | {"sequence": until} for source, until, data in run(_LATEST)}
    for source, data in checkpoints.items():
        _claim(report, known, source, data["highest"])
    for state in [orjson.loads(data) for (data,) in run(_STATES)]:
        if state.get("state") == "closed":
            _claim(report, known, state["about"], state.get("highest") or {})
        elif state.get("state") == "retired":
            report.retired.add(state["about"])
    suspects = sorted(source for source, each in report.sources.items() if not each.is_whole)
    if suspects:
        run(WANTED, [suspects, [0] * len(suspects)])
        run(_SHARED)
        report.reused, report.reused_count = run(_REUSED), run(_REUSED_COUNT)[0][0]
    comparable = {
        source: data
        for source, data in checkpoints.items()
        if source not in report.sources or not report.sources[source].is_cut  # totals are of all records of a source
    }
    report.differences = _differences(ledger.engine, comparable)
    for topic, part, offset, fault, count in run(_REJECTED):
        report.rejected.append((topic, part, offset, fault))
        report.rejected_count = count
    for id_, cause, count in run(_UNKNOWN):
        report.unknown_originals.append((id_, cause))
        report.unknown_count = count
    report.labels = run(_LABELS)
    for sealed in seals(ledger.folder):
        report.late += late_records(ledger.engine, sealed)
        report.changed += _changed(ledger, sealed)
    return report


def _claim(report: LedgerReport, known: Proven, source: str, highest: Mapping[str, int]) -> None:
    """Note the numbers that a checkpoint or a closing states; of a source of which nothing is here as well."""
    for name, stream in ((source, "records"), (source + DENIALS, "denials")):
        if stated := highest.get(stream, 0):
            report.claimed[name] = max(stated, report.claimed.get(name, 0))
            numbers = known.numbers_of(name)
            report.sources.setdefault(name, NumbersOf(numbers, numbers.last, is_whole=True))


def _differences(engine: Engine, checkpoints: Mapping[str, dict[str, Any]]) -> list[Difference]:
    engine.run(_UNTIL)
    units = engine.run(_UNITS)
    differences = _compared(checkpoints, units)
    suspects = sorted({each.source for each in differences})
    if not suspects:
        return []
    engine.run(WANTED, [suspects, [0] * len(suspects)])
    engine.run(_HELD)
    more = engine.run(_UNITS_OF_COPIES)
    return _compared({source: checkpoints[source] for source in suspects}, [*units, *more])


def _compared(checkpoints: Mapping[str, dict[str, Any]], rows: list[tuple[Any, ...]]) -> list[Difference]:
    units: dict[tuple[str, str], int] = {}
    for source, meter, number in rows:
        if source in checkpoints:
            units[source, meter] = units.get((source, meter), 0) + int(number)
    totals = {source: data["totals"] for source, data in checkpoints.items()}
    stated = {(source, meter): int(number) for source, by in totals.items() for meter, number in by.items()}
    pairs = [
        Difference(source, meter, stated.get((source, meter), 0), units.get((source, meter), 0))
        for source, meter in sorted(units.keys() | stated.keys())
    ]
    return [each for each in pairs if each.stated not in (each.units, TOTAL_MAX)]


def late_records(engine: Engine, sealed: Mapping[str, Any]) -> list[Late]:
    """The records of a sealed period that were loaded after its seal, by whether an operator recorded them."""
    bounds = [us_of(sealed[name]) for name in ("start", "end")]
    late: dict[bool, tuple[int, dict[str, int]]] = {}
    take_positions(engine, sealed)
    for by_operator, meter, records, units in engine.run(_LATE, bounds):
        before, by_meter = late.get(by_operator, (0, {}))
        late[by_operator] = before + records, by_meter | ({meter: int(units)} if meter else {})
    return [Late(sealed["period"], by_operator, *each) for by_operator, each in sorted(late.items())]


def _changed(ledger: LedgerRows, sealed: Mapping[str, Any]) -> list[Difference]:
    """The units of a sealed period that are not what its seal says; none of a period that retention has removed."""
    bounds = [us_of(sealed[name]) for name in ("start", "end")]
    take_positions(ledger.engine, sealed)
    units = units_of(ledger, Period(sealed["period"], *bounds), before=True)
    if not units:
        return []
    return [
        Difference(f"{sealed['period']} {kind}", meter, stated, units.get(meter, {}).get(kind, 0))
        for meter, by_kind in sorted(sealed["units"].items())
        for kind, stated in by_kind.items()
        if stated != units.get(meter, {}).get(kind, 0)
    ]
