"""Where records are read back from, by the settings and by what a command names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.app import kafka
from sidecar.core.errors import SinkError
from sidecar.records.sources import RecordSource

if TYPE_CHECKING:
    from pathlib import Path

    from sidecar.config.settings import Settings


def record_source(settings: Settings, stream: str, journal: Path | None, file: Path | None) -> RecordSource:
    """The journal or file that is named, else where the settings send records: a file with those it was rotated to.

    SinkError: that is standard output. PolicyError: a certificate for Kafka is wrong.
    """
    if journal is not None:
        return RecordSource(stream, journal=journal)
    if file is not None:
        return RecordSource(stream, file=file)
    if settings.kafka is not None:
        topic = kafka.streams(settings.kafka)[stream]
        return RecordSource(stream, topic=topic, connection=kafka.connection(settings))
    path = settings.record_file
    if path is None:
        raise SinkError("records go to standard output, which cannot be read back: name --journal or --file")
    if stream != "records":
        path = path.with_name(f"{path.stem}.{stream}{path.suffix}")
    return RecordSource(stream, file=path, rotated=True)
