"""Reads a worker's journal again from a position on, every kind of entry: for a start that rebuilds its memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sidecar.core.errors import SinkError
from sidecar.core.record.frame import Frame, NewerVersionError, Position, scan, segment_name
from sidecar.edge.journal.folder import Folder, mapped


def frames_after(folder: Path, position: Position) -> Iterator[tuple[Position, Frame]]:
    """Each whole frame behind `position` with where it ends, in order. Torn and corrupt stretches are skipped.

    SinkError: a segment cannot be read, or a newer version wrote it.
    """
    for start, path in Folder(folder).segments_from(position):
        try:
            with mapped(path) as data:
                for end, item in scan(data, start.offset):
                    if isinstance(item, Frame):
                        yield start._replace(offset=end), item
        except FileNotFoundError:  # freed since it was listed
            continue
        except NewerVersionError as error:
            raise SinkError(f"{path}: {error}") from None
        except OSError as error:
            raise SinkError(f"{path}: cannot be read: {error.strerror}") from None


def has_gap(folder: Path, position: Position) -> bool:
    """Whether the segment that `position` lies in is not there, so that entries behind it may have gone."""
    return position.segment > 0 and not (folder / segment_name(position.epoch, position.segment)).exists()
