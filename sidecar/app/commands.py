"""The parts of a command that changes records: the node's journal to record in, and the records to read."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from sidecar.app.record_sources import record_source
from sidecar.core.record import Ids
from sidecar.core.record.statements import Statement, statement_record
from sidecar.edge.clock import SystemClock
from sidecar.edge.journal.command_source import CommandSource, PendingRecord
from sidecar.records.originals import StoredOriginals
from sidecar.records.sources import RecordSource

if TYPE_CHECKING:
    from pathlib import Path

    from sidecar.config.settings import Settings
    from sidecar.ports import Originals


def command_source(settings: Settings) -> CommandSource:
    """The source of a command on this node."""
    return CommandSource(settings.journal.dir, f"//sidecar/{settings.region}/{settings.node}", SystemClock())


def originals(settings: Settings, file: Path | None) -> Originals:
    """The records of this node's journal, and of `file`, else of the place that the settings name.

    SinkError: that place is standard output.
    """
    sources: list[RecordSource] = []
    if settings.journal.dir.is_dir():
        sources.append(RecordSource("records", journal=settings.journal.dir))
    place = record_source(settings, "records", None, file)
    if place.file is None or place.file.exists() or file is not None or not sources:
        sources.append(place)  # a file that does not exist yet is an error only where there is nothing else
    return StoredOriginals(sources)


def pending_statement(statement: Statement) -> PendingRecord:
    """The record of a statement, with a new id."""
    id_ = Ids(secrets.randbits(60)).mint(SystemClock().now_us() // 1000)

    def render(time_us: int, source: str, sequence: int) -> bytes:
        return statement_record(statement, id_, (time_us, source, sequence))

    return PendingRecord(id_, str(getattr(statement, "customer", None) or ""), render)
