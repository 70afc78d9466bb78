"""Opens a ledger for proofs: all its rows as the relation `ledger`, and what of its files could not be read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sidecar.core.errors import SinkError
from sidecar.edge.ledger.digests import explained, refuse_damaged
from sidecar.edge.ledger.engine import MEMORY, Engine
from sidecar.edge.ledger.files import LedgerFile, LedgerFolder
from sidecar.edge.ledger.views import create_views


class LedgerRows(NamedTuple):
    """An open ledger. `faults`: files that were refused, and offsets that are in no file, in words."""

    folder: Path
    engine: Engine
    files: tuple[LedgerFile, ...]
    faults: tuple[str, ...] = ()

    def positions(self) -> dict[str, int]:
        """The last offset that is here, by topic and partition as in `usage.records/p0007`."""
        last: dict[str, int] = {}
        for file in self.files:
            place = f"{file.topic}/p{file.part:04}"
            last[place] = max(file.last, last.get(place, -1))
        return last


@contextmanager
def open_ledger(
    folder: Path, memory: str = MEMORY, threads: int = 0, *, checks_digests: bool = False
) -> Iterator[LedgerRows]:
    """The ledger at `folder`. SinkError: it is missing, or has no records.

    `checks_digests`: read each file and refuse those whose bytes do not have the digest of their name.
    """
    threads = threads or os.cpu_count() or 1
    ledger = LedgerFolder(folder)
    if not ledger.identity():
        raise SinkError(f"{folder}: not a ledger: `sidecar ledger load` makes one, or set ledger.dir")
    with Engine(threads=threads, memory=memory) as engine:
        listing = ledger.listing()
        if checks_digests:
            listing = refuse_damaged(ledger, listing, threads)
        listing = create_views(engine, ledger, listing)
        if not listing.files and not listing.refused:
            raise SinkError(f"{folder}: the ledger has no records yet: `sidecar ledger load` loads them")
        gaps = [
            f"{before.topic} partition {before.part}: offsets {before.last + 1} to {after.first - 1} are in no file"
            for before, after in listing.gaps()
        ]
        faults = (*(f"{name}: {reason}" for name, reason in listing.refused), *gaps)
        try:
            yield LedgerRows(folder, engine, tuple(listing.files), faults)
        except SinkError as error:
            raise explained(error, ledger, listing.files, threads) from error
