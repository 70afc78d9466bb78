"""Questions to the ledger. If a compaction took a file away meanwhile, the question is asked again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

from sidecar.core.errors import SinkError
from sidecar.core.usage import Aggregate
from sidecar.edge.ledger.aggregates import fault_of, quantity
from sidecar.edge.ledger.queries import Scope, count_of, names_of, record_of, records_of, totals
from sidecar.ledger.backends import Backend, ClickHouseBackend, FileBackend

T = TypeVar("T")
_ATTEMPTS: Final = 3
_FETCH: Final = 10_000
NO_AGGREGATES: Final[Mapping[str, Aggregate]] = MappingProxyType({})


class Answer(NamedTuple):
    """Column names and rows."""

    columns: list[str]
    rows: list[tuple[Any, ...]]

    def as_dicts(self) -> list[dict[str, Any]]:
        """The rows as mappings."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Ledger:
    """The views of a ledger on one connection. `faults`: files that were refused, and offsets that are missing."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._engine = backend.engine
        self._dialect = backend.dialect

    @property
    def faults(self) -> list[str]:
        """All that is wrong with the files."""
        return self._backend.faults

    def totals(self, by: Sequence[str], scope: Scope, aggregates: Mapping[str, Aggregate] = NO_AGGREGATES) -> Answer:
        """Quantities by dimensions (queries.DIMENSIONS): sums, and of the meters of `aggregates` what these say.

        `aggregates` are not additive, so they are in no sum over meters. Those that have no value by these dimensions
        or in this period are left out; ValueError: `scope` asks for one of them alone.
        """
        own = {meter: each for meter, each in aggregates.items() if scope.meter in {None, meter}}
        without = left_out(by, scope, aggregates)
        if scope.meter in without:
            raise ValueError(f"meter '{scope.meter}': {without[scope.meter]}")
        sums = self._ask(*totals(by, scope, list(own), self._dialect))
        rows = sums.rows if scope.meter not in own else []
        for meter in own.keys() - without if has_meters(by, scope) else ():
            aggregate = own[meter]
            quantities = self._ask(*quantity(by, scope._replace(meter=meter), aggregate, self._dialect)).rows
            rows = rows + [(*dimensions, units, 0, count) for *dimensions, units, count in quantities]
        return sums._replace(rows=sorted(rows, key=lambda row: [str(each) for each in row[: len(by)]]) if own else rows)

    def records_of(self, scope: Scope, limit: int) -> Answer:
        """The rows that a sum is made of."""
        return self._ask(*records_of(scope, limit))

    def count_of(self, scope: Scope) -> int:
        """How many rows a sum is made of."""
        return int(self._ask(*count_of(scope)).rows[0][0])

    def names(self, column: str) -> list[str]:
        """The values of the column `customer` or `meter` that usage has."""
        return [name for (name,) in self._ask(*names_of(column)).rows]

    def record(self, id_: str) -> Answer:
        """The rows of a record and of all that refers to it."""
        return self._ask(*record_of(id_))

    def query(self, sql: str) -> tuple[list[str], Iterator[list[tuple[Any, ...]]]]:
        """One statement that only reads: its columns, and its rows in parts. ValueError: it does more."""
        if not self._engine.is_one_query(sql):
            raise ValueError("one SELECT is needed: the ledger is never changed by a query")
        self._engine.restrict(self._backend.folder)
        names, cursor = self._again(lambda: self._engine.stream(sql))
        return names, iter(lambda: cursor.fetchmany(_FETCH), [])

    def close(self) -> None:
        """Close the connection."""
        self._engine.close()

    def _ask(self, sql: str, parameters: list[Any]) -> Answer:
        def ask() -> Answer:
            names, cursor = self._engine.stream(sql, parameters)
            return Answer(names, cursor.fetchall())

        return self._again(ask)

    def _again(self, ask: Callable[[], T]) -> T:
        for _ in range(_ATTEMPTS - 1):
            try:
                return ask()
            except SinkError as error:
                if not self._backend.refresh():
                    raise self._backend.explain(error) from error
        return ask()


def left_out(by: Sequence[str], scope: Scope, aggregates: Mapping[str, Aggregate]) -> dict[str, str]:
    """The meters that have no quantity by these dimensions or in this period, and why."""
    faults = {meter: fault_of(by, scope, each) for meter, each in aggregates.items() if scope.meter in {None, meter}}
    return {meter: fault for meter, fault in faults.items() if fault and has_meters(by, scope)}


def has_meters(by: Sequence[str], scope: Scope) -> bool:
    """Whether each quantity is of one meter."""
    return "meter" in by or scope.meter is not None


@contextmanager
def open_ledger(folder: Path, *, memory: str, threads: int = 0) -> Iterator[Ledger]:
    """A ledger's files to ask, by DuckDB. SinkError: `folder` is not a ledger."""
    with _closing(Ledger(FileBackend(folder, memory=memory, threads=threads))) as ledger:
        yield ledger


@contextmanager
def open_clickhouse(url: str) -> Iterator[Ledger]:
    """A ledger in ClickHouse to ask. SinkError: ClickHouse cannot be used, or has no ledger."""
    with _closing(Ledger(ClickHouseBackend(url))) as ledger:
        yield ledger


@contextmanager
def _closing(ledger: Ledger) -> Iterator[Ledger]:
    try:
        yield ledger
    finally:
        ledger.close()
