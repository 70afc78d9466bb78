"""The parts of a command that changes records: the node's journal to record in, and the records to read."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from sidecar.app.record_sources import record_source
from sidecar.core.record import Ids
from sidecar.core.record.statements import Statement, statement_record
from sidecar.edge.clock import SystemClock
from sidecar.edge.journal.command_source import CommandSource, PendingRecord
from sidecar.edge.rotation import with_rotated
from sidecar.records.originals import StoredOriginals
from sidecar.records.sources import RecordSource

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sidecar.config.settings import Settings
    from sidecar.ports import Originals


def command_source(settings: Settings) -> CommandSource:
    """The source of a command on this node."""
    return CommandSource(settings.journal.dir, f"//sidecar/{settings.region}/{settings.node}", SystemClock())


def originals(settings: Settings, files: Sequence[Path] = ()) -> Originals:
    """The records of `history_sources`."""
    return StoredOriginals(history_sources(settings, files))


def history_sources(settings: Settings, files: Sequence[Path] = ()) -> list[RecordSource]:
    """Where all that a record became is: this node's journal, the place that the settings name, and `files`.

    SinkError: that place is standard output, and no file is named.
    """
    sources: list[RecordSource] = []
    if settings.journal.dir.is_dir():
        sources.append(RecordSource("records", journal=settings.journal.dir))
    place = None if settings.destination == "stdout" and files else record_source(settings, "records", None, None)
    if place is not None and (_is_there(place) or not (sources or files)):
        sources.append(place)  # a file that does not exist yet is an error only where there is nothing else
    return [*sources, *(RecordSource("records", file=file) for file in files)]


def _is_there(place: RecordSource) -> bool:
    return place.file is None or any(path.exists() for path in with_rotated(place.file)) or bool(place.compressed())


def pending_statement(statement: Statement) -> PendingRecord:
    """The record of a statement, with a new id."""
    id_ = Ids(secrets.randbits(60)).mint(SystemClock().now_us() // 1000)

    def render(time_us: int, source: str, sequence: int) -> bytes:
        return statement_record(statement, id_, (time_us, source, sequence))

    return PendingRecord(id_, str(getattr(statement, "customer", None) or ""), render)
