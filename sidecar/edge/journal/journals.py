"""The journals of all workers of a node, for those that read them."""

from __future__ import annotations

from pathlib import Path

from sidecar.core.record.frame import Position
from sidecar.edge.journal.entry import Figures
from sidecar.edge.journal.folder import Folder
from sidecar.edge.journal.reader import JournalReader, NeededFrom


class JournalFolder:
    """The journals of all workers of a node, for the shipper. `figures` is the sum over all readers that it made."""

    def __init__(self, directory: Path, needed_from: NeededFrom | None = None) -> None:
        self._directory = directory
        self._needed_from = needed_from
        self.figures = Figures()

    def workers(self) -> list[str]:
        """The names of all folders with segments."""
        return workers(self._directory)

    def reader(self, worker: str, position: str | None) -> JournalReader:
        """A reader from `position` on; None: from the oldest entry. SinkError: the position has a wrong format."""
        start = None if position is None else Position.parse(position)
        reader = JournalReader(self._directory, worker, start, self._needed_from)
        reader.figures = self.figures
        return reader


def _nothing_needed(_folder: Path) -> Position | None:
    return None


def workers(directory: Path) -> list[str]:
    """The workers with a journal under `directory`, sorted; [] if the folder does not exist."""
    if not directory.is_dir():
        return []
    return sorted(folder.name for folder in directory.iterdir() if folder.is_dir() and _has_segments(folder))


def _has_segments(folder: Path) -> bool:
    try:
        return bool(Folder(folder).segments())
    except OSError:  # its reader reports the error
        return True
