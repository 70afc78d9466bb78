"""The questions that commands ask of the views, as SQL that anybody can repeat with `sidecar ledger query`.

A period is half-open, [start, end), in µs since 1970. Sums are integers without a bound. The text is the same for each
engine, with the differences of their dialects from dialects.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sidecar.edge.ledger.dialects import DUCKDB, Dialect
from sidecar.edge.ledger.schema import text

Parameters = list[Any]
_HOUR_US: Final = 3_600_000_000

# The dimensions of totals: the name in the result, and its SQL.
DIMENSIONS: Final = {
    "customer": "customer",
    "account": "account",
    "meter": "meter",
    "model": "model",
    "tier": "tier",
    "key": "key_id",
    "route": "route",
    "plan": "plan",
    "subject": "subject",
    "kind": "kind",
    "quality": "quality",
    "reason": "reason",
    "hour": f"period_us - period_us % {_HOUR_US}",
    "day": f"period_us - period_us % {24 * _HOUR_US}",
}
_TIMES: Final = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d"}  # how the start of an hour or day is shown
TRACE_COLUMNS: Final = (
    "time_us", "period_us", "id", "kind", "customer", "meter", "units", "billable", "reason", "plan", "model", "key_id",
    "route", "source", "sequence", "topic", "part", "offset",
)  # fmt: skip


_PLACE: Final = 'topic, part, "offset", line, meter'  # names a row: an order without it differs from engine to engine


class Scope(NamedTuple):
    """Which rows: of a period, a customer, a meter. None: all."""

    start_us: int | None = None
    end_us: int | None = None
    customer: str | None = None
    meter: str | None = None

    def where(self) -> tuple[str, Parameters]:
        """A condition on rows, and its parameters."""
        tests = (
            ("period_us >= ?", self.start_us),
            ("period_us < ?", self.end_us),
            ("customer = ?", self.customer),
            ("meter = ?", self.meter),
        )
        given = [(sql, value) for sql, value in tests if value is not None]
        return " AND ".join([sql for sql, _ in given]) or "true", [value for _, value in given]


def shown(by: Sequence[str], dialect: Dialect) -> list[str]:
    """The dimensions as the result has them, from columns of their names."""
    return [
        f'{dialect.format_time(name, _TIMES[name])} AS "{name}"' if name in _TIMES else f'"{name}" AS "{name}"'
        for name in by
    ]


def totals(
    by: Sequence[str], scope: Scope, without: Sequence[str] = (), dialect: Dialect = DUCKDB
) -> tuple[str, Parameters]:
    """Sums of units by dimensions: `units` of what is billed, `not_billable` of the rest, and how many records.

    `without`: meters that are left out. Corrections and voids are added to the records that they change. `rows` are of
    records, lines and meters; `records` are exact where the sum is not by meter or model, because a record has a row
    for each.
    """
    where, parameters = scope.where()
    groups = ", ".join([f'{DIMENSIONS[name]} AS "{name}"' for name in by])
    has_parts = {"meter", "model"} & set(by) or scope.meter is not None
    count = "count(*) AS rows" if has_parts else 'count(*) FILTER (WHERE "first") AS records'
    before = f"{groups}, " if by else ""
    adds_up = "true"
    if without:
        adds_up = f"(meter IS NULL OR meter NOT IN ({', '.join(map(text, without))}))"
        where = f"{where} AND {adds_up}" if has_parts else where  # else a record may lose its first row
    inner = (
        f"SELECT {before}coalesce(sum(units) FILTER (WHERE billable AND {adds_up}), 0) AS units, "
        f"coalesce(sum(units) FILTER (WHERE NOT coalesce(billable, false) AND {adds_up}), 0) AS not_billable, "
        f"{count} FROM usage WHERE {where}{' GROUP BY ALL' if by else ''}"
    )
    if not by:
        return inner, parameters
    rest = f"units, not_billable, {count.rpartition(' ')[2]}"
    return f"SELECT {', '.join(shown(by, dialect))}, {rest} FROM ({inner}) ORDER BY ALL", parameters


def records_of(scope: Scope, limit: int) -> tuple[str, Parameters]:
    """The rows that a sum is made of, in order of time; at most `limit` (0: all)."""
    where, parameters = scope.where()
    columns = ", ".join([f'"{name}"' for name in TRACE_COLUMNS])
    end = f" LIMIT {limit}" if limit else ""
    return f"SELECT {columns} FROM usage WHERE {where} ORDER BY period_us, id, {_PLACE}{end}", parameters


def count_of(scope: Scope) -> tuple[str, Parameters]:
    """How many rows a sum is made of."""
    where, parameters = scope.where()
    return f"SELECT count(*) AS rows FROM usage WHERE {where}", parameters


def names_of(column: str) -> tuple[str, Parameters]:
    """The customers or meters that usage has, in order."""
    return f"SELECT DISTINCT {column} FROM usage WHERE {column} IS NOT NULL ORDER BY 1", []


# A record, and all that refers to it: corrections, voids, copies, and the postings of its charge and of its changes.
_RECORD: Final = f"""
    SELECT * FROM ledger
    WHERE id = ? OR cause = ? OR cause IN (
        SELECT id FROM ledger WHERE cause = ? AND kind IN ('correction', 'void'))
    ORDER BY id <> ?, "copy", time_us, id, {_PLACE}"""


def record_of(id_: str) -> tuple[str, Parameters]:
    """The rows of a record, and of all that refers to it or to a change of it."""
    return _RECORD, [id_] * 4
