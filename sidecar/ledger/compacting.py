"""Joins small files of a partition, and removes files that need not be retained.

The union is written first, then its parts are deleted: in between the larger range covers them, so a kill changes no
sum. The last file of a partition always stays, because its name says where loading goes on. A file is deleted only
after the one that covers it was proven to be whole, and to have the same rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from sidecar.core.errors import SinkError
from sidecar.edge.files import OwnedError
from sidecar.edge.ledger.digests import damaged_files
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import COMPACTING, LedgerFile, LedgerFolder
from sidecar.edge.ledger.schema import ordering, selection, text
from sidecar.edge.ledger.views import readable
from sidecar.edge.ledger.writer import TAIL_KEY, copy_options, metadata_of

MAX_ROWS: Final = 2_000_000
_DAY_US: Final = 86_400_000_000
_SUMS: Final = 'SELECT count(*), sum(units), count(*) FILTER ("first"), sum(hash(id, sequence, meter, line)) FROM'


class Facts(NamedTuple):
    """Of a file, from its footer: rows, the day of its first record, and the latest time in it (µs since 1970)."""

    rows: int
    day: int
    latest_us: int


class Compaction(NamedTuple):
    """Unions with their number of parts, files that were removed, and what was refused."""

    joined: list[tuple[LedgerFile, int]]
    removed: list[LedgerFile]
    faults: list[str]

    def as_json(self) -> dict[str, Any]:
        """The report as a document."""
        return {
            "joined": [{"file": str(file), "parts": parts} for file, parts in self.joined],
            "removed": [str(file) for file in self.removed],
            "faults": self.faults,
        }


class Retention(NamedTuple):
    """Records of periods that ended before these times (µs since 1970) may go; 0: none. By topic, else `default_us`."""

    default_us: int = 0
    by_topic: Mapping[str, int] = {}

    def before(self, topic: str) -> int:
        """The time for a topic."""
        return self.by_topic.get(topic, self.default_us)


def compact(
    folder: LedgerFolder, engine: Engine, retention: Retention, *, max_rows: int = MAX_ROWS,
    stop: Callable[[], bool] = lambda: False,
) -> Compaction:  # fmt: skip
    """Compact each partition that no other process compacts."""
    done = Compaction([], [], [])
    listing = readable(engine, folder)
    done.faults.extend([f"{name}: {why}" for name, why in listing.refused])
    for topic, part in sorted({file[:2] for file in listing.files}):
        if stop():
            break
        try:
            lock = folder.lock(topic, part, COMPACTING)
        except OwnedError as owned:
            done.faults.append(f"{owned}: not compacted")
            continue
        try:
            _compact_partition(folder, engine, (topic, part), max_rows, done)
            _retire(folder, engine, (topic, part), retention.before(topic), done)
        except SinkError as error:
            done.faults.append(f"{topic} partition {part}: {error}")
        finally:
            folder.clear_work(topic, part, "union")
            os.close(lock)
    return done


def _compact_partition(
    folder: LedgerFolder, engine: Engine, place: tuple[str, int], max_rows: int, done: Compaction
) -> None:
    listing = folder.listing()
    files = listing.of(*place)
    covered = [file for file in listing.covered if file[:2] == place]  # left by one that was killed
    _check(folder, [*files, *covered])
    for each in covered:
        [covering] = [file for file in files if file.first <= each.first <= file.last]
        _compare(folder, engine, [each], folder.at(covering), covering)
    folder.delete(covered)
    facts = _facts(folder, engine, files)
    for group in list(_groups(files, facts, max_rows)):
        union = _join(folder, engine, group, LedgerFile(*place, group[0].first, group[-1].last))
        folder.delete(group)
        done.joined.append((union, len(group)))


def _groups(files: list[LedgerFile], facts: Mapping[LedgerFile, Facts], max_rows: int) -> Iterator[list[LedgerFile]]:
    """Neighbours without offsets missing between them, of one day, and not more rows than `max_rows` together."""
    group: list[LedgerFile] = []
    for file in files:
        if group and (
            file.first != group[-1].last + 1
            or facts[file].day != facts[group[0]].day
            or sum(facts[each].rows for each in group) + facts[file].rows > max_rows
        ):
            if len(group) > 1:
                yield group
            group = []
        group.append(file)
    if len(group) > 1:
        yield group


def _facts(folder: LedgerFolder, engine: Engine, files: list[LedgerFile]) -> dict[LedgerFile, Facts]:
    """A file without any time, which has rejected records only, is of the day of the one before it."""
    if not files:
        return {}
    by_path = {str(folder.at(file)): file for file in files}
    read = {
        by_path[path]: (rows, low, high)
        for path, rows, low, high in engine.run(
            "SELECT file_name, sum(row_group_num_rows) FILTER (path_in_schema = 'time_us'), "
            "min(TRY_CAST(stats_min_value AS BIGINT)) FILTER (path_in_schema = 'time_us'), "
            "max(TRY_CAST(stats_max_value AS BIGINT)) "
            f"FROM parquet_metadata([{', '.join(map(text, by_path))}]) "
            "WHERE path_in_schema IN ('time_us', 'period_us') GROUP BY 1"
        )
    }
    facts: dict[LedgerFile, Facts] = {}
    day = latest = 0
    for file in files:
        if file not in read:
            raise SinkError(f"{file.name}: not a file of the ledger")
        rows, low, high = read[file]
        day, latest = (low // _DAY_US if low is not None else day), max(high or 0, 0) or latest
        facts[file] = Facts(int(rows), day, latest)
    return facts


def _check(folder: LedgerFolder, files: list[LedgerFile]) -> None:
    """SinkError: files are damaged, so a union would have their damage under a digest of its own."""
    if damaged := damaged_files(folder, files):
        raise SinkError("; ".join([f"{file.name}: {why}" for file, why in damaged.items()]))


def _compare(folder: LedgerFolder, engine: Engine, parts: list[LedgerFile], path: Path, covering: LedgerFile) -> None:
    """SinkError: the file at `path`, of the range of `covering`, does not have the rows of the parts."""
    paths = ", ".join([text(str(folder.at(file))) for file in parts])
    covered = f"(SELECT {selection()} FROM read_parquet([{paths}], union_by_name = true))"
    own = f'read_parquet({text(str(path))}) WHERE "offset" BETWEEN {parts[0].first} AND {parts[-1].last}'
    if engine.run(f"{_SUMS} {covered}") != engine.run(f"{_SUMS} {own}"):
        raise SinkError(f"{covering}: differs from its parts, which stay: report this")


def _join(folder: LedgerFolder, engine: Engine, group: list[LedgerFile], union: LedgerFile) -> LedgerFile:
    paths = ", ".join([text(str(folder.at(file))) for file in group])
    last = text(str(folder.at(group[-1])))
    tail = engine.run(f"SELECT value FROM parquet_kv_metadata({last}) WHERE key = '{TAIL_KEY}'")
    metadata = metadata_of(union, {TAIL_KEY: bytes(tail[0][0]).decode()} if tail else {})
    draft = folder.work_file(union.topic, union.part, "union")
    parts = f"(SELECT {selection()} FROM read_parquet([{paths}], union_by_name = true))"
    engine.run(f"COPY (FROM {parts} ORDER BY {ordering()}) TO {text(str(draft))} {copy_options(metadata)}")
    _compare(folder, engine, group, draft, union)
    return folder.publish(draft, union)


def _retire(folder: LedgerFolder, engine: Engine, place: tuple[str, int], before_us: int, done: Compaction) -> None:
    """Remove the oldest files whose records are all of times before `before_us`, but for the last one."""
    files = folder.listing().of(*place)
    facts = _facts(folder, engine, files)
    expired = []
    for file in files[:-1]:
        if not 0 < facts[file].latest_us < before_us:
            break
        expired.append(file)
    folder.delete(expired)
    done.removed.extend(expired)
