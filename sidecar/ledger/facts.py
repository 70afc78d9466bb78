"""Collects by SQL what the ledger says about each source, in memory that does not grow with the records.

The rows are read once as a stream, into a few sums for each source: numbers 1..n are there, each once, exactly if their
count and the sums of their first three powers are those of 1..n, whatever the order. Only sources of which that is not
true are sorted, to name their gaps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson

from sidecar.core.billing.sealing import MARGIN_US, Numbers, SeenCheckpoint, SeenEnd, SourceFacts
from sidecar.ledger.connection import Engine

EXAMPLES: Final = 20  # gaps of each source
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)

# Copies are left out: a copy may have the number of its original, or one of its own, so a source with copies is sorted.
_SUMS: Final = """
    SELECT source, count(*), min(sequence), max(sequence), sum(sequence::HUGEINT),
        sum(sequence::HUGEINT * sequence), sum(sequence::HUGEINT * sequence * sequence)
    FROM ledger WHERE "first" AND NOT "copy" AND source IS NOT NULL GROUP BY source"""
_COPIES: Final = 'SELECT DISTINCT source FROM ledger WHERE "first" AND "copy" AND source IS NOT NULL'
_DISTINCT: Final = (
    'SELECT DISTINCT source, sequence FROM ledger WHERE "first" AND source IN (SELECT unnest(?::VARCHAR[]))'
)
_COUNTS: Final = f"SELECT source, count(*), min(sequence), max(sequence) FROM ({_DISTINCT}) GROUP BY source"
_GAPS: Final = f"""
    SELECT source, sequence + 1, next - 1 FROM (
        SELECT *, lead(sequence) OVER (PARTITION BY source ORDER BY sequence) AS next FROM ({_DISTINCT}))
    WHERE next > sequence + 1
    QUALIFY row_number() OVER (PARTITION BY source ORDER BY sequence) <= {EXAMPLES} ORDER BY 1, 2"""
_CHECKPOINTS: Final = """
    WITH seen AS (
        SELECT source, sequence, time_us, data,
            coalesce(epoch_us(TRY_CAST(data->>'$.oldest_open' AS TIMESTAMP)), 0) AS oldest_open_us
        FROM ledger WHERE kind = 'checkpoint' AND "first"),
    fitting AS (
        SELECT *, time_us >= $1 AND oldest_open_us NOT BETWEEN 1 AND $1 - 1 AS fits,
            coalesce(TRY_CAST(data->>'$.final' AS BOOLEAN), false) AS final,
            struct_pack(sequence, time_us, data, oldest_open_us) AS whole FROM seen)
    SELECT source, arg_min(whole, sequence) FILTER (fits), arg_max(whole, sequence),
        arg_max(whole, time_us) FILTER (time_us >= $1), arg_max(whole, sequence) FILTER (final)
    FROM fitting GROUP BY source"""
_SOURCES: Final = """SELECT source, sequence, data FROM ledger WHERE kind = 'source' AND "first" ORDER BY time_us"""


class NumbersOf(NamedTuple):
    """The numbers of a source, and how many of them are here, each counted once. `is_whole`: 1..last, each once."""

    numbers: Numbers
    present: int
    is_whole: bool


def numbers_by_source(engine: Engine) -> dict[str, NumbersOf]:
    """The numbers of every source that has records, with its first gaps."""
    with_copies = {source for (source,) in engine.run(_COPIES)}
    known: dict[str, NumbersOf] = {}
    suspects = set(with_copies)
    for source, count, first, last, *sums in engine.run(_SUMS):
        is_whole = first == 1 and count == last and tuple(sums) == _power_sums(last)
        known[source] = NumbersOf(Numbers(first, last), count, is_whole and source not in with_copies)
        if not is_whole:
            suspects.add(source)
    if suspects:
        gaps: dict[str, list[tuple[int, int]]] = {}
        for source, start, end in engine.run(_GAPS, [sorted(suspects)]):
            gaps.setdefault(source, []).append((start, end))
        for source, count, first, last in engine.run(_COUNTS, [sorted(suspects)]):
            known[source] = NumbersOf(Numbers(first, last, tuple(gaps.get(source, ()))), count, False)
    return known


def _power_sums(n: int) -> tuple[int, int, int]:
    """Σ i, Σ i² and Σ i³ for i in 1..n."""
    first = n * (n + 1) // 2
    return first, first * (2 * n + 1) // 3, first * first


def source_facts(engine: Engine, end_us: int, margin_us: int = MARGIN_US) -> list[SourceFacts]:
    """The facts on every source that a record is from or names, as far as a period that ends at `end_us` needs them."""
    facts = {source: SourceFacts(source, each.numbers) for source, each in numbers_by_source(engine).items()}

    def of(source: str) -> SourceFacts:
        return facts.setdefault(source, SourceFacts(source))

    for source, *seen in engine.run(_CHECKPOINTS, [end_us + margin_us]):
        facts[source] = of(source)._replace(checkpoints=tuple(_checkpoints(seen)))
    for _, _, data in engine.run(_SOURCES):
        read = orjson.loads(data)
        predecessor, about, state = read.get("predecessor"), read.get("about"), read.get("state")
        if predecessor:
            facts[predecessor] = of(predecessor)._replace(is_followed=True)
        if about and state in {"closed", "retired"}:
            known = of(about)
            end = SeenEnd(state == "retired", read.get("highest") or {}, read.get("reason", ""))
            facts[about] = known._replace(ends=(*known.ends, end), is_followed=known.is_followed or state == "closed")
    return list(facts.values())


def _checkpoints(rows: Sequence[dict[str, Any] | None]) -> Iterable[SeenCheckpoint]:
    for row in rows:
        if row is not None:
            data = orjson.loads(row["data"])
            yield SeenCheckpoint(
                row["sequence"],
                row["time_us"],
                data["highest"],
                row["oldest_open_us"],
                data.get("final", False) is True,
            )


def time_us(moment: datetime) -> int:
    """µs since 1970."""
    return (moment - _EPOCH) // _US
