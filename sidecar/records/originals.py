"""Finds a record and its changes by reading the records themselves: of the journal, and of a topic or a file.

The journal is read first: a record that is shipped meanwhile is in the topic when that is read. So a change that this
node recorded a moment ago is seen. Copies of a record count once. A change that was not read would be given back a
second time, so compressed files that may have one are named.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any

import orjson

from sidecar.core.limits import id_us
from sidecar.core.record.changes import CHANGES, History
from sidecar.records.find import CLOCKS
from sidecar.records.sources import RecordSource, bodies, not_read


class StoredOriginals:
    """`ports.Originals` over sources of records, read in their order and as a whole; a topic from the id's time on."""

    def __init__(self, sources: Sequence[RecordSource]) -> None:
        self._sources = sources

    async def find(self, id: str) -> History | None:
        """See `ports.Originals`."""
        needle = id.encode()
        since = datetime.fromtimestamp(id_us(needle) / 1e6, UTC) - CLOCKS
        record: dict[str, Any] | None = None
        changes: dict[str, dict[str, Any]] = {}
        for source in self._sources:
            async for body in bodies(source, since=since):
                if needle not in body or (read := _event(body)) is None:
                    continue
                if read.get("id") == id:
                    record = record or read
                elif read.get("causationid") == id and read.get("type") in CHANGES:
                    changes.setdefault(str(read.get("id")), read)
        return None if record is None else History(record, tuple(changes.values()))

    def unread(self, id: str) -> str:
        """See `ports.Originals`. A file that was changed last before the record's time has nothing of it."""
        since = id_us(id.encode()) / 1e6 - CLOCKS.total_seconds()
        return unread(self._sources, since)


def unread(sources: Sequence[RecordSource], since_s: float) -> str:
    """Which compressed files were not read of those that changed after `since_s` (since the epoch); "": none."""
    named = [source.file for source in sources if source.file is not None and not source.rotated]
    packed = [path for source in sources for path in source.compressed(named) if _changed_s(path) >= since_s]
    return not_read(packed) if packed else ""


def _changed_s(path: Path) -> float:
    """When the file was changed last. One that is moved on meanwhile: a moment ago."""
    try:
        return path.stat().st_mtime
    except OSError:
        return inf


def _event(body: bytes) -> dict[str, Any] | None:
    try:
        read = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return read if isinstance(read, dict) else None
