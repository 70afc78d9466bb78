"""Reads records back from wherever they are: a journal, a file, a topic. It changes nothing, and needs nothing to run.

What a topic or a file gives is committed. A journal gives what is on this disk: what was shipped and freed is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from sidecar.app import kafka
from sidecar.app.verify import Verifier
from sidecar.config.settings import Settings
from sidecar.core.errors import SinkError
from sidecar.core.record import record_schema
from sidecar.edge.journal_reader import JournalFolder, JournalReader
from sidecar.edge.kafka_records import read_topic

POLL_SECONDS = 0.2
BATCH_BYTES = 1 << 20


class Place(NamedTuple):
    """Where to read: exactly one of the three is set. `stream` is "records" or "denials"."""

    stream: str
    journal: Path | None = None
    file: Path | None = None
    topic: str = ""

    def __str__(self) -> str:
        return f"topic {self.topic}" if self.topic else str(self.journal or self.file)


def place_of(settings: Settings, stream: str, journal: Path | None, file: Path | None) -> Place:
    """What was asked for, else where the settings send records. SinkError: they go to standard output."""
    if journal is not None:
        return Place(stream, journal=journal)
    if file is not None:
        return Place(stream, file=file)
    if settings.kafka is not None:
        return Place(stream, topic=kafka.streams(settings.kafka)[stream])
    if settings.sink.file is None:
        raise SinkError("records go to standard output, which cannot be read back: name --journal or --file")
    path = settings.sink.file
    return Place(stream, file=path if stream == "records" else path.with_name(f"{path.stem}.{stream}{path.suffix}"))


async def bodies(
    settings: Settings, place: Place, last: int | None = None, *, follow: bool = False
) -> AsyncIterator[bytes]:
    """The records (JSON) at `place`, the `last` ones only where given; `follow`: then all that come, for ever."""
    if place.topic:
        assert settings.kafka is not None  # noqa: S101 - a topic comes from there
        async for message in read_topic(kafka.connection(settings.kafka), place.topic, last, follow=follow):
            yield message.value
        return
    more = _journal(place.journal, place.stream) if place.journal is not None else _file(place.file)
    found = more()
    for body in found if last is None else found[max(0, len(found) - last) :]:
        yield body
    while follow:
        for body in more():
            yield body
        await asyncio.sleep(POLL_SECONDS)


def _journal(folder: Path, stream: str) -> Callable[[], list[bytes]]:
    """Each call reads what is new in all workers' journals."""
    if not folder.is_dir():
        raise SinkError(f"{folder}: there is no journal")
    journals = JournalFolder(folder)
    readers: dict[str, JournalReader] = {}

    def more() -> list[bytes]:
        found: list[bytes] = []
        for worker in journals.workers():
            reader = readers.setdefault(worker, journals.reader(worker, None))
            while entries := reader.read(BATCH_BYTES):
                found += [entry.body for entry in entries if entry.stream == stream and entry.body]
        return found

    return more


def _file(path: Path | None) -> Callable[[], list[bytes]]:
    """Each call reads the whole lines that are new; a file that is not there is empty: nothing was recorded yet."""
    assert path is not None  # noqa: S101 - see Place
    offset = 0

    def more() -> list[bytes]:
        nonlocal offset
        try:
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data.rfind(b"\n") + 1
        offset += whole
        return data[:whole].splitlines()

    return more


async def verified(settings: Settings, place: Place, *, schema: bool) -> Verifier:
    """Look at every record at `place`: numbers, copies, totals and, where asked, the schema."""
    verifier = Verifier(schema_check() if schema else None)
    async for body in bodies(settings, place):
        verifier.add(body)
    return verifier


def schema_check() -> Callable[[dict[str, Any]], str | None]:
    """What is wrong with a record by the schema of its own kind, in one line, or None."""
    kinds = record_schema()["$defs"]
    validators = {f"sidecar.{kind}.v1": Draft202012Validator(schema) for kind, schema in kinds.items()}

    def check(record: dict[str, Any]) -> str | None:
        validator = validators.get(str(record.get("type")))
        if validator is None:
            return f"type {record.get('type')!r} is not one of ours"
        error = best_match(validator.iter_errors(record))
        return None if error is None else f"{error.json_path}: {error.message}"

    return check


def is_json(body: bytes) -> bool:
    """Whether `body` can be shown as JSON."""
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True
