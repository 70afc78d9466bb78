"""Brings the ledger's files into ClickHouse: each offset once. It can be killed at any point.

ClickHouse says which offsets it has. Of a compacted file, which covers such offsets, only the others are inserted.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from sidecar.core.errors import SinkError
from sidecar.edge.ledger.clickhouse_tables import ClickHouseTables, Pushed, extract
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import LedgerFile, LedgerFolder
from sidecar.edge.ledger.views import readable
from sidecar.ledger.report import Progress

FOLLOW_SECONDS: Final = 10
_NAMES: Final = 1_000  # of the last files


class PushOptions(NamedTuple):
    """How to push. `stop` is asked between files; the others get each insert, and how far each partition is."""

    stop: Callable[[], bool] = lambda: False
    on_insert: Callable[[Pushed], None] = lambda _: None
    on_progress: Callable[[Progress], None] = lambda _: None


class Push:
    """Counts of one run. `faults` are files that were refused."""

    def __init__(self) -> None:
        self.files = 0
        self.rows = 0
        self.last: list[Pushed] = []
        self.faults: list[str] = []

    def add(self, pushed: Pushed) -> None:
        """Count what was inserted."""
        self.files += 1
        self.rows += pushed.rows
        self.last = [*self.last[1 - _NAMES :], pushed]

    def fault(self, text: str) -> None:
        """Note what was refused, once."""
        if text not in self.faults:
            self.faults.append(text)

    def as_json(self) -> dict[str, Any]:
        """The run as a document."""
        last = [each._asdict() for each in self.last]
        return {"files": self.files, "rows": self.rows, "last": last, "faults": self.faults}


def push(
    folder: LedgerFolder,
    engine: Engine,
    tables: ClickHouseTables,
    done: Push,
    options: PushOptions = PushOptions(),  # noqa: B008 - a value
) -> None:
    """Insert all that is new, and count it in `done`. SinkError: ClickHouse or the folder failed."""
    if not folder.identity():
        raise SinkError(f"{folder.path}: not a ledger: `sidecar ledger load` makes one, or set ledger.dir")
    tables.create()
    ranges: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for each in tables.pushed():
        ranges[each.topic, each.part].append((each.first, each.last))
    listing = folder.listing()
    missing = {file: missing_ranges(file, ranges[file.topic, file.part]) for file in listing.files}
    new = readable(engine, folder, listing._replace(files=[file for file, parts in missing.items() if parts]))
    for name, why in new.refused:
        done.fault(f"{name}: {why}")
    ends = {(file.topic, file.part): file.last + 1 for file in new.files}
    begins = {(file.topic, file.part): missing[file][0][0] for file in reversed(new.files)}
    for place, begin in begins.items():
        options.on_progress(Progress(*place, begin, ends[place]))
    with tempfile.TemporaryDirectory(prefix="sidecar-push-") as work:
        for file in new.files:
            for first, last in missing[file]:
                if options.stop():
                    return
                pushed = Pushed(file.topic, file.part, first, last, 0)
                path = Path(work) / "rows.parquet"
                try:
                    pushed = extract(engine, folder.at(file), pushed, path)
                except SinkError as error:
                    if folder.at(file).exists():  # else it was compacted since: the next run has what covers it
                        done.fault(f"{file}: {error}")
                    break
                tables.insert(path, pushed, _token(file, pushed))
                done.add(pushed)
                options.on_insert(pushed)
                options.on_progress(Progress(file.topic, file.part, last + 1, ends[file.topic, file.part]))


def missing_ranges(file: LedgerFile, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The offsets of a file, as ranges with both ends, that are in none of `ranges`."""
    missing, start = [], file.first
    for first, last in sorted(ranges):
        if last < start:
            continue
        if first > file.last:
            break
        if first > start:
            missing.append((start, first - 1))
        start = last + 1
    if start <= file.last:
        missing.append((start, file.last))
    return missing


def _token(file: LedgerFile, pushed: Pushed) -> str:
    """The file's name, and what of it, so that a repeated insert is known."""
    if (pushed.first, pushed.last) == (file.first, file.last):
        return str(file)
    return f"{file} {pushed.first}-{pushed.last}"
