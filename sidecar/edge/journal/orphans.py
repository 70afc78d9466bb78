"""Recovery of journals whose worker no longer exists: open exchanges are closed, so that segments can be deleted.

Any process that can own a folder may recover it, so never while a worker owns it. The records have an epoch of their
own, which ends with a checkpoint; without open exchanges nothing is written. The recovery can be killed and repeated.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import NamedTuple

import orjson

from sidecar.core.errors import SinkError
from sidecar.core.record import Checkpoint, Ids, checkpoint_record
from sidecar.core.record.frame import HEAD, RECORD, encode_frame, frame_at, segment_name
from sidecar.core.words import counted
from sidecar.edge.files import OwnedError
from sidecar.edge.journal.folder import Disk, Folder, mapped
from sidecar.edge.journal.recovery import Closings, close_open, look_back
from sidecar.edge.journal.segments import Figures, Segments
from sidecar.edge.journal.settled import Ended, SettledMark
from sidecar.ports import Clock

_SEGMENT_BYTES = 64 << 20
_log = logging.getLogger(__name__)


class Orphan(NamedTuple):
    """A journal to recover. `source`: its worker's name in records, used if no segment contains it."""

    directory: Path
    worker: str
    source: str


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
        if history.open:
            _close(folder, orphan.source, history.open, clock, disk or Disk())
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


def _close(folder: Folder, source: str, opened: dict[bytes, bytes], clock: Clock, disk: Disk) -> None:
    now_us = clock.now_us()
    named = _source_of(folder) or source
    epoch = folder.raise_epoch(now_us)
    own = f"{named}/{epoch}"
    closings = close_open(folder.path, opened, own, now_us)
    frames = [*closings.frames, _checkpoint(closings, own, folder.retained_bytes(), now_us)]
    segments = Segments(folder, disk, Figures(), segment_bytes=_SEGMENT_BYTES, durable=True)
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


def _checkpoint(closings: Closings, source: str, backlog_bytes: int, now_us: int) -> bytes:
    """The last entry of the epoch, with its last sequence, so that a missing end can be detected."""
    number = len(closings.frames)
    checkpoint = Checkpoint({"records": number, "denials": 0}, closings.usage, backlog_bytes=backlog_bytes)
    id_ = Ids(secrets.randbits(60)).mint(now_us // 1000)
    write = partial(checkpoint_record, checkpoint, id_, now_us)
    return encode_frame(RECORD, "records", number + 1, id_, source.encode(), write(source, number + 1))


def _source_of(folder: Folder) -> str:
    """The worker's name in records, without the epoch, from its last readable segment; "" if none is readable."""
    for segment in reversed(folder.segments()):
        with mapped(folder.path / segment_name(*segment)) as data:
            first = frame_at(data, 0)
            if first is not None and first[1].type == HEAD:
                source: str = orjson.loads(first[1].body).get("source", "")
                return source.rpartition("/")[0]
    return ""
