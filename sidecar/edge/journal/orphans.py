"""Recovery of journals whose worker no longer exists: open exchanges are closed, so that segments can be deleted.

Any process that can own a folder may recover it, so never while a worker owns it. The records have an epoch of their
own, which closes the sources that have not ended, and ends with a final checkpoint. If all have ended and no exchange
is open, nothing is written. The recovery can be killed and repeated.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sidecar.core.errors import SinkError
from sidecar.core.record import Checkpoint, Ids, checkpoint_record
from sidecar.core.record.frame import RECORD, encode_frame
from sidecar.core.words import counted
from sidecar.edge.files import OwnedError
from sidecar.edge.journal.folder import Disk, Folder
from sidecar.edge.journal.predecessors import Lineage, announcement, lineage
from sidecar.edge.journal.recovery import close_open, look_back
from sidecar.edge.journal.segments import Figures, Segments
from sidecar.edge.journal.settled import Ended, SettledMark
from sidecar.ports import Clock

_SEGMENT_BYTES = 64 << 20
_log = logging.getLogger(__name__)


class Orphan(NamedTuple):
    """A journal to recover. `source`: its worker's name in records, used if no segment contains it.

    `version` of the sidecar: its last source is closed too, where it has not ended; "": only open exchanges are closed.
    """

    directory: Path
    worker: str
    source: str
    version: str = ""


class Files(NamedTuple):
    """The clock and the disk of a recovery."""

    clock: Clock
    disk: Disk


def recover(orphan: Orphan, clock: Clock, disk: Disk | None = None) -> int | None:
    """Close the open exchanges of a worker that no longer exists. Returns their number; None: a worker owns it.

    It blocks while it reads the entries since the mark `closed`. SinkError, OSError: the journal cannot be read or
    written; nothing is lost, and the call can be repeated.
    """
    folder = Folder(orphan.directory / orphan.worker)
    try:
        folder.own()
    except OwnedError:
        return None
    try:
        history = look_back(folder, SettledMark(folder).until())
        known = lineage(folder)
        if history.open or (orphan.version and known.unended):
            _close(folder, orphan, history.open, known, Files(clock, disk or Disk()))
        elif not history.ended and (end := folder.end()) is not None:
            folder.mark_closed(end)
    finally:
        folder.release()
    if history.open:
        number = counted(len(history.open), "exchange")
        _log.warning("journal %s: closed %s that its last worker left open", folder.path, number)
    return len(history.open)


def take_unsettled(directory: Path, living: Collection[str]) -> list[Ended]:
    """Exchanges whose settles the store has not acknowledged, of workers that are not in `living`. Each only once.

    A journal that is owned, or has open exchanges, is left to a later call. It blocks as `recover`.
    """
    taken: list[Ended] = []
    for path in directory.iterdir():
        folder = Folder(path)
        mark = SettledMark(folder)
        if path.name in living or (settled := mark.until()) is None or settled == folder.end():
            continue
        try:
            folder.own()
        except SinkError:
            continue
        try:
            history = look_back(folder, settled)
            end = folder.end()
            if not history.open and end is not None:
                taken += history.ended
                mark.finish(end, settled=True)
        except SinkError as error:
            _log.warning("journal %s: its unsettled exchanges cannot be read, and are not settled: %s", path, error)
        finally:
            folder.release()
    return taken


def _close(folder: Folder, orphan: Orphan, opened: dict[bytes, bytes], known: Lineage, files: Files) -> None:
    now_us = files.clock.now_us()
    epoch = folder.raise_epoch(now_us)
    own = f"{known.last.rpartition('/')[0] or orphan.source}/{epoch}"
    mint = partial(Ids(secrets.randbits(60)).mint, now_us // 1000)
    statements = list(announcement(known, own, orphan.version, mint, now_us)) if orphan.version else []
    closings = close_open(folder.path, opened, own, now_us, first=len(statements) + 1)
    frames = [*statements, *closings.frames]
    checkpoint = Checkpoint(
        {"records": len(frames), "denials": 0}, closings.usage, backlog_bytes=folder.retained_bytes(), final=True
    )
    id_, number = mint(), len(frames) + 1
    body = checkpoint_record(checkpoint, id_, now_us, own, number)
    frames.append(encode_frame(RECORD, "records", number, id_, own.encode(), body))
    segments = Segments(folder, files.disk, Figures(), segment_bytes=_SEGMENT_BYTES, durable=True)
    segments.begin(epoch, own)
    try:
        if segments.append(frames) < len(frames):
            raise SinkError(
                f"{folder.path}: {counted(len(opened), 'exchange')} cannot be closed: the disk cannot be written"
            )
        segments.begin_sync()()
        segments.end_sync()
        if SettledMark(folder).until() is None:  # otherwise `take_unsettled` returns their reservations first
            folder.mark_closed(segments.position)
    finally:
        segments.close()
