r"""The ledger's tables in ClickHouse, and the inserts that fill them from the ledger's files.

    ledger_rows      every row of every file, with its topic: ReplacingMergeTree by what names a row, read with FINAL
    ledger_files     which offsets are in: a row after the insert of each file
    ledger, usage …  the views, as in views.py

A file is one insert with its name as token, so that a repeated one is ignored; a row of ledger_files follows. Killed
between the two, the file is inserted again: the token is known, or FINAL leaves one of two equal rows. The highest
offset in ledger_rows is not asked: rows of a file are in order of customers, and a server may cut inserts into blocks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from sidecar.core.errors import SinkError
from sidecar.edge.ledger.clickhouse import ClickHouse
from sidecar.edge.ledger.dialects import CLICKHOUSE
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.schema import COLUMNS, NAMES, Column, quoted, selection, text
from sidecar.edge.ledger.views import views_of

ROWS: Final = "ledger_rows"
FILES: Final = "ledger_files"
_WINDOW: Final = 10_000  # tokens that a single server remembers; the default is 0
_TYPES: Final = {
    "VARCHAR": "String", "BIGINT": "Int64", "INTEGER": "Int32", "SMALLINT": "Int16", "BOOLEAN": "Bool",
}  # fmt: skip
_FEW_VALUES: Final = frozenset({
    "source", "kind", "customer", "account", "plan", "route", "method", "origin", "outcome", "quality", "reason",
    "model", "tier", "meter",
})  # fmt: skip
_PLAIN: Final = frozenset({"part", "offset"})  # never NULL
_KEY: Final = ("customer", "meter", "period_us", "topic", "part", "offset", "line")
_MONTH: Final = "toYYYYMM(fromUnixTimestamp64Micro(ifNull(period_us, 0), 'UTC'))"


class Pushed(NamedTuple):
    """Offsets of a partition that are in ClickHouse, both included, and how many rows they have."""

    topic: str
    part: int
    first: int
    last: int
    rows: int


def _declared(column: Column) -> str:
    if column.name == "units":
        type_, codec = "Nullable(Int128)", "ZSTD(1)"  # sums of Int64 wrap without an error
    else:
        type_ = _TYPES[column.type]
        codec = "Delta, ZSTD(1)" if column.name in {"offset", "sequence", "time_us", "period_us"} else "ZSTD(1)"
        type_ = type_ if column.name in _PLAIN else f"Nullable({type_})"
    return f"{quoted(column.name)} {f'LowCardinality({type_})' if column.name in _FEW_VALUES else type_} CODEC({codec})"


def statements() -> list[str]:
    """The statements that make the tables and views, in order. A table that is there already is taken as it is."""
    columns = ",\n  ".join(["topic LowCardinality(String)", *map(_declared, COLUMNS)])
    key = ", ".join(map(quoted, _KEY))
    rows = (
        f"CREATE TABLE IF NOT EXISTS {ROWS} (\n  {columns}\n) ENGINE = ReplacingMergeTree\nPARTITION BY {_MONTH}\n"
        f"ORDER BY ({key})\nSETTINGS allow_nullable_key = 1, non_replicated_deduplication_window = {_WINDOW}"
    )
    files = (
        f"CREATE TABLE IF NOT EXISTS {FILES} (topic String, part Int32, first Int64, last Int64, rows Int64)\n"
        "ENGINE = ReplacingMergeTree ORDER BY (topic, part, first, last)"
    )
    ledger = f"CREATE OR REPLACE VIEW ledger AS SELECT topic, {', '.join(map(quoted, NAMES))} FROM {ROWS} FINAL"
    views = [f"CREATE OR REPLACE VIEW {name} AS {sql}" for name, (_, sql) in views_of(CLICKHOUSE).items()]
    return [rows, files, ledger, *views]


def extract(engine: Engine, source: Path, pushed: Pushed, path: Path) -> Pushed:
    """Write the rows of a ledger's file that are of the offsets of `pushed`, with their topic; how many they are."""
    ((rows,),) = engine.run(
        f"COPY (SELECT {text(pushed.topic)} AS topic, {selection()} FROM read_parquet({text(str(source))}) "
        f'WHERE "offset" BETWEEN {pushed.first} AND {pushed.last}) '
        f"TO {text(str(path))} (FORMAT parquet, COMPRESSION zstd)"
    )
    return pushed._replace(rows=rows)


class ClickHouseTables:
    """The tables on one connection. SinkError from each method: what ClickHouse says."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse

    def create(self) -> None:
        """Make what is missing, and the views anew."""
        for statement in statements():
            self._clickhouse.execute(statement)

    def pushed(self) -> list[Pushed]:
        """The offsets that are in, in order. SinkError: the tables are missing."""
        tables = self._clickhouse.run(
            "SELECT name FROM system.tables WHERE database = currentDatabase() AND name = ?", [FILES]
        )
        if not tables:
            raise SinkError(
                f"ClickHouse at {self._clickhouse.place}: database {self._clickhouse.database} has no ledger: "
                "`sidecar ledger push` makes it"
            )
        rows = self._clickhouse.run(f"SELECT topic, part, first, last, rows FROM {FILES} FINAL ORDER BY ALL")
        return [Pushed(*row) for row in rows]

    def insert(self, path: Path, pushed: Pushed, token: str) -> None:
        """Insert the rows that a work file has, and then note that they are in."""
        if pushed.rows:
            self._clickhouse.insert_file(ROWS, ["topic", *NAMES], path, token)
        self.note(pushed)

    def note(self, pushed: Pushed) -> None:
        """Say that offsets are in. Noting them twice changes nothing."""
        values = f"{_literal(pushed.topic)}, {pushed.part}, {pushed.first}, {pushed.last}, {pushed.rows}"
        self._clickhouse.execute(f"INSERT INTO {FILES} SELECT {values}")


def _literal(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
