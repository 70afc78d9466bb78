"""Opens the Parquet files of a ledger as one relation, `ledger`, with the columns of its rows and their `topic`.

Only the names of whole files are read. DuckDB is the extra `billing`; it is imported when a ledger is opened.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from sidecar.core.errors import SinkError, StateError

MEMORY: Final = "1GB"
_NAME: Final = re.compile(r"p(\d{4,})\.(\d{18})-(\d{18})\.parquet")


class Engine(Protocol):
    """A connection that has the relation `ledger`."""

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of one statement. SinkError: it failed."""


class LedgerRows(NamedTuple):
    """An open ledger. `files`: topic/name of each, sorted. `faults`: files that could not be read, in words."""

    folder: Path
    engine: Engine
    files: tuple[str, ...]
    faults: tuple[str, ...] = ()

    def positions(self) -> dict[str, int]:
        """The last offset that is here, by topic and partition as in `usage.records/p0007`."""
        last: dict[str, int] = {}
        for name in self.files:
            topic, _, file = name.rpartition("/")
            part, _, rest = file.partition(".")
            end = int(rest.partition("-")[2].partition(".")[0])
            last[f"{topic}/{part}"] = max(end, last.get(f"{topic}/{part}", -1))
        return last


class _DuckDb:
    def __init__(self, memory: str) -> None:
        try:
            self._duckdb: Any = import_module("duckdb")
        except ImportError:
            raise StateError("this command needs DuckDB: pip install 'metering-sidecar[billing]'") from None
        self.spill = tempfile.TemporaryDirectory(prefix="sidecar-ledger-")
        options = {"memory_limit": memory, "preserve_insertion_order": False, "temp_directory": self.spill.name}
        self.connection = self._duckdb.connect(config=options)

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return list(self.connection.execute(sql, list(parameters)).fetchall())
        except self._duckdb.Error as error:
            raise SinkError(f"DuckDB: {str(error).strip()}") from error


@contextmanager
def open_ledger(folder: Path, memory: str = MEMORY) -> Iterator[LedgerRows]:
    """The ledger at `folder`. SinkError: there is not one."""
    if not folder.is_dir():
        raise SinkError(f"{folder}: there is no ledger: `sidecar ledger load` makes one, or set ledger.dir")
    paths = sorted(path for path in folder.glob("*/p*.parquet") if _NAME.fullmatch(path.name))
    if not paths:
        raise SinkError(f"{folder}: the ledger has no records yet: `sidecar ledger load` loads them")
    engine = _DuckDb(memory)
    try:
        listed = ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths)
        topic = r"regexp_extract(filename, '([^/]+)/[^/]+$', 1) AS topic"
        engine.run(
            f"CREATE TEMP VIEW ledger AS SELECT {topic}, * EXCLUDE (filename) "
            f"FROM read_parquet([{listed}], union_by_name = true, filename = true)"
        )
        yield LedgerRows(folder, engine, tuple(f"{path.parent.name}/{path.name}" for path in paths))
    finally:
        engine.connection.close()
        engine.spill.cleanup()
