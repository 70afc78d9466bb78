"""One partition of the ledger, written batch by batch. A batch is a file, which appears whole or not at all.

The writer holds the partition's lock, from before it reads where to go on. Work files that a killed
writer left are removed then.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from sidecar.core.errors import SinkError
from sidecar.edge.files import write_all
from sidecar.edge.ledger.convert import CLEAR_REJECTED, SEVERAL_LINES, batch_table, rows
from sidecar.edge.ledger.files import LedgerFile, LedgerFolder
from sidecar.edge.ledger.footers import PLACE_KEY
from sidecar.edge.ledger.lines import Pair, encode
from sidecar.edge.ledger.schema import FORMAT, REPEATED, ROW_GROUP_ROWS, ordering, text

if TYPE_CHECKING:
    from sidecar.edge.ledger.earlier import Earlier
    from sidecar.edge.ledger.engine import Engine

FORMAT_KEY: Final = "sidecar_ledger"
_ESCAPED: Final = 8  # bytes that one byte of a text that is not UTF-8 takes at most
TAIL_KEY: Final = "sidecar_tail"  # of a sink file: the digest of its last bytes that are in here


class Loaded(NamedTuple):
    """A file that was written. Copies are those of records; copies of alerts and postings are not counted."""

    file: LedgerFile
    records: int
    rows: int
    rejected: int
    copies: int
    size: int


def metadata_of(file: LedgerFile, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The metadata of a file. The place is the last member: nothing of a client comes after it."""
    return {FORMAT_KEY: str(FORMAT), **(more or {}), PLACE_KEY: file.place}


def copy_options(metadata: Mapping[str, str]) -> str:
    """How each file is written. Nothing here may depend on the time, the machine or the number of threads."""
    members = ", ".join([f"{name}: {text(value)}" for name, value in metadata.items()])
    return (
        f"(FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2, ROW_GROUP_SIZE {ROW_GROUP_ROWS}, "
        f"KV_METADATA {{{members}}})"
    )


class PartitionWriter:
    """Collects a batch in a file of lines, and turns it into a file of the ledger. `close` lets the lock go."""

    def __init__(self, folder: LedgerFolder, topic: str, part: int, shared: tuple[Engine, Earlier]) -> None:
        self.topic, self.part = topic, part
        self._folder = folder
        self._engine, self._earlier = shared
        self._lock = folder.lock(topic, part)
        self._lines = folder.work_file(topic, part, "lines")
        self._draft = folder.work_file(topic, part, "new")
        self._out = -1
        self.records = self.size = self.longest = 0
        try:
            folder.clear_work(topic, part, "lines", "new")
            self.position = folder.listing().position(topic, part)
            self._begin()
        except BaseException:
            self.close()
            raise

    def add(self, pairs: Sequence[Pair]) -> None:
        """Collect records, in order of their offsets."""
        data = encode(pairs)
        try:
            write_all(self._out, data)
        except OSError as error:
            raise SinkError(f"{self._lines}: {error.strerror}") from error
        self.records += len(pairs)
        self.size += len(data)
        self.longest = max(self.longest, max([len(value) for _, value in pairs], default=0))

    def flush(self, end: int, metadata: Mapping[str, str] | None = None) -> Loaded | None:
        """Write what was collected as the file that ends before the offset `end`; None: nothing was collected."""
        if not self.records:
            return None
        file = LedgerFile(self.topic, self.part, self.position, end - 1)
        run = self._engine.run
        run(batch_table(self._lines, _ESCAPED * self.longest, self.part))
        run(CLEAR_REJECTED)
        run(SEVERAL_LINES)
        self._earlier.mark(self.topic, self.part)
        options = copy_options(metadata_of(file, metadata))
        written = run(f"COPY (SELECT * FROM ({rows()}) ORDER BY {ordering()}) TO {text(str(self._draft))} {options}")
        loaded = self._counted(file, written[0][0])
        loaded = loaded._replace(file=self._folder.publish(self._draft, file))
        self.position = end
        self._begin()
        return loaded

    def close(self) -> None:
        """Drop what was collected, and let another process load the partition."""
        if self._out >= 0:
            os.close(self._out)
            self._lines.unlink(missing_ok=True)
        self._draft.unlink(missing_ok=True)
        os.close(self._lock)

    def _begin(self) -> None:
        if self._out >= 0:
            os.ftruncate(self._out, 0)
            os.lseek(self._out, 0, os.SEEK_SET)
        else:
            self._out = os.open(self._lines, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        self.records = self.size = self.longest = 0

    def _counted(self, file: LedgerFile, row_count: int) -> Loaded:
        records, rejected, copies = self._engine.run(
            "SELECT count(*), count(*) FILTER (kind = 'rejected'), "
            f"""count(*) FILTER (kind NOT IN {REPEATED} AND "offset" IN (FROM copies)) FROM batch"""
        )[0]
        if records != self.records:
            raise SinkError(f"{file}: {self.records} records were read, and {records} of them parsed: report this")
        return Loaded(file, records, row_count, rejected, copies, Path(self._draft).stat().st_size)
