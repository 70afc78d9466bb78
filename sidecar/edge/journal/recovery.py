"""Recovery of a journal whose writer was killed: torn tails are cut, corrupt bytes set aside, open exchanges closed.

A killed worker leaves three things: exchanges with an OPEN but no CLOSE entry, possibly a frame that is written only in
part, and after a power failure possibly corrupt bytes. Recovery has two steps:

1. `look_back` reads all segments from the position in the file `closed` on. It collects the open exchanges and cuts a
   torn last frame. It writes no record, so it can be killed at any point and repeated. Damage never stops it: corrupt
   bytes are copied to a file, and the frames after them are read. Memory is bounded by the number of open exchanges.
2. `close_open` makes a `crashed` record for each open exchange, numbered in a new epoch, with the units that
   were reserved. An exchange whose OPEN cannot be read gets an unattributed record; without a record, it would prevent
   the deletion of all later segments.

    segment 3.2 at the kill:  OPEN c   CLOSE c #2   OPEN d   OPEN e   CLOSE e #3   half of a frame
    look_back:                the half frame is cut off; open: d
    close_open:               4.1  CLOSE d #1, outcome crashed, quality partial
    killed before 4.1 is written: the next start finds d open again, and repeats both steps in epoch 5
"""

from __future__ import annotations

import logging
import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import orjson

from sidecar.core.errors import SinkError
from sidecar.core.record import crashed_record
from sidecar.core.record.frame import (
    CLOSE,
    OPEN,
    PROGRESS,
    Bad,
    Frame,
    NewerVersionError,
    Position,
    encode_frame,
    scan,
)
from sidecar.edge.journal.folder import Folder, mapped
from sidecar.edge.journal.settled import ENDED_MAX, Ended

_UNREADABLE = {"plan": "", "route": "unknown", "method": "unknown", "path": "", "reserved": {}}
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Findings:
    """`open`: id → the body of the OPEN, or of the last PROGRESS, of each exchange without a CLOSE. Sizes in bytes.

    `ended`: closed exchanges whose settles the store has not acknowledged; at most ENDED_MAX, the newest.
    """

    open: dict[bytes, bytes] = field(default_factory=dict)
    ended: deque[Ended] = field(default_factory=lambda: deque(maxlen=ENDED_MAX))
    segments: int = 0
    torn_bytes: int = 0
    corrupt: int = 0
    corrupt_bytes: int = 0


class Closings(NamedTuple):
    """CLOSE frames, in order; the units by meter in their records; and the exchanges to settle."""

    frames: list[bytes]
    usage: dict[str, int]
    ended: list[Ended]


def close_open(path: Path, opened: dict[bytes, bytes], source: str, now_us: int, first: int = 1) -> Closings:
    """The `crashed` records of `source` for open exchanges, numbered from `first`. `path` is for the log."""
    frames: list[bytes] = []
    usage: dict[str, int] = {}
    ended: list[Ended] = []
    for sequence, (id_, body) in enumerate(opened.items(), first):
        try:
            record = crashed_record(body, id_, now_us, source, sequence)
            key = str(orjson.loads(body).get("customer", ""))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _log.error(
                "journal %s: exchange %r was open, and its OPEN entry cannot be read (%r): closed as unattributed",
                *(path, id_, error),
            )
            record, key = crashed_record(_unreadable(now_us), id_, now_us, source, sequence), ""
        frames.append(encode_frame(CLOSE, "records", sequence, id_, key.encode("utf-8", "replace"), record))
        ended.append(Ended(id_, body, record))
        for meter, units in orjson.loads(record)["data"]["usage"].items():
            usage[meter] = usage.get(meter, 0) + units
    return Closings(frames, usage, ended)


def _unreadable(now_us: int) -> bytes:
    return orjson.dumps({"time_us": now_us, **_UNREADABLE})


def look_back(folder: Folder, settled: Position | None = None) -> Findings:
    """Read the segments from the mark `closed` on. SinkError: unreadable, or written by a newer version.

    `settled`: the position before which the store has acknowledged all settles; None: do not collect `ended`.
    """
    findings = Findings()
    for start, path in folder.segments_from(folder.closed_until() or Position(0, 0, 0)):
        try:
            _read(path, start, findings, settled)
        except NewerVersionError as error:
            raise SinkError(f"{path}: {error}") from None
        except OSError as error:
            raise SinkError(f"{path}: cannot be read: {error.strerror}") from None
    return findings


def _read(path: Path, start: Position, findings: Findings, settled: Position | None) -> None:
    torn = None
    findings.segments += 1
    with mapped(path) as data:
        for end, item in scan(data, start.offset):
            if isinstance(item, Frame):
                _pair(item, findings, unsettled=settled is not None and settled < (*start[:2], end))
            elif item.torn:
                torn = item
            else:
                findings.corrupt += 1
                findings.corrupt_bytes += item.end - item.start
                _set_aside(path, item, data[item.start : item.end])
    if torn is not None:
        findings.torn_bytes += torn.end - torn.start
        _log.warning("journal %s: cut off %d torn bytes at its end", path, torn.end - torn.start)
        os.truncate(path, torn.start)


def _pair(frame: Frame, findings: Findings, *, unsettled: bool) -> None:
    if frame.type in (OPEN, PROGRESS):  # the segment of the OPEN may be gone
        findings.open[frame.id] = frame.body
    elif frame.type == CLOSE:
        opened = findings.open.pop(frame.id, None)
        if unsettled and opened is not None:
            findings.ended.append(Ended(frame.id, opened, frame.body))


def _set_aside(path: Path, bad: Bad, data: bytes) -> None:
    """Copy corrupt bytes to a file, for analysis. They also stay in place, and readers skip them."""
    aside = path.with_name(f"{path.name}.{bad.start}.bad")
    _log.error("journal %s: %d bytes at %d are corrupt; a copy is in %s", path, len(data), bad.start, aside.name)
    if not aside.exists():
        aside.write_bytes(data)
