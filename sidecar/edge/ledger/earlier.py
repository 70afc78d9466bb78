"""The records that are in the ledger already: copies of them are marked, and corrections get their original's terms.

A batch is compared with the files of its own partition and with those that sink files were loaded into; a sink file's
batch with all files. Of these only the files are read whose ids, by the statistics of Parquet, can be in the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.core.errors import SinkError
from sidecar.edge.ledger.convert import HAS_CHANGES
from sidecar.edge.ledger.digests import explained
from sidecar.edge.ledger.files import FILE_TOPIC, LedgerFile, LedgerFolder
from sidecar.edge.ledger.schema import CHANGES, METERED, quoted, text

if TYPE_CHECKING:
    from sidecar.edge.ledger.engine import Engine

Range = tuple[str, str] | None  # of ids; None: not known
UNKNOWN: Final = "original unknown"
_TERMS: Final = ("period_us", "account", "key_id", "plan", "route", "billable", "model", "tier")  # of an original
_CHANGE: Final = "kind IN ('" + "', '".join(CHANGES) + "')"
_METERED: Final = "kind IN ('" + "', '".join(METERED) + "')"

# Of each change the original, through changes of changes of the same batch.
_ROOTS: Final = f"""CREATE OR REPLACE TEMP TABLE roots AS
    WITH RECURSIVE chain AS (
        SELECT "offset", "offset" AS place, cause FROM batch WHERE {_CHANGE}
        UNION ALL
        SELECT c."offset", b."offset", b.cause FROM chain c
        JOIN batch b ON b.id = c.cause AND b."offset" < c.place AND b.{_CHANGE})
    SELECT "offset", cause FROM chain QUALIFY row_number() OVER (PARTITION BY "offset" ORDER BY place) = 1"""


class Earlier:
    """The ids of the ledger's files, as far as they are needed. One object for each process that loads."""

    def __init__(self, engine: Engine, folder: LedgerFolder) -> None:
        self._engine = engine
        self._folder = folder
        self._ranges: dict[LedgerFile, Range] = {}

    def mark(self, topic: str, part: int) -> None:
        """Make the table `copies` (offsets in `batch`), and complete the changes in `batch`.

        A compaction may take files away meanwhile: then it is done again with those that are there.
        """
        while True:
            files = self._folder.listing().files
            self._ranges = {file: self._ranges[file] for file in files if file in self._ranges}
            try:
                self._mark(topic, part, files)
            except SinkError as error:
                if all(self._folder.at(file).exists() for file in files):
                    raise explained(error, self._folder, files) from error
            else:
                return

    def _mark(self, topic: str, part: int, files: list[LedgerFile]) -> None:
        candidates = [
            file
            for file in files
            if file[:2] == (topic, part) or file.topic.startswith(FILE_TOPIC) or topic.startswith(FILE_TOPIC)
        ]
        self._mark_copies(candidates)
        if self._engine.run(HAS_CHANGES)[0][0]:
            self._complete_changes(candidates)

    def _mark_copies(self, candidates: list[LedgerFile]) -> None:
        earlier = self._relation(candidates, "SELECT min(id), max(id) FROM batch")
        known = f' OR id IN (SELECT id FROM {earlier} WHERE "first")' if earlier else ""
        self._engine.run(
            'CREATE OR REPLACE TEMP TABLE copies AS SELECT "offset" FROM (SELECT "offset", id, row_number() OVER '
            f'(PARTITION BY id ORDER BY "offset") AS number FROM batch WHERE id IS NOT NULL) WHERE number > 1{known}'
        )

    def _complete_changes(self, candidates: list[LedgerFile]) -> None:
        run = self._engine.run
        run(_ROOTS)
        earlier = self._relation(candidates, "SELECT min(cause), max(cause) FROM roots")
        terms = ", ".join([quoted(name) for name in _TERMS])
        stored = (
            f'UNION ALL SELECT id, -1, {terms} FROM {earlier} WHERE "first" AND NOT "copy" AND {_METERED}'
            if earlier
            else ""
        )
        run(
            f"""CREATE OR REPLACE TEMP TABLE originals AS
            SELECT id, "offset" AS place, {terms} FROM batch WHERE {_METERED} AND NOT {_CHANGE} {stored}"""
        )
        updates = ", ".join([f"{quoted(name)} = o.{quoted(name)}" for name in _TERMS])
        run(
            f"""UPDATE batch SET {updates} FROM (
                SELECT r."offset" AS target, o.* FROM roots r
                JOIN originals o ON o.id = r.cause AND o.place < r."offset"
                QUALIFY row_number() OVER (PARTITION BY r."offset" ORDER BY o.place) = 1) o
            WHERE batch."offset" = o.target"""
        )
        run(
            f"""UPDATE batch SET reason = {text(UNKNOWN)} WHERE {_CHANGE} AND "offset" NOT IN (
                SELECT r."offset" FROM roots r JOIN originals o ON o.id = r.cause AND o.place < r."offset")"""
        )

    def _relation(self, candidates: list[LedgerFile], bounds: str) -> str:
        """The candidates that can hold an id within the bounds, as a relation; "": there is no such file."""
        low, high = self._engine.run(bounds)[0]
        if low is None:
            return ""
        self._learn(candidates)
        paths = [
            text(str(self._folder.at(file)))
            for file in candidates
            if (ids := self._ranges[file]) is None or (ids[0] <= high and ids[1] >= low)
        ]
        return f"read_parquet([{', '.join(paths)}], union_by_name = true)" if paths else ""

    def _learn(self, candidates: list[LedgerFile]) -> None:
        fresh = {str(self._folder.at(file)): file for file in candidates if file not in self._ranges}
        if not fresh:
            return
        paths = ", ".join(map(text, fresh))
        for path, low, high, is_known in self._engine.run(
            "SELECT file_name, min(stats_min_value), max(stats_max_value), "
            "bool_and(stats_min_value IS NOT NULL OR coalesce(stats_null_count, 0) = num_values) "
            f"FROM parquet_metadata([{paths}]) WHERE path_in_schema = 'id' GROUP BY 1"
        ):
            self._ranges[fresh[path]] = (low or "", high or "") if is_known else None
        for file in fresh.values():
            self._ranges.setdefault(file, None)
