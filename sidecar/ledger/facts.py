"""Collects by SQL what the ledger says about each source, in memory that hardly grows with the records.

The rows are read once as a stream, into a few sums for each source: numbers 1..n are there, each once, exactly if their
count and the sums of their first three powers are those of 1..n, whatever the order. Only of the other sources the
numbers are looked at, as bits in blocks of 1,024: 17 MB for 10^8 numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson

from sidecar.core.billing.sealing import DENIALS, MARGIN_US, Numbers, SeenCheckpoint, SeenEnd, SourceFacts
from sidecar.edge.ledger.engine import Engine

EXAMPLES: Final = 20  # gaps of each source
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ZEROS: Final = re.compile("0+")
_US: Final = timedelta(microseconds=1)

# Copies are left out: a copy may have the number of its original, or one of its own, so a source with copies is sorted.
_SUMS: Final = """
    SELECT source, count(*), min(sequence), max(sequence), sum(sequence::HUGEINT),
        sum(sequence::HUGEINT * sequence), sum(sequence::HUGEINT * sequence * sequence)
    FROM ledger WHERE "first" AND NOT "copy" AND source IS NOT NULL GROUP BY source"""
_COPIES: Final = 'SELECT DISTINCT source FROM ledger WHERE "first" AND "copy" AND source IS NOT NULL'
# A table, since of a list DuckDB does not know that it is short, and may take the ledger into memory instead.
WANTED: Final = """
    CREATE OR REPLACE TEMP TABLE wanted AS SELECT unnest($1::VARCHAR[]) AS source, unnest($2::BIGINT[]) AS proven"""
BITS: Final = "bitstring_agg((sequence & 1023)::INTEGER, 0, 1023)"
_BLOCK: Final = 1024
_BLOCKS: Final = f"""
    CREATE OR REPLACE TEMP TABLE blocks AS
    SELECT source, sequence >> 10 AS block, {BITS} AS bits FROM ledger JOIN wanted USING (source)
    WHERE "first" AND sequence > proven GROUP BY ALL"""
_COUNTS: Final = """
    SELECT source, coalesce(present, 0)::BIGINT, first, last FROM (
        SELECT source, min(sequence) AS first, max(sequence) AS last FROM ledger JOIN wanted USING (source)
        WHERE "first" GROUP BY source)
    LEFT JOIN (SELECT source, sum(bit_count(bits)) AS present FROM blocks GROUP BY source) USING (source)"""
_PROVEN_PRESENT: Final = f"""
    SELECT source, sum(bit_count(bits))::BIGINT FROM (
        SELECT source, sequence >> 10, {BITS} AS bits FROM ledger JOIN wanted USING (source)
        WHERE "first" AND sequence <= proven GROUP BY ALL)
    GROUP BY source"""
# Blocks that are not full, or have an absent one before them. Each but the outermost begins or ends a gap.
_INCOMPLETE: Final = f"""
    SELECT source, block, before, bits::VARCHAR FROM (
        SELECT *, coalesce(
            lag(block) OVER (PARTITION BY source ORDER BY block), CASE WHEN proven > 0 THEN (proven >> 10) - 1 END
        ) AS before FROM blocks JOIN wanted USING (source))
    WHERE bit_count(bits) < {_BLOCK} OR block > before + 1
    QUALIFY row_number() OVER (PARTITION BY source ORDER BY block) <= {4 * EXAMPLES} ORDER BY source, block"""
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


class Proven(NamedTuple):
    """The numbers that earlier seals prove to be complete; retention may have removed these records.

    `numbers`: the highest by source, denials being one; `ended`: those by stream of each source that has ended.
    """

    numbers: Mapping[str, int]
    ended: Mapping[str, Mapping[str, int]]

    def numbers_of(self, source: str) -> Numbers:
        """The numbers of a source of which nothing is here."""
        last = self.numbers.get(source, 0)
        return Numbers(1, last) if last else Numbers()


NOTHING_PROVEN: Final = Proven({}, {})


class NumbersOf(NamedTuple):
    """The numbers of a source, and how many of them are here, each counted once; those that are proven count as here.

    `is_whole`: 1..last are here, each once. `is_cut`: some that are proven are not here any more.
    """

    numbers: Numbers
    present: int
    is_whole: bool
    is_cut: bool = False


def numbers_by_source(engine: Engine, proven: Proven) -> dict[str, NumbersOf]:
    """The numbers of every source that has records, with its first gaps."""
    suspects = {source for (source,) in engine.run(_COPIES)}
    known: dict[str, NumbersOf] = {}
    for source, count, first, last, *sums in engine.run(_SUMS):
        if first == 1 and count == last and tuple(sums) == _power_sums(last):
            known[source] = NumbersOf(Numbers(first, last), count, is_whole=True)
        else:
            suspects.add(source)
    if suspects:
        known |= _looked_at(engine, sorted(suspects), proven)
    return known


def _looked_at(engine: Engine, sources: list[str], proven: Proven) -> dict[str, NumbersOf]:
    """The same by the bits of all numbers of these sources."""
    engine.run(WANTED, [sources, [proven.numbers.get(source, 0) for source in sources]])
    engine.run(_BLOCKS)
    missing: dict[str, list[tuple[int, int]]] = {}
    for source, block, before, bits in engine.run(_INCOMPLETE):
        missing.setdefault(source, []).extend(_absent(block, before, bits))
    here = dict(engine.run(_PROVEN_PRESENT)) if proven.numbers else {}
    known = {}
    for source, present, first, last in engine.run(_COUNTS):
        before = proven.numbers.get(source, 0)
        begin = 1 if before else first
        gaps = _merged(missing.get(source, []), max(begin, before + 1), last)[:EXAMPLES]
        is_cut = here.get(source, 0) < before
        numbers = Numbers(begin, max(last, before), tuple(gaps))
        known[source] = NumbersOf(numbers, present + before, is_whole=False, is_cut=is_cut)
    return known


def _absent(block: int, before: int | None, bits: str) -> Iterable[tuple[int, int]]:
    """The numbers that are not in a block, and those of absent blocks before it, as stretches in order."""
    start = block * _BLOCK
    if before is not None and before + 1 < block:
        yield (before + 1) * _BLOCK, start - 1
    for zeros in _ZEROS.finditer(bits):
        yield start + zeros.start(), start + zeros.end() - 1


def _merged(stretches: list[tuple[int, int]], first: int, last: int) -> list[tuple[int, int]]:
    """Stretches in order as gaps within first..last: those that touch are one."""
    gaps: list[tuple[int, int]] = []
    for start, end in stretches:
        if gaps and gaps[-1][1] + 1 == start:
            gaps[-1] = (gaps[-1][0], end)
        else:
            gaps.append((start, end))
    clipped = [(max(start, first), min(end, last)) for start, end in gaps]
    return [(start, end) for start, end in clipped if start <= end]


def _power_sums(n: int) -> tuple[int, int, int]:
    """Σ i, Σ i² and Σ i³ for i in 1..n."""
    first = n * (n + 1) // 2
    return first, first * (2 * n + 1) // 3, first * first


def source_facts(engine: Engine, end_us: int, proven: Proven, margin_us: int = MARGIN_US) -> list[SourceFacts]:
    """The facts on every source that a record is from or names, as far as a period that ends at `end_us` needs them."""
    facts = {source: SourceFacts(source, each.numbers) for source, each in numbers_by_source(engine, proven).items()}

    def of(source: str) -> SourceFacts:
        return facts.setdefault(source, SourceFacts(source, proven.numbers_of(source)))

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
    for source in list(facts):
        if (ended := proven.ended.get(source)) is not None:
            facts[source] = of(source)._replace(ends=(*of(source).ends, SeenEnd(is_retired=False, highest=ended)))
        if source + DENIALS in proven.numbers:
            of(source + DENIALS)
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
