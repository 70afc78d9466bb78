"""The engines that answer questions to the ledger: DuckDB on its files, or ClickHouse, with the same views."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from sidecar.core.errors import SinkError
from sidecar.edge.ledger.clickhouse import ClickHouse
from sidecar.edge.ledger.clickhouse_tables import ClickHouseTables
from sidecar.edge.ledger.dialects import CLICKHOUSE, DUCKDB, Dialect
from sidecar.edge.ledger.digests import explained
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import LedgerFile, LedgerFolder, Listing
from sidecar.edge.ledger.views import create_views


class Cursor(Protocol):
    """The rows of an answer."""

    def fetchmany(self, size: int, /) -> list[tuple[Any, ...]]:
        """The next rows; empty at the end."""

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All other rows."""


class QueryEngine(Protocol):
    """A connection with the views. SinkError from each method: it failed, and what the engine says."""

    def stream(self, sql: str, parameters: Sequence[Any] = ()) -> tuple[list[str], Cursor]:
        """The names of the columns, and the rows."""

    def is_one_query(self, sql: str) -> bool:
        """Whether the text is a single statement that only reads."""

    def restrict(self, folder: Path) -> None:
        """From now on nothing outside of the ledger can be read."""

    def close(self) -> None:
        """Close the connection."""


class Backend(Protocol):
    """An engine, what of the ledger it lacks in words (`faults`), and its dialect."""

    folder: Path
    dialect: Dialect
    engine: QueryEngine

    @property
    def faults(self) -> list[str]:
        """The faults."""

    def refresh(self) -> bool:
        """Whether what the views read had changed, and they were made anew."""

    def explain(self, error: SinkError) -> SinkError:
        """The error of a question, with the files that are damaged where it may be of these."""


class FileBackend:
    """DuckDB on the ledger's files. SinkError: `folder` is not a ledger."""

    dialect = DUCKDB

    def __init__(self, folder: Path, *, memory: str, threads: int = 0) -> None:
        self.folder = folder
        self._files = LedgerFolder(folder)
        if not self._files.identity():
            raise SinkError(f"{folder}: not a ledger: `sidecar ledger load` makes one, or set ledger.dir")
        self._threads = threads or os.cpu_count() or 1
        self._duckdb = Engine(threads=self._threads, memory=memory)
        self.engine: QueryEngine = self._duckdb
        self._listing = create_views(self._duckdb, self._files)

    @property
    def faults(self) -> list[str]:
        """Files that were refused, and offsets that are in no file."""
        return [f"{name}: {why}" for name, why in self._listing.refused] + _gaps(self._listing, "are in no file")

    def refresh(self) -> bool:
        if all(self._files.at(file).exists() for file in self._listing.files):
            return False
        self._listing = create_views(self._duckdb, self._files)
        return True

    def explain(self, error: SinkError) -> SinkError:
        return explained(error, self._files, self._listing.files, self._threads)


class ClickHouseBackend:
    """The ledger in ClickHouse. SinkError: it cannot be used, or has none."""

    dialect = CLICKHOUSE
    folder = Path()

    def __init__(self, url: str) -> None:
        clickhouse = ClickHouse(url)
        self.engine: QueryEngine = clickhouse
        try:
            pushed = ClickHouseTables(clickhouse).pushed()
        except SinkError:
            clickhouse.close()
            raise
        ordered = sorted([LedgerFile(each.topic, each.part, each.first, each.last) for each in pushed])
        self._faults = _gaps(Listing(ordered, [], []), "are not in ClickHouse: `sidecar ledger push`")

    @property
    def faults(self) -> list[str]:
        """Offsets between those that were pushed which were not."""
        return self._faults

    def refresh(self) -> bool:
        return False

    def explain(self, error: SinkError) -> SinkError:
        return error


def _gaps(listing: Listing, what: str) -> list[str]:
    return [
        f"{before.topic} partition {before.part}: offsets {before.last + 1} to {after.first - 1} {what}"
        for before, after in listing.gaps()
    ]
