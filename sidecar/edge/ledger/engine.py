"""A connection of DuckDB: in memory, with a bound on memory, one place for what it cannot hold, and no network.

DuckDB is the extra `billing`. It is imported when a connection is opened, so that nothing else needs it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from sidecar.core.errors import SinkError, StateError
from sidecar.edge.files import is_locked, lock_file

MEMORY: Final = "1GB"
_SPILL: Final = ".spill-"
_MISSING: Final = "this command needs DuckDB: pip install 'metering-sidecar[billing]'"


class Engine(AbstractContextManager["Engine"]):
    """A connection. `close` also removes what it spilled to disk.

    `folder`: where it spills, and where files of killed processes are removed; without one, the system's temporary
    folder. StateError: the extra is not installed.
    """

    def __init__(self, *, folder: Path | None = None, threads: int = 1, memory: str = MEMORY) -> None:
        try:
            self._duckdb: Any = import_module("duckdb")
        except ImportError:
            raise StateError(_MISSING) from None
        self._is_restricted = False
        self._spill = Path(tempfile.mkdtemp(prefix=_SPILL, dir=_cleared(folder)))
        self._lock = lock_file(self._spill / "lock")
        self._connection = self._duckdb.connect(
            config={
                "threads": threads,
                "memory_limit": memory,
                "temp_directory": str(self._spill),
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            }
        )

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of one statement. SinkError: it failed, with what DuckDB says."""
        try:
            return list(self._connection.execute(sql, list(parameters)).fetchall())
        except self._duckdb.Error as error:
            raise self._explain(error) from error

    def stream(self, sql: str, parameters: Sequence[Any] = ()) -> tuple[list[str], Any]:
        """The names of the columns, and a cursor with `fetchmany`."""
        try:
            cursor = self._connection.execute(sql, list(parameters))
        except self._duckdb.Error as error:
            raise self._explain(error) from error
        return [each[0] for each in cursor.description or ()], cursor

    def is_one_query(self, sql: str) -> bool:
        """Whether the text is a single statement that only reads. SinkError: it is not SQL."""
        try:
            statements = self._connection.extract_statements(sql)
        except self._duckdb.Error as error:
            raise self._explain(error) from error
        reading = (self._duckdb.StatementType.SELECT, self._duckdb.StatementType.EXPLAIN)
        return len(statements) == 1 and statements[0].type in reading

    def restrict(self, folder: Path) -> None:
        """From now on only files in `folder` can be read, and no setting can be changed."""
        if self._is_restricted:
            return
        self._is_restricted = True
        self.run(f"SET allowed_directories = ['{str(folder.absolute()).replace(chr(39), chr(39) * 2)}/']")
        self.run("SET enable_external_access = false")
        self.run("SET lock_configuration = true")

    def interrupt(self) -> None:
        """End what runs, from another thread or a signal handler."""
        self._connection.interrupt()

    def close(self) -> None:
        """Close, and remove what was spilled."""
        self._connection.close()
        os.close(self._lock)
        shutil.rmtree(self._spill, ignore_errors=True)

    def __exit__(self, *_: object) -> None:
        self.close()

    def _explain(self, error: Exception) -> SinkError:
        text = str(error).strip()
        if isinstance(error, self._duckdb.OutOfMemoryException):
            return SinkError(f"DuckDB: {text.splitlines()[0]}: set ledger.memory higher")
        return SinkError(f"DuckDB: {text}")


def _cleared(folder: Path | None) -> Path | None:
    """The folder, without what killed processes have spilled there."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(_SPILL + "*"):
            if (old / "lock").exists() and not is_locked(old / "lock"):
                shutil.rmtree(old, ignore_errors=True)
    return folder
