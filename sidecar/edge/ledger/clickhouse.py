"""A connection to ClickHouse: a server over HTTP, or one in process (chDB). It has the methods of `engine.Engine`.

The client is the extra `clickhouse`. It is imported when a connection is opened, so that nothing else needs it. An
error names the host and what ClickHouse says, never the password.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from sidecar.core.errors import SinkError, StateError

CONNECT_SECONDS: Final = 10
_ANSWER_SECONDS: Final = 600
_MISSING: Final = "this command needs the client of ClickHouse: pip install 'metering-sidecar[clickhouse]'"
_URL: Final = "write https://user:password@host:8443/database"
_READING: Final = re.compile(r"(SELECT|WITH|EXPLAIN|DESCRIBE|SHOW|\()\b", re.IGNORECASE)

# With these, names and NULLs mean the same as in DuckDB.
_SETTINGS: Final = {"prefer_column_name_to_alias": 1, "cast_keep_nullable": 1, "join_use_nulls": 1}

# A file is one insert, in one block where the server has the memory, synchronous, over any number of months.
_INSERT_SETTINGS: Final = {
    "async_insert": 0,
    "insert_deduplicate": 1,
    "max_insert_block_size": 10_000_000,
    "min_insert_block_size_rows": 10_000_000,
    "min_insert_block_size_bytes": 0,
    "max_partitions_per_insert_block": 0,
}


def connection_options(url: str) -> dict[str, Any]:
    """The client's options for a URL, http, https or chdb. ValueError, without the URL: it is not one."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"is not a URL of ClickHouse: {_URL}") from None
    if parts.scheme == "chdb":
        database = parse_qs(parts.query).get("database", ["default"])[0]
        return {"interface": "chdb", "path": parts.path or ":memory:", "database": database}
    database = parts.path.strip("/")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or "/" in database:
        raise ValueError(f"is not a URL of ClickHouse: {_URL}")
    return {
        "interface": parts.scheme,
        "host": parts.hostname,
        "port": port or (8443 if parts.scheme == "https" else 8123),
        "username": unquote(parts.username or "default"),
        "password": unquote(parts.password or ""),
        "database": unquote(database) or "default",
        "autogenerate_session_id": False,  # a session binds to one server behind a balancer, and to one query at a time
        "send_receive_timeout": _ANSWER_SECONDS,
        "connect_timeout": CONNECT_SECONDS,
    }


class ClickHouse(AbstractContextManager["ClickHouse"]):
    """A connection. StateError: the extra is not installed. SinkError: the server cannot be used, and why."""

    def __init__(self, url: str) -> None:
        try:
            self._module: Any = import_module("clickhouse_connect")
        except ImportError:
            raise StateError(_MISSING) from None
        try:
            options = connection_options(url)
        except ValueError as error:
            raise SinkError(f"ledger.clickhouse.url {error}") from None
        self.place = f"{options['host']}:{options['port']}" if "host" in options else str(options["path"])
        self.database = str(options["database"])
        try:
            self._client: Any = self._connected(options)
            ((read_only,),) = self.run("SELECT value FROM system.settings WHERE name = 'readonly'")
        except self._errors as error:
            raise self._explain(error) from error
        self._is_read_only = read_only != "0"
        self.version = str(self._client.server_version)

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        return (self._module.driver.exceptions.ClickHouseError, OSError)

    def _connected(self, options: Mapping[str, Any]) -> Any:
        connect = self._module.get_client
        if options["interface"] != "chdb":
            return connect(**options, settings=_SETTINGS)
        first = connect(interface="chdb", path=options["path"])  # the database is made where it is new
        try:
            first.command(f"CREATE DATABASE IF NOT EXISTS {_quoted(str(options['database']))}")
            return connect(**options, settings=_SETTINGS)
        finally:
            first.close()

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of one statement; `?` are parameters. SinkError: it failed, with what ClickHouse says."""
        try:
            return [tuple(row) for row in self._client.query(*_bound(sql, parameters)).result_rows]
        except self._errors as error:
            raise self._explain(error) from error

    def execute(self, sql: str) -> None:
        """A statement without rows."""
        try:
            self._client.command(sql)
        except self._errors as error:
            raise self._explain(error) from error

    def stream(self, sql: str, parameters: Sequence[Any] = ()) -> tuple[list[str], Rows]:
        """The names of the columns, and a cursor with `fetchmany`. The server refuses whatever does not only read."""
        settings = {} if self._is_read_only else {"readonly": 1}
        bound, values = _bound(sql, parameters)
        try:
            blocks = self._client.query_row_block_stream(bound, values, settings=settings)
            names = list(blocks.source.column_names)
            if not names:  # an answer without rows has no header
                with blocks:
                    pass
                names = [row[0] for row in self.run(f"DESCRIBE TABLE ({sql})", parameters)]
                return names, Rows(self, iter(()))
        except self._errors as error:
            raise self._explain(error) from error
        return names, Rows(self, self._blocks(blocks))

    def _blocks(self, blocks: Any) -> Iterator[list[tuple[Any, ...]]]:
        try:
            with blocks:
                for block in blocks:
                    yield [tuple(row) for row in block]
        except self._errors as error:
            raise self._explain(error) from error

    def is_one_query(self, sql: str) -> bool:
        """Whether the text is a single statement that only reads. SinkError: it is not SQL."""
        try:
            ((plain,),) = self._client.query("SELECT formatQuery({p:String})", {"p": sql}).result_rows
        except self._errors as error:
            if "Multi-statements" in str(error):
                return False
            raise self._explain(error) from error
        return _READING.match(plain) is not None and "\nINTO OUTFILE" not in plain

    def restrict(self, folder: Path) -> None:
        """Each question is restricted by itself: `stream`."""

    def insert_file(self, table: str, columns: Sequence[str], path: Path, token: str) -> None:
        """Insert a Parquet file. ClickHouse ignores it if it has a block with this token already."""
        settings = {**_INSERT_SETTINGS, "insert_deduplication_token": token}
        try:
            with path.open("rb") as data:
                self._client.raw_insert(table, list(columns), data, settings, fmt="Parquet")
        except self._errors as error:
            raise self._explain(error) from error

    def close(self) -> None:
        """Close the connection."""
        with suppress(*self._errors):
            self._client.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _explain(self, error: Exception) -> SinkError:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return SinkError(f"ClickHouse at {self.place}: {lines[0]}")


class Rows:
    """The rows of an answer, read from the server block by block."""

    def __init__(self, engine: ClickHouse, blocks: Iterator[list[tuple[Any, ...]]]) -> None:
        self._engine = engine  # the stream reads its connection
        self._blocks = blocks

    def fetchmany(self, size: int) -> list[tuple[Any, ...]]:
        """The next block, whatever its size; empty at the end."""
        return next(self._blocks, [])

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All other rows."""
        return [row for block in self._blocks for row in block]


def _bound(sql: str, parameters: Sequence[Any]) -> tuple[str, dict[str, Any]]:
    """Each `?` as a parameter that the server binds."""
    if not parameters:
        return sql, {}
    first, *rest = sql.split("?")
    names = [f"p{number}" for number in range(len(rest))]
    places = [
        f"{{{name}:{'String' if isinstance(value, str) else 'Int64'}}}{text}"
        for name, value, text in zip(names, parameters, rest, strict=True)
    ]
    return first + "".join(places), dict(zip(names, parameters, strict=True))


def _quoted(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
