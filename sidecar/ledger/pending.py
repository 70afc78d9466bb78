"""The records in this node's journal that the ledger does not have yet, as rows like those of the ledger.

They are converted as a load does it, into a temporary folder. A record that was shipped and is not loaded is in neither
place once its segment is removed: load first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sidecar.edge.journal.journals import JournalFolder
from sidecar.edge.ledger.earlier import Earlier
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import LedgerFile, LedgerFolder
from sidecar.edge.ledger.schema import text
from sidecar.edge.ledger.writer import PartitionWriter

RELATION: Final = "pending"
_TOPIC: Final = "journal"
_BATCH_BYTES: Final = 8 << 20


@contextmanager
def pending_rows(engine: Engine, journal: Path) -> Iterator[int]:
    """Within the block `engine` has the relation `pending`; the number of its records. SinkError: cannot be read."""
    with tempfile.TemporaryDirectory(prefix="sidecar-journal-") as folder:
        ledger = LedgerFolder(Path(folder))
        loaded = _convert(ledger, journal)
        if loaded is None:
            yield 0
            return
        rows = f"SELECT '{_TOPIC}' AS topic, * FROM read_parquet({text(str(ledger.at(loaded)))})"
        fresh = "id IS NOT NULL AND id NOT IN (SELECT id FROM ledger WHERE id IS NOT NULL)"
        engine.run(f"CREATE OR REPLACE TEMP VIEW {RELATION} AS {rows} WHERE {fresh}")
        yield int(engine.run(f'SELECT count(*) FROM {RELATION} WHERE "first" AND NOT "copy"')[0][0])


def _convert(ledger: LedgerFolder, journal: Path) -> LedgerFile | None:
    """The file with all records of a journal; None: it has none. A connection of its own: a load makes tables."""
    ledger.identify()
    with Engine(folder=ledger.path) as engine:
        writer = PartitionWriter(ledger, _TOPIC, 0, (engine, Earlier(engine, ledger)))
        try:
            for body in _bodies(journal):
                writer.add([(writer.records, body)])
            loaded = writer.flush(writer.records)
            return loaded.file if loaded is not None else None
        finally:
            writer.close()


def _bodies(journal: Path) -> Iterator[bytes]:
    journals = JournalFolder(journal)
    for worker in journals.workers():
        reader = journals.reader(worker, None)
        try:
            while entries := reader.read(_BATCH_BYTES):
                yield from (entry.body for entry in entries if entry.stream == "records" and entry.body)
        finally:
            reader.close()
