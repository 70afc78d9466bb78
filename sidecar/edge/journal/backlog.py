"""The backlog of a node's journals: the bytes that are not shipped, and the age of the oldest record among them.

It is computed from files only, so it is correct while the shipper starts, fails, hangs or is dead. The shipper writes
the committed positions to a file. If it was killed between a commit and that, the backlog is too large until the sink
is opened again; it is never too small.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import orjson

from sidecar.core.errors import SinkError
from sidecar.core.record.frame import (
    CLOSE,
    NOTE,
    RECORD,
    Frame,
    NewerVersionError,
    Position,
    scan,
)
from sidecar.edge.journal.folder import Folder, mapped

COMMITTED = "committed"
_SEARCH_BYTES = 16 << 20  # read to find the first record; the entries before it belong to open exchanges
_TIME = re.compile(rb'"time":"(\d{4}-[^"]+)"')


class Backlog(NamedTuple):
    """`bytes` after the committed position, with frames of open exchanges. `oldest_us`: an age; 0: no record waits.

    Notes before the first waiting record are not counted, since they are never shipped. Frames of a newer version count
    as a record with the modification time of their segment.
    """

    bytes: int = 0
    oldest_us: int = 0


def note_committed(directory: Path, positions: Mapping[str, str]) -> None:
    """Write the positions that the sink has committed, by worker, to a file beside the journals.

    The file is not synced, and an error is ignored: then the backlog appears too large.
    """
    draft = directory / f"{COMMITTED}.new"
    with suppress(OSError):
        draft.write_bytes(orjson.dumps(dict(positions)))
        draft.replace(directory / COMMITTED)


def measure(directory: Path, now_us: int) -> Backlog:
    """The backlog of all journals under `directory`. One that cannot be read is left out: its reader reports it."""
    noted = _noted(directory)
    total, oldest_us = 0, 0
    for path in directory.iterdir() if directory.is_dir() else ():
        if not path.is_dir():
            continue
        with suppress(OSError):
            folder, position = Folder(path), _position(noted.get(path.name))
            written_us, notes_bytes = _oldest(folder, position)
            total += max(0, bytes_after(folder, position) - notes_bytes)
            if written_us is not None:
                oldest_us = max(oldest_us, now_us - written_us, 1)
    return Backlog(total, oldest_us)


def bytes_after(folder: Folder, position: Position) -> int:
    """The bytes after `position` in a worker's folder; never below 0, also if the position's segment is shorter."""
    total = 0
    for start, path in folder.segments_from(position):
        with suppress(FileNotFoundError):  # deleted since it was listed
            total += max(0, path.stat().st_size - start.offset)
    return total


def _oldest(folder: Folder, position: Position) -> tuple[int | None, int]:
    """When the first record after `position` was written, or None; and the bytes of notes before it."""
    notes_bytes = 0
    for start, path in folder.segments_from(position):
        with suppress(FileNotFoundError):
            try:
                body, passed = _first_record(path, start.offset)
            except NewerVersionError:
                return path.stat().st_mtime_ns // 1000, notes_bytes
            notes_bytes += passed
            if body is not None:
                match = _TIME.search(body)
                written = int(datetime.fromisoformat(match[1].decode()).timestamp() * 1_000_000) if match else 0
                return written, notes_bytes
    return None, notes_bytes


def _first_record(path: Path, start: int) -> tuple[bytes | None, int]:
    notes_bytes, before = 0, start
    with mapped(path) as data:
        for end, item in scan(data, start):
            if isinstance(item, Frame):
                if item.type in {CLOSE, RECORD}:
                    return item.body, notes_bytes
                if item.type == NOTE:
                    notes_bytes += end - before
            if end > start + _SEARCH_BYTES:
                break
            before = end
    return None, notes_bytes


def _noted(directory: Path) -> dict[str, str]:
    try:
        noted = orjson.loads((directory / COMMITTED).read_bytes())
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _position(text: str | None) -> Position:
    """The position in `text`; the begin of the journal if it is missing or invalid."""
    try:
        return Position.parse(str(text))
    except SinkError:
        return Position(0, 0, 0)
