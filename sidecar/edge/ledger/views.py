"""The views of a connection: the face of `sidecar ledger query`. Each is a name for a part of the ledger's rows.

`ledger` has every row of every file, with `topic` from the folder. The others are made of it, and of the columns of
`data` that their kind has. A file that is not of the ledger, or damaged, is left out, and reported.
"""

from __future__ import annotations

from typing import Final

from sidecar.core.errors import SinkError
from sidecar.edge.ledger.dialects import DUCKDB, Dialect
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import LedgerFile, LedgerFolder, Listing
from sidecar.edge.ledger.schema import METERED, NAMES, empty, quoted, selection, text
from sidecar.edge.ledger.writer import FORMAT_KEY

_METERED: Final = ", ".join(map(text, METERED))
_BATCH: Final = 512  # files in one question about their footers

# A member of `data` as a column: its name and type.
_POSTING: Final = (
    ("unit", "VARCHAR"), ("digits", "TINYINT"), ("change", "VARCHAR"), ("delta", "BIGINT"), ("balance", "BIGINT"),
    ("grant", "VARCHAR"), ("priority", "INTEGER"), ("starts", "VARCHAR"), ("expires", "VARCHAR"), ("charges", "JSON"),
    ("actor", "VARCHAR"),
)  # fmt: skip
_CHECKPOINT: Final = (
    ("highest", "MAP(VARCHAR, BIGINT)"), ("totals", "MAP(VARCHAR, HUGEINT)"), ("open_exchanges", "BIGINT"),
    ("backlog_bytes", "BIGINT"), ("unrecorded", "BIGINT"), ("degraded_s", "BIGINT"), ("policy", "VARCHAR"),
    ("denials", "BIGINT"), ("oldest_open", "VARCHAR"), ("final", "BOOLEAN"),
)  # fmt: skip
_SOURCE: Final = (
    ("state", "VARCHAR"), ("about", "VARCHAR"), ("version", "VARCHAR"), ("predecessor", "VARCHAR"),
    ("highest", "MAP(VARCHAR, BIGINT)"), ("actor", "VARCHAR"),
)  # fmt: skip
_DENIAL: Final = (
    ("limit", "VARCHAR"), ("count", "BIGINT"), ("violated", "VARCHAR"), ("first_denial", "VARCHAR"),
    ("last_denial", "VARCHAR"),
)  # fmt: skip
_ALERT: Final = (
    ("limit", "VARCHAR"), ("scope", "VARCHAR"), ("unit", "VARCHAR"), ("digits", "TINYINT"), ("period", "VARCHAR"),
    ("percent", "INTEGER"), ("used", "BIGINT"), ("amount", "BIGINT"),
)  # fmt: skip
_POLICY: Final = (
    ("policy", "VARCHAR"), ("state", "VARCHAR"), ("files", "JSON"), ("plans", "JSON"), ("faults", "JSON"),
    ("actor", "VARCHAR"),
)  # fmt: skip
_AUDIT: Final = (
    ("action", "VARCHAR"), ("actor", "VARCHAR"), ("target", "VARCHAR"), ("via", "VARCHAR"), ("state", "VARCHAR"),
    ("before", "JSON"), ("after", "JSON"),
)  # fmt: skip
_PATHS: Final = {"violated": ("decision", "violated"), "first_denial": ("first",), "last_denial": ("last",)}


def _members(members: tuple[tuple[str, str], ...], dialect: Dialect) -> str:
    return ", ".join([f'{dialect.member(_PATHS.get(name, (name,)), type_)} AS "{name}"' for name, type_ in members])


def posting_columns() -> str:
    """The members of a posting's `data` as columns."""
    return _members(_POSTING, DUCKDB)


_ENVELOPE: Final = (
    'topic, part, "offset", source, sequence, id, cause, time_us, period_us, account, customer, subject, key_id, plan, '
    "route, method, path, status, reason, meter, data"
)

_OF_KINDS: Final = (
    ("denials", "denials, and summaries of many (count)", "'denial', 'denial-summary'", _DENIAL),
    ("postings", "changes of wallets; `change` is the kind", "'posting'", _POSTING),
    ("checkpoints", "states of workers", "'checkpoint'", _CHECKPOINT),
    ("sources", "starts and ends of sources", "'source'", _SOURCE),
    ("alerts", "thresholds that were passed", "'alert'", _ALERT),
    ("audits", "acts of operators", "'audit'", _AUDIT),
    ("policies", "policies that were applied or refused", "'policy'", _POLICY),
)
_USAGE: Final = ", ".join(["topic", *[quoted(name) for name in NAMES if name not in {"data", "fault"}]])


def views_of(dialect: Dialect) -> dict[str, tuple[str, str]]:
    """Each view's name, and what it has, and its SQL on the relation `ledger`."""
    return {
        "usage": (
            "usage, unattributed usage, corrections and voids: a row for each meter",
            f'SELECT {_USAGE} FROM ledger WHERE kind IN ({_METERED}) AND NOT "copy"',
        ),
        **{
            view: (
                about,
                f'SELECT {_ENVELOPE}, {_members(members, dialect)} FROM ledger WHERE kind IN ({kinds}) AND NOT "copy"',
            )
            for view, about, kinds, members in _OF_KINDS
        },
        "rejected": (
            "what is not a record, with its text and what is wrong",
            "SELECT topic, part, \"offset\", fault, data FROM ledger WHERE kind = 'rejected'",
        ),
        "copies": ("records whose id an earlier one has", 'SELECT * FROM ledger WHERE "copy" AND "first"'),
        "records": ("every record of every kind once", 'SELECT * FROM ledger WHERE "first"'),
    }


VIEWS: Final = views_of(DUCKDB)


def create_views(engine: Engine, folder: LedgerFolder, listing: Listing | None = None) -> Listing:
    """Make `ledger` and the views of it on this connection; the files that they read, and what was refused."""
    listing = readable(engine, folder, listing)
    if listing.files:
        paths = ", ".join([text(str(folder.at(file))) for file in listing.files])
        topic = r"regexp_extract(filename, '([^/]+)/[^/]+$', 1) AS topic"
        source = f"(SELECT {topic}, {selection()} FROM read_parquet([{paths}], union_by_name = true, filename = true))"
    else:
        source = f"(SELECT NULL::VARCHAR AS topic, * FROM {empty()})"
    engine.run(f"CREATE OR REPLACE TEMP VIEW ledger AS FROM {source}")
    for name, (_, sql) in VIEWS.items():
        engine.run(f"CREATE OR REPLACE TEMP VIEW {name} AS {sql}")
    return listing


def readable(engine: Engine, folder: LedgerFolder, listing: Listing | None = None) -> Listing:
    """The listing without files whose footer is damaged or not of the ledger; these are refused."""
    listing = listing or folder.listing()
    whole: list[LedgerFile] = []
    for start in range(0, len(listing.files), _BATCH):
        batch = listing.files[start : start + _BATCH]
        try:
            of_ledger = _of_ledger(engine, folder, batch)
        except SinkError:
            of_ledger = {path for file in batch for path in _check_one(engine, folder, file, listing)}
        for file in batch:
            if str(folder.at(file)) in of_ledger:
                whole.append(file)
            elif not any(name == str(file) for name, _ in listing.refused):
                listing.refused.append((str(file), "not a file of the ledger"))
    return listing._replace(files=whole)


def _of_ledger(engine: Engine, folder: LedgerFolder, files: list[LedgerFile]) -> set[str]:
    paths = ", ".join([text(str(folder.at(file))) for file in files])
    return {
        path
        for (path,) in engine.run(f"SELECT file_name FROM parquet_kv_metadata([{paths}]) WHERE key = '{FORMAT_KEY}'")
    }


def _check_one(engine: Engine, folder: LedgerFolder, file: LedgerFile, listing: Listing) -> set[str]:
    try:
        return _of_ledger(engine, folder, [file])
    except SinkError as error:
        if folder.at(file).exists():  # else it was compacted since
            listing.refused.append((str(file), f"damaged: {str(error).splitlines()[0]}"))
        return set()
