"""The columns of the ledger: one table, of which the SQL that writes files, the views and docs/ledger.md are made.

A file has a row for each record, usage line and meter. Σ units over the rows of a record is its `usage`, always. To add
a column: a row here, with what it is made of (`record`: SQL over a parsed record `r`, or a column of the batch). Files
that were written before have NULL there, because all are read by name.
"""

from __future__ import annotations

from typing import Final, NamedTuple

FORMAT: Final = 1  # of files and folder; it is raised when a reader of the one before would read wrong sums
ROW_GROUP_ROWS: Final = 122_880
METERED: Final = ("usage", "unattributed", "correction", "void")  # kinds with a row for each meter
CHANGES: Final = ("correction", "void")
REPEATED: Final = ("alert", "posting")  # kinds whose id is made of what they say: a copy is not a fault


class Column(NamedTuple):
    """A column. `record`: SQL over the parsed record `r`, evaluated once for each record; "": the rows have it.

    `is_once`: only on the row of a record with `first`, so that a sum over rows is a sum over records.
    """

    name: str
    type: str
    meaning: str
    record: str = ""
    is_once: bool = False


COLUMNS: Final = (
    Column("part", "INTEGER", "the partition; 0 of a file"),
    Column("offset", "BIGINT", "in the partition; in a file the place of the line, in bytes"),
    Column("source", "VARCHAR", "the producer", "r.source"),
    Column("sequence", "BIGINT", "number in that source", "TRY_CAST(r.sequence AS BIGINT)"),
    Column("id", "VARCHAR", "of the record", "r.id"),
    Column("kind", "VARCHAR", "usage, unattributed, denial and so on; rejected: not a record"),
    Column("cause", "VARCHAR", "the id of the record that led to this one", "r.causationid"),
    Column("copy", "BOOLEAN", "an earlier record has this id: in no sum"),
    Column("first", "BOOLEAN", "true on exactly one row of each record: count these"),
    Column("time_us", "BIGINT", "when it became final, µs since 1970", "epoch_us(TRY_CAST(r.time AS TIMESTAMP))"),
    Column("period_us", "BIGINT", "period_time, else time: the period that it belongs to"),
    Column("account", "VARCHAR", "the account; by default the customer", "coalesce(r.data.account, r.data.customer)"),
    Column("customer", "VARCHAR", "who pays", "r.data.customer"),
    Column("subject", "VARCHAR", "who used it", "r.subject"),
    Column("key_id", "VARCHAR", "the API key", "r.data.key_id"),
    Column("plan", "VARCHAR", "the terms, as id@version", "r.data.plan"),
    Column("route", "VARCHAR", "the route's id", "r.data.route"),
    Column("method", "VARCHAR", "of the request", "r.data.method"),
    Column("path", "VARCHAR", "in normal form, without the query", "r.data.path"),
    Column("status", "INTEGER", "what was answered", "r.data.status"),
    Column("origin", "VARCHAR", "proxied, authorized or ingested", "r.data.origin"),
    Column("outcome", "VARCHAR", "ok, or how it ended", "r.data.outcome"),
    Column("quality", "VARCHAR", "exact, provider_reported, estimated or partial", "r.data.quality"),
    Column("billable", "BOOLEAN", "whether it is billed", "r.data.billable"),
    Column(
        "reason",
        "VARCHAR",
        "why it is billed or not, or was changed; of a summary of denials, the problem; `original unknown`: see below",
        "coalesce(r.data.billable_reason, r.data.reason)",
    ),
    Column("line", "SMALLINT", "the usage line, from 0"),
    Column("model", "VARCHAR", "of the usage line; NULL: the units belong to no model"),
    Column("tier", "VARCHAR", "the service tier of the answer", "r.data.dims.service_tier"),
    Column("meter", "VARCHAR", "what is counted"),
    Column("units", "BIGINT", "of the meter; of a correction or void, signed"),
    Column("duration_us", "BIGINT", "from arrival to end", "r.data.duration_us", True),
    Column("upstream_us", "BIGINT", "from sending upstream to the end of its answer", "r.data.upstream_us", True),
    Column("bytes_in", "BIGINT", "of the request's body", "r.data.bytes_in", True),
    Column("bytes_out", "BIGINT", "of the answer's body", "r.data.bytes_out", True),
    Column("attempts", "INTEGER", "times the upstream was asked", "r.data.attempts", True),
    Column("client_disconnected", "BOOLEAN", "the client went before the end", "r.data.client_disconnected", True),
    Column("parent", "VARCHAR", "the exchange that this is a part of", "r.data.parent"),
    Column("upstream_request_id", "VARCHAR", "what the upstream calls it", "r.data.upstream_request_id", True),
    Column("client_request_id", "VARCHAR", "what a trusted proxy calls it", "r.data.client_request_id", True),
    Column("traceparent", "VARCHAR", "of the request", "r.traceparent", True),
    Column("decision", "VARCHAR", "the limits that were checked (JSON)", "r.data.decision", True),
    Column("data", "VARCHAR", "of other kinds than usage, the data (JSON); of a rejected one, its text", "", True),
    Column("fault", "VARCHAR", "of a rejected one: what is wrong", "", True),
)
NAMES: Final = tuple([column.name for column in COLUMNS])
ORDER: Final = ("kind", "customer", "meter", "period_us", "offset", "line", "model")

_TEXT: Final = "VARCHAR"
_DATA_TEXTS: Final = (
    "customer", "account", "key_id", "plan", "route", "method", "path", "origin", "outcome", "quality",
    "billable_reason", "reason", "parent", "upstream_request_id", "client_request_id", "period_time",
)  # fmt: skip
_DATA_NUMBERS: Final = ("status", "duration_us", "upstream_us", "bytes_in", "bytes_out", "attempts")
_LINE: Final = {"model": _TEXT, "usage": "MAP(VARCHAR, JSON)"}

# The members that are read of a record, as json_transform of DuckDB takes it. A member of another type is NULL.
SHAPE: Final = {
    **dict.fromkeys(("type", "source", "id", "subject", "time", "sequence", "causationid", "traceparent"), _TEXT),
    "data": {
        **dict.fromkeys(_DATA_TEXTS, _TEXT),
        **dict.fromkeys(_DATA_NUMBERS, "BIGINT"),
        "billable": "BOOLEAN",
        "client_disconnected": "BOOLEAN",
        "usage": "MAP(VARCHAR, JSON)",
        "dims": {"model": _TEXT, "service_tier": _TEXT},
        "usage_lines": [_LINE],
        "decision": "JSON",
    },
}


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A text as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"


def selection(alias: str = "") -> str:
    """All columns with their types, of what has them by name."""
    before = f"{alias}." if alias else ""
    return ", ".join([f"{before}{quoted(each.name)}::{each.type} AS {quoted(each.name)}" for each in COLUMNS])


def ordering(alias: str = "") -> str:
    """The order of rows in a file: total, so that equal batches are equal files."""
    before = f"{alias}." if alias else ""
    return ", ".join([f"{before}{quoted(name)} NULLS FIRST" for name in ORDER])


def empty() -> str:
    """A relation with all columns and no row."""
    nulls = ", ".join([f"NULL::{each.type} AS {quoted(each.name)}" for each in COLUMNS])
    return f"(SELECT {nulls} WHERE false)"
