"""The differences of the SQL of DuckDB and ClickHouse: names of types and functions. All other SQL is one text.

To keep it so: `FILTER (WHERE …)`, `coalesce`, `count(DISTINCT …)`, `GROUP BY ALL`, `ORDER BY ALL`, `::BIGINT`, names in
double quotes, `?` for parameters; `x - x % n` instead of a division of integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from sidecar.edge.ledger.schema import text


class Dialect(NamedTuple):
    """Names and forms of one engine. `wide`: integers of 128 bits. `arg_max`: the first argument at the highest second.

    `divide`: of integers, rounded towards 0. `format_time`: µs since 1970 in UTC, by a form of strftime.
    `member`: of the column `data`, by the names on its path, as a type of DuckDB; NULL where it is missing.
    """

    name: str
    wide: str
    arg_max: str
    divide: Callable[[str, str], str]
    format_time: Callable[[str, str], str]
    member: Callable[[tuple[str, ...], str], str]


def _duckdb_member(path: tuple[str, ...], type_: str) -> str:
    place = text("$." + ".".join(path))
    if type_ == "JSON":
        return f"data->{place}"
    if type_.startswith("MAP"):
        return f"TRY_CAST(data->{place} AS {type_})"
    return f"TRY_CAST(data->>{place} AS {type_})"


# A member that is not a number of this type, or not true or false, is NULL, as TRY_CAST makes it.
_CLICKHOUSE_CASTS: Final = {
    "VARCHAR": "{}",
    "JSON": "{}",
    "TINYINT": "toInt8OrNull({})",
    "INTEGER": "toInt32OrNull({})",
    "BIGINT": "toInt64OrNull({})",
    "BOOLEAN": "accurateCastOrNull({}, 'Bool')",
}
_CLICKHOUSE_MAPS: Final = {
    "MAP(VARCHAR, BIGINT)": "Map(String, Int64)",
    "MAP(VARCHAR, HUGEINT)": "Map(String, Int128)",
}


def _clickhouse_member(path: tuple[str, ...], type_: str) -> str:
    place = ", ".join(["ifNull(data, '')", *map(text, path)])
    if type_ in _CLICKHOUSE_MAPS:  # a map cannot be NULL: without the member it is empty
        return f"JSONExtract({place}, '{_CLICKHOUSE_MAPS[type_]}')"
    raw = f"JSONExtractRaw({place})"
    plain = raw if type_ == "JSON" else f"if(JSONType({place}) = 'String', JSONExtractString({place}), {raw})"
    null = f"NOT JSONHas({place})" if type_ == "JSON" else f"JSONType({place}) = 'Null'"
    return _CLICKHOUSE_CASTS[type_].format(f"if({null}, NULL, {plain})")


DUCKDB: Final = Dialect(
    "duckdb",
    "HUGEINT",
    "arg_max",
    "(({}) // ({}))".format,
    "strftime(make_timestamp({}), '{}')".format,
    _duckdb_member,
)
CLICKHOUSE: Final = Dialect(
    "clickhouse",
    "Int128",
    "argMax",
    "intDiv({}, {})".format,
    "formatDateTime(fromUnixTimestamp64Micro({}, 'UTC'), '{}')".format,
    _clickhouse_member,
)
