"""The questions that commands ask of the views, as SQL that anybody can repeat with `sidecar ledger query`.

A period is half-open, [start, end), in µs since 1970. Sums are integers without a bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

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
    "hour": f"period_us // {_HOUR_US}",
    "day": f"period_us // {24 * _HOUR_US}",
}
TIMES: Final = {  # how a number of hours or days is shown
    "hour": f"strftime(make_timestamp(hour * {_HOUR_US}), '%Y-%m-%dT%H')",
    "day": f"strftime(make_timestamp(day * {24 * _HOUR_US}), '%Y-%m-%d')",
}
TRACE_COLUMNS: Final = (
    "time_us", "period_us", "id", "kind", "units", "billable", "reason", "plan", "model", "key_id", "route",
    "source", "sequence", "topic", "part", "offset",
)  # fmt: skip


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


def totals(by: Sequence[str], scope: Scope, without: Sequence[str] = ()) -> tuple[str, Parameters]:
    """Sums of units by dimensions: `units` of what is billed, `not_billable` of the rest, and how many records.

    `without`: meters that are left out. Corrections and voids are added to the records that they change. `rows` are of
    records, lines and meters; `records` are exact where the sum is not by meter or model, because a record has a row
    for each.
    """
    where, parameters = scope.where()
    groups = ", ".join([f'{DIMENSIONS[name]} AS "{name}"' for name in by])
    shown = ", ".join([f'{TIMES.get(name, chr(34) + name + chr(34))} AS "{name}"' for name in by])
    has_parts = {"meter", "model"} & set(by) or scope.meter is not None
    count = "count(*) AS rows" if has_parts else 'count(*) FILTER ("first") AS records'
    before = f"{groups}, " if by else ""
    adds_up = "true"
    if without:
        adds_up = f"coalesce(meter <> ALL ([{', '.join(map(text, without))}]), true)"
        where = f"{where} AND {adds_up}" if has_parts else where  # else a record may lose its first row
    inner = (
        f"SELECT {before}coalesce(sum(units) FILTER (billable AND {adds_up}), 0) AS units, "
        f"coalesce(sum(units) FILTER (billable IS NOT TRUE AND {adds_up}), 0) AS not_billable, "
        f"{count} FROM usage WHERE {where}{' GROUP BY ALL' if by else ''}"
    )
    if not by:
        return inner, parameters
    rest = f"units, not_billable, {count.rpartition(' ')[2]}"
    return f"SELECT {shown}, {rest} FROM ({inner}) ORDER BY ALL", parameters


def records_of(scope: Scope, limit: int) -> tuple[str, Parameters]:
    """The rows that a sum is made of, in order of time; at most `limit` (0: all)."""
    where, parameters = scope.where()
    columns = ", ".join([f'"{name}"' for name in TRACE_COLUMNS])
    end = f" LIMIT {limit}" if limit else ""
    return f'SELECT {columns} FROM usage WHERE {where} ORDER BY period_us, id, "offset", line{end}', parameters


# A record, and all that refers to it: corrections, voids, the posting of its charge, and copies.
RECORD: Final = """SELECT * FROM ledger WHERE id = $1 OR cause = $1
    ORDER BY id <> $1, "copy", time_us, id, part, "offset", line, meter"""
