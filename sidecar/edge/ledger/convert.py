"""From a batch of records to rows, in SQL alone: nothing is done for each record in Python.

A batch is a text file with a line for each record: its offset, the byte 1, the record's JSON. DuckDB parses it into
the table `batch` (a row for each record), says what is wrong with a record (`fault`), and makes `entries` of it (a row
for each usage line and meter).

Example: usage {"requests": 1, "tokens": 90} with one line of model `m` becomes (0, m, requests, 1) and (0, m, tokens,
90). With two lines that have usage {"tokens": 60} of `m` and {"tokens": 30} of `n`: (0, NULL, requests, 1), (0, m,
tokens, 60) and (1, n, tokens, 30). If the lines had 61 and 30: (0, NULL, requests, 1) and (0, NULL, tokens, 90), since
Σ units is the record's usage, whatever its lines have.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from sidecar.edge.ledger.lines import SEPARATOR
from sidecar.edge.ledger.schema import CHANGES, COLUMNS, METERED, SHAPE, quoted, text

REJECTED: Final = "rejected"
SEQUENCE_MAX: Final = 2**36 - 1  # as `records verify`; sums of the numbers' powers stay within 128 bits
_INTEGER_MAX: Final = 2**31 - 1
_LINES_MAX: Final = 1_000
_HIGHEST: Final = "map_values(TRY_CAST(json_extract(v, '$.data.highest') AS MAP(VARCHAR, BIGINT)))"
_TOTALS: Final = "map_values(TRY_CAST(json_extract(v, '$.data.totals') AS MAP(VARCHAR, HUGEINT)))"
_NOT_NUMBERS: Final = "k = 'checkpoint' AND coalesce(list_count({0}) <> len({0}), true)"
_KNOWN: Final = "usage unattributed denial checkpoint posting alert correction void".split()  # noqa: SIM905
_NEED_CUSTOMER: Final = "usage denial correction void posting denial-summary".split()  # noqa: SIM905

# Each record is held to these in this order; the first that fails is its fault. `u` are its units as numbers.
# `json_type` parses the record again, so it is asked only of those that lack a member.
_FAULTS: Final = (
    ("r IS NULL", "not JSON"),
    ("r.source IS NULL AND json_type(v) <> 'OBJECT'", "not a JSON object"),
    ("coalesce(r.source, '') = ''", "no source"),
    ("coalesce(r.id, '') = ''", "no id"),
    (
        f"NOT coalesce(TRY_CAST(r.sequence AS BIGINT), 0) BETWEEN 1 AND {SEQUENCE_MAX}",
        f"sequence: not a number from 1 to {SEQUENCE_MAX}",
    ),
    ("TRY_CAST(r.time AS TIMESTAMP) IS NULL", "time: not a time"),
    ("k = ''", "type: not sidecar.KIND.vN"),
    ("r.data.customer IS NULL AND json_type(v, '$.data') IS DISTINCT FROM 'OBJECT'", "data: not an object"),
    ("r.data.customer IS NULL AND k IN {needs}", "data.customer: missing"),
    (
        "r.data.period_time IS NOT NULL AND TRY_CAST(r.data.period_time AS TIMESTAMP) IS NULL",
        "data.period_time: not a time",
    ),
    ("r.data.billable IS NULL AND k IN ('usage', 'unattributed')", "data.billable: missing"),
    ("r.data.usage IS NULL AND k IN {metered}", "data.usage: missing, or not an object"),
    (
        "k IN {metered} AND (u::VARCHAR[] IS DISTINCT FROM w OR list_count(u) <> len(u))",
        "data.usage: units that are not integers of 64 bits",
    ),
    ("k IN ('usage', 'unattributed') AND list_min(u) < 0", "data.usage: units below 0"),
    (f"NOT coalesce(r.data.status, 0) BETWEEN 0 AND {_INTEGER_MAX}", "data.status: not a status"),
    (f"NOT coalesce(r.data.attempts, 0) BETWEEN 0 AND {_INTEGER_MAX}", "data.attempts: too many"),
    (f"len(r.data.usage_lines) > {_LINES_MAX}", f"data.usage_lines: more than {_LINES_MAX}"),
    (_NOT_NUMBERS.format(_HIGHEST), "data.highest: not whole numbers by stream"),
    (_NOT_NUMBERS.format(_TOTALS), "data.totals: not whole numbers by meter"),
)  # fmt: skip


def _listed(words: tuple[str, ...] | list[str]) -> str:
    return "(" + ", ".join([text(word) for word in words]) + ")"


def _fault() -> str:
    names = {"needs": _listed(_NEED_CUSTOMER), "metered": _listed(METERED)}
    return "CASE " + " ".join([f"WHEN {when.format(**names)} THEN {text(what)}" for when, what in _FAULTS]) + " END"


def _kind() -> str:
    known = " ".join([f"WHEN 'sidecar.{kind}.v1' THEN '{kind}'" for kind in _KNOWN])
    other = r"regexp_replace(regexp_extract(r.type, '^sidecar\.([a-z0-9.-]+\.v[0-9]+)$', 1), '\.v1$', '')"
    return f"CASE r.type {known} ELSE {other} END"


def read_lines(path: Path, longest: int) -> str:
    """The relation (o, v) of the lines of a batch: offset and JSON. `longest`: the bytes of the longest line."""
    size = max(2 << 20, longest + 64)
    columns = "columns={'o': 'BIGINT', 'v': 'VARCHAR'}"
    form = f"delim='{SEPARATOR}', quote='', escape='', header=false, auto_detect=false, new_line='\\n'"
    return f"read_csv({text(str(path))}, {columns}, {form}, max_line_size={size}, parallel=false)"


def batch_table(path: Path, longest: int, part: int) -> str:
    """SQL that makes the table `batch`: a row for each line, with all that is of the record and not of its rows."""
    shape = text(json.dumps(SHAPE))
    parsed = f"SELECT o, coalesce(v, '') AS v, TRY(json_transform(v, {shape})) AS r FROM {read_lines(path, longest)}"
    named = f"SELECT *, {_kind()} AS k, map_values(r.data.usage)::VARCHAR[] AS w FROM ({parsed})"
    counted = f"SELECT *, list_transform(w, lambda x: TRY_CAST(x AS BIGINT)) AS u FROM ({named})"
    judged = f"SELECT *, {_fault()} AS wrong FROM ({counted})"
    own = [f"{each.record} AS {quoted(each.name)}" for each in COLUMNS if each.record]
    is_metered = f"k IN {_listed(METERED)}"
    is_usage = "k IN ('usage', 'unattributed')"
    return f"""CREATE OR REPLACE TEMP TABLE batch AS SELECT
        {part} AS part, o AS "offset", {", ".join(own)},
        CASE WHEN wrong IS NULL THEN k ELSE '{REJECTED}' END AS kind,
        wrong AS fault,
        epoch_us(TRY_CAST(coalesce(r.data.period_time, r.time) AS TIMESTAMP)) AS period_us,
        CASE WHEN wrong IS NOT NULL THEN v WHEN {is_usage} THEN NULL
            ELSE json_extract(v, '$.data')::VARCHAR END AS data,
        CASE WHEN {is_metered} THEN map_keys(r.data.usage) END AS meters, CASE WHEN {is_metered} THEN u END AS amounts,
        coalesce(r.data.usage_lines[1].model, r.data.dims.model) AS model,
        CASE WHEN {is_metered} AND len(r.data.usage_lines) > 1 AND len(w) > 0 THEN r.data.usage_lines END AS lines
        FROM ({judged})"""


# A record whose line is not a record keeps nothing but its text: a half-read envelope would be in sums and joins.
CLEAR_REJECTED: Final = (
    "UPDATE batch SET "
    + ", ".join([f"{quoted(each.name)} = NULL" for each in COLUMNS if each.record])
    + f", period_us = NULL, meters = NULL, amounts = NULL, model = NULL, lines = NULL WHERE kind = '{REJECTED}'"
)

_BY_LINE: Final = """SELECT "offset", (number - 1)::SMALLINT AS line, line.model AS model,
    unnest(map_keys(line.usage)) AS meter, unnest(map_values(line.usage))::VARCHAR AS units
    FROM (SELECT "offset", unnest(lines) AS line, generate_subscripts(lines, 1) AS number
        FROM batch WHERE lines IS NOT NULL)"""

# The rows of records with several usage lines: those of the lines where they add up to the record's usage, else of its
# usage. Units of a meter that no line has are on line 0 and of no model.
SEVERAL_LINES: Final = f"""CREATE OR REPLACE TEMP TABLE several AS
    WITH own AS (SELECT "offset", unnest(meters) AS meter, unnest(amounts) AS units FROM batch WHERE lines IS NOT NULL),
    parts AS ({_BY_LINE}),
    sums AS (SELECT "offset", meter, sum(TRY_CAST(units AS BIGINT)) AS units,
        bool_and(TRY_CAST(units AS BIGINT) IS NOT NULL AND TRY_CAST(units AS BIGINT)::VARCHAR = units) AS exact
        FROM parts GROUP BY ALL),
    wrong AS (SELECT DISTINCT "offset" FROM sums FULL JOIN own USING ("offset", meter)
        WHERE sums.units IS NOT NULL AND (own.units IS NULL OR sums.units <> own.units) OR NOT sums.exact),
    chosen AS (
        SELECT "offset", line, model, meter, units::BIGINT AS units FROM parts WHERE "offset" NOT IN (FROM wrong)
        UNION ALL
        SELECT "offset", 0, NULL, meter, units FROM own
        WHERE "offset" IN (FROM wrong) OR ("offset", meter) NOT IN (SELECT ("offset", meter) FROM sums))
    SELECT *, row_number() OVER (PARTITION BY "offset" ORDER BY line, meter, model NULLS FIRST) = 1 AS first
    FROM chosen"""

_LISTS: Final = "meters, amounts, lines"
_METERS: Final = "coalesce(nullif(meters, []), [NULL])"  # a record without usage has one row
ENTRIES: Final = f"""
    SELECT * EXCLUDE ({_LISTS}), 0 AS line, unnest({_METERS}) AS meter,
        unnest(coalesce(nullif(amounts, []), [NULL])) AS units, generate_subscripts({_METERS}, 1) = 1 AS first
        FROM batch WHERE lines IS NULL
    UNION ALL BY NAME
    SELECT b.* EXCLUDE ({_LISTS}, model), e.* EXCLUDE ("offset") FROM batch b JOIN several e USING ("offset")"""
HAS_CHANGES: Final = f"SELECT count(*) FROM batch WHERE kind IN {_listed(CHANGES)}"


def rows() -> str:
    """The rows of `batch`, with all columns by name, in their order; the table `copies` has offsets of copies."""
    made = []
    for each in COLUMNS:
        name = quoted(each.name)
        if each.name == "copy":
            made.append('"offset" IN (FROM copies) AS copy')
        elif each.is_once:
            made.append(f"CASE WHEN first THEN {name} END::{each.type} AS {name}")
        else:
            made.append(f"{name}::{each.type} AS {name}")
    return f"SELECT {', '.join(made)} FROM ({ENTRIES})"
