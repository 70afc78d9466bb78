"""How a load reads and writes: when a file is cut, whether it follows, and what it reports to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from sidecar.edge.ledger.writer import Loaded
from sidecar.ledger.report import Progress

FLUSH_RECORDS: Final = 250_000
FLUSH_BYTES: Final = 512 << 20
FLUSH_SECONDS: Final = 60


class LoadOptions(NamedTuple):
    """How to load. `stop` is asked between chunks; the others get each file, each step, and failures to be retried."""

    stop: Callable[[], bool] = lambda: False
    on_file: Callable[[Loaded], None] = lambda _: None
    on_progress: Callable[[Progress], None] = lambda _: None
    on_trouble: Callable[[str], None] = lambda _: None
    flush_records: int = FLUSH_RECORDS
    flush_seconds: float = FLUSH_SECONDS
    follow: bool = False
