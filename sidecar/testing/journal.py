"""A journal in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from sidecar.core.record import Denied
from sidecar.ports import Journal
from sidecar.testing.basics import Held

SOURCE = "//sidecar/test/1"


class Written(NamedTuple):
    """One entry of a journal. `stream` is "open", "records" or "denials"."""

    stream: str
    id: bytes
    key: str
    body: bytes


class MemoryJournal(Held, Journal):
    """`ports.Journal` in a list. While `full`, it accepts no exchanges; while `broken`, writes fail (`then(False)`).

    While `holding`, entries are written but not confirmed: `then` waits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Written] = []
        self.full = False
        self.broken = False
        self._numbers: Counter[str] = Counter()
        self._on_acknowledged: Callable[[], None] = lambda: None

    def on_acknowledged(self, call: Callable[[], None]) -> None:
        self._on_acknowledged = call

    def withheld(self) -> bool:
        return True

    def accepting(self) -> bool:
        return not self.full

    def open(self, id: bytes, body: bytes, then: Callable[[bool], None]) -> None:
        self._write(Written("open", id, "", body), then)

    def close(
        self, stream: str, id: bytes, key: str, write: Callable[[str, int], bytes], then: Callable[[bool], None]
    ) -> None:
        self._numbers[stream] += 1
        self._write(Written(stream, id, key, write(SOURCE, self._numbers[stream])), then)

    def deny(self, id: bytes, denied: Denied, write: Callable[[str, int], bytes]) -> None:
        self.close("denials", id, denied.customer, write, lambda _written: None)

    def of(self, stream: str) -> list[Written]:
        """The entries of one stream."""
        return [entry for entry in self.entries if entry.stream == stream]

    def _write(self, entry: Written, then: Callable[[bool], None]) -> None:
        written = not self.broken
        if written:
            self.entries.append(entry)
        self.answer(lambda: then(written))
        if not self.holding:
            self._on_acknowledged()

    def let_go(self, most: int | None = None) -> None:
        """Make the queued calls, as one batch."""
        super().let_go(most)
        self._on_acknowledged()
