"""What a killed predecessor left: torn tails are cut, corrupt stretches set aside, and what it had open is found.

Nothing here writes a record or moves a number: it can be killed at any point and begun again. It never stops for damage
and never drops a file; memory is bounded by the exchanges that were open.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path

from sidecar.core.errors import SinkError
from sidecar.core.record.frame import CLOSE, OPEN, PROGRESS, Bad, Frame, NewerVersionError, scan, segment_name
from sidecar.edge.journal.folder import Folder

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Findings:
    """`open`: id → the body of the OPEN, or of the last PROGRESS, of each exchange without a CLOSE. Sizes in bytes."""

    open: dict[bytes, bytes] = field(default_factory=dict)
    segments: int = 0
    torn_bytes: int = 0
    corrupt: int = 0
    corrupt_bytes: int = 0


def look_back(folder: Folder) -> Findings:
    """Read what was written since all was known to be closed. SinkError: unreadable, or of a newer version."""
    findings = Findings()
    closed = folder.closed_until()
    for segment in folder.segments():
        if closed is not None and segment < closed[:2]:
            continue
        path = folder.path / segment_name(*segment)
        start = closed.offset if closed is not None and segment == closed[:2] else 0
        try:
            _read(path, start, findings)
        except NewerVersionError as error:
            raise SinkError(f"{path}: {error}") from None
        except OSError as error:
            raise SinkError(f"{path}: cannot be read: {error.strerror}") from None
    return findings


def _read(path: Path, start: int, findings: Findings) -> None:
    torn = None
    findings.segments += 1
    with _mapped(path) as data:
        for _, item in scan(data, start):
            if isinstance(item, Frame):
                _pair(item, findings.open)
            elif item.torn:
                torn = item
            else:
                findings.corrupt += 1
                findings.corrupt_bytes += item.end - item.start
                _set_aside(path, item, data[item.start : item.end])
    if torn is not None:
        findings.torn_bytes += torn.end - torn.start
        _log.warning("%s: cut %d torn bytes off its end", path, torn.end - torn.start)
        os.truncate(path, torn.start)


def _pair(frame: Frame, opened: dict[bytes, bytes]) -> None:
    if frame.type in (OPEN, PROGRESS):  # the segment of the OPEN may be gone
        opened[frame.id] = frame.body
    elif frame.type == CLOSE:
        opened.pop(frame.id, None)


def _set_aside(path: Path, bad: Bad, data: bytes) -> None:
    """A copy for whoever wants to know; the bytes stay in place, where readers go past them."""
    _log.error("%s: %d bytes at %d are corrupt, and were set aside", path, len(data), bad.start)
    aside = path.with_name(f"{path.name}.{bad.start}.bad")
    if not aside.exists():
        aside.write_bytes(data)


@contextmanager
def _mapped(path: Path) -> Iterator[bytes | mmap]:
    """The file's bytes without holding them: a segment may have gigabytes."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            yield b""
            return
        with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            yield data
