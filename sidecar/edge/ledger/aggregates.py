"""Quantities of a period that are not sums: maxima, latest and unique values, averages over time. One SQL for each.

All start from the same rows: what is billed of one meter, a row for each exchange, with its corrections added. So a
corrected reading is the corrected value, and a void one is 0.

    readings of storage: 10 at the 1st 00:00 (before it 4), 30 at the 16th of a month of 30 days
      max 30, latest 30, time_weighted (10 * 15 + 30 * 15) / 30 = 20; from the 11th on (10 * 5 + 30 * 15) / 20 = 25
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sidecar.core.usage import Aggregate
from sidecar.edge.ledger.dialects import DUCKDB, Dialect
from sidecar.edge.ledger.queries import DIMENSIONS, Parameters, Scope, shown

_CLOCKS: Final = frozenset({"hour", "day"})  # dimensions that cut time


def fault_of(by: Sequence[str], scope: Scope, aggregate: Aggregate) -> str:
    """Why there is no such quantity; "" where there is one."""
    if aggregate.kind != "time_weighted":
        return ""
    if scope.start_us is None or scope.end_us is None:
        return "an average over time needs a period: add --period, or --from and --to"
    if cuts := _CLOCKS & set(by):
        return f"an average over time is of the whole period: leave {min(cuts)} out of --by"
    return ""


def quantity(
    by: Sequence[str], scope: Scope, aggregate: Aggregate, dialect: Dialect = DUCKDB
) -> tuple[str, Parameters]:
    """The quantity of the meter that `scope` names, by dimensions: their columns, `units` and `rows` (exchanges)."""
    dimensions = "".join([f"{each}, " for each in shown(by, dialect)])
    groups = "".join([f', "{name}"' for name in by])
    if aggregate.kind == "time_weighted":
        exchanges, parameters = _exchanges(by, scope._replace(start_us=None))
        return _time_weighted(by, exchanges, dimensions, dialect), [scope.start_us, scope.end_us, *parameters]
    unique = f", any_value({aggregate.of or 'NULL'}) AS counted"
    exchanges, parameters = _exchanges(by, scope, unique)
    group = " GROUP BY ALL" if by else ""
    if aggregate.window_us:
        cut = f"GROUP BY period_us - period_us % {aggregate.window_us}{groups}"
        windows = f"SELECT sum(units) AS units, count(*) AS rows{groups} FROM ({exchanges}) {cut}"
        inner = f"SELECT max(units) AS units, sum(rows)::BIGINT AS rows{groups} FROM ({windows}){group}"
    else:
        inner = f"SELECT {_value(aggregate, dialect)} AS units, count(*) AS rows{groups} FROM ({exchanges}){group}"
    return f"SELECT {dimensions}units, rows FROM ({inner}) WHERE rows > 0 ORDER BY ALL", parameters


def _value(aggregate: Aggregate, dialect: Dialect) -> str:
    if aggregate.kind == "latest":
        return f"{dialect.arg_max}(units, (period_us, time_us, exchange))"
    return "max(units)" if aggregate.kind == "max" else "count(DISTINCT counted) FILTER (WHERE units > 0)"


def _exchanges(by: Sequence[str], scope: Scope, more: str = "") -> tuple[str, Parameters]:
    """A row for each exchange: its units with corrections, its times, the dimensions."""
    where, parameters = scope.where()
    groups = "".join([f', {DIMENSIONS[name]} AS "{name}"' for name in by])
    return (
        "SELECT coalesce(cause, id) AS exchange, min(period_us) AS period_us, min(time_us) AS time_us, "
        f"sum(units) AS units{more}{groups} FROM usage WHERE {where} AND billable "
        f"GROUP BY exchange{''.join([f', {chr(34)}{name}{chr(34)}' for name in by])}"
    ), parameters


def _time_weighted(by: Sequence[str], exchanges: str, dimensions: str, dialect: Dialect) -> str:
    """Each value times how long it held, over the length of the period, rounded half up; the value before it counts."""
    partition = ", ".join([f'"{name}"' for name in by])
    window = f"PARTITION BY {partition} " if by else ""
    groups = "".join([f', "{name}"' for name in by])
    return f"""
        WITH bounds AS (SELECT ?::BIGINT AS start_us, ?::BIGINT AS end_us),
        readings AS (
            SELECT *, lead(period_us, 1, end_us) OVER ({window}ORDER BY period_us, time_us, exchange) AS until_us
            FROM ({exchanges}) AS exchanges, bounds),
        held AS (
            SELECT *, greatest(0, least(until_us, end_us) - greatest(period_us, start_us))
                * units::{dialect.wide} AS weight
            FROM readings),
        summed AS (
            SELECT sum(weight) AS weight, count(*) FILTER (WHERE period_us >= start_us) AS rows,
                any_value(end_us - start_us) AS length{groups} FROM held WHERE until_us > start_us
            GROUP BY ALL)
        SELECT {dimensions}{dialect.divide("2 * weight + length", "2 * length")}::{dialect.wide} AS units, rows
        FROM summed WHERE weight IS NOT NULL ORDER BY ALL"""
