"""The report of a load, for people and programs: a line for each file, sums, and all that was refused."""

from __future__ import annotations

from typing import Any, NamedTuple

from sidecar.edge.ledger.writer import Loaded


class Progress(NamedTuple):
    """How far a partition is: where it was read to, and where its log ended when that was last asked."""

    topic: str
    part: int
    offset: int
    end: int


class LoadReport:
    """Counts of one run. `faults` are what must be looked at: a damaged file, a partition that cannot be read."""

    def __init__(self) -> None:
        self.files: list[Loaded] = []
        self.faults: list[str] = []

    def fault(self, text: str) -> None:
        """Note what was refused, once."""
        if text not in self.faults:
            self.faults.append(text)

    def total(self, name: str) -> int:
        """The sum of a count over all files."""
        return sum(getattr(file, name) for file in self.files)

    def as_json(self) -> dict[str, Any]:
        """The report as a document."""
        counts = {name: self.total(name) for name in ("records", "rows", "rejected", "copies", "size")}
        return {**counts, "files": [str(loaded.file) for loaded in self.files], "faults": self.faults}
