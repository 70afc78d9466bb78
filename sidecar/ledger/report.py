"""The report of a load, for people and programs: a line for each file, sums, and all that was refused."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any, Final, NamedTuple

from sidecar.edge.ledger.writer import Loaded

_COUNTS: Final = ("records", "rows", "rejected", "copies", "size")
_NAMES: Final = 1_000  # of the last files


class Progress(NamedTuple):
    """How far a partition is: where it was read to, and where its log ended when that was last asked."""

    topic: str
    part: int
    offset: int
    end: int


class LoadReport:
    """Counts of one run. `faults` are what must be looked at: a damaged file, a partition that cannot be read."""

    def __init__(self) -> None:
        self._totals: Counter[str] = Counter()
        self.names: deque[str] = deque(maxlen=_NAMES)
        self.files = 0
        self.faults: list[str] = []

    def fault(self, text: str) -> None:
        """Note what was refused, once."""
        if text not in self.faults:
            self.faults.append(text)

    def add(self, loaded: Loaded) -> None:
        """Count a file."""
        self.files += 1
        self.names.append(str(loaded.file))
        self._totals.update({name: getattr(loaded, name) for name in _COUNTS})

    def total(self, name: str) -> int:
        """The sum of a count over all files."""
        return self._totals[name]

    def as_json(self) -> dict[str, Any]:
        """The report as a document."""
        counts = {name: self.total(name) for name in _COUNTS}
        return {**counts, "files": self.files, "last_files": list(self.names), "faults": self.faults}
