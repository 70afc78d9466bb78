"""Reads records back from a journal, a file or a topic. Nothing is changed, and no node has to run.

Records of a topic or a file are committed. A journal has those on this disk: shipped segments are removed.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from heapq import nlargest
from itertools import chain, takewhile
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, NamedTuple

import jsonschema_rs
import orjson

from sidecar.core.errors import SinkError
from sidecar.core.record import record_schema
from sidecar.core.words import counted
from sidecar.edge.journal.journals import JournalFolder
from sidecar.edge.journal.reader import JournalReader
from sidecar.edge.kafka.records import read_last, read_topic
from sidecar.edge.rotation import compressed, not_taken, open_with_rotated, with_rotated
from sidecar.records.verify import Report, Verifier

POLL_SECONDS = 0.2
BATCH_BYTES = 1 << 20
END_BYTES = 64 << 20
_TIME = b'"time":"'
_NOTHING_YET = ": nothing was recorded there yet, or its path is wrong"
_NAMED = 5  # of the files that were not read
_UNPACK = {
    ".gz": "`gunzip -k`", ".zst": "`unzstd -k`", ".xz": "`unxz -k`", ".bz2": "`bunzip2 -k`", ".lz4": "`unlz4 -k`",
    ".lzma": "`unlzma -k`", ".Z": "`uncompress -k`",
}  # fmt: skip

More = Callable[[], Iterator[bytes]]
Bodies = AsyncIterator[bytes]


class RecordSource(NamedTuple):
    """Where to read: exactly one of journal, file and topic is set. `stream` is "records" or "denials".

    `connection` are the parameters of aiokafka's clients, for a topic. `rotated`: the files that `file` was rotated to
    are read before it, oldest first.
    """

    stream: str
    journal: Path | None = None
    file: Path | None = None
    topic: str = ""
    connection: Mapping[str, Any] = MappingProxyType({})
    rotated: bool = False

    @property
    def text(self) -> str:
        """The place for a message, with the number of rotated files."""
        others = len(with_rotated(self.file)) - 1 if self.rotated and self.file else 0
        return f"{self} and {counted(others, 'rotated file')}" if others else str(self)

    def compressed(self, copies: Iterable[Path] = ()) -> list[Path]:
        """The compressed rotated files, which are not read, without those that `copies` has unpacked."""
        return compressed(self.file, copies) if self.rotated and self.file else []

    def not_taken(self) -> dict[Path, str]:
        """The reasons by path, of other files that begin with the name of the file and are not read."""
        return not_taken(self.file) if self.rotated and self.file else {}

    def __str__(self) -> str:
        return f"topic {self.topic}" if self.topic else str(self.journal or self.file)


class Begin(NamedTuple):
    """Where reading goes on: offsets by partition of a topic, or what reads a file or a journal further."""

    offsets: Mapping[int, int] | None = None
    more: More | None = None


async def bodies(
    source: RecordSource, *, begin: Begin | None = None, follow: bool = False, since: datetime | None = None
) -> Bodies:
    """The records (JSON) at `source`, one after the other; `follow`: then all that come, for ever.

    `begin`: where `latest` ended. `since`: of a topic, messages that were sent before are left out. Memory is bounded,
    whatever there is to read.
    """
    if source.topic:
        after = begin.offsets if begin else None
        since_ms = int(since.timestamp() * 1_000) if since is not None else 0
        messages = read_topic(source.connection, source.topic, after, follow=follow, since_ms=since_ms)
        async for message in messages:
            yield message.value
        return
    more = begin.more if begin and begin.more else _more(source)
    for body in more():
        yield body
    while follow:
        await asyncio.sleep(POLL_SECONDS)
        for body in more():
            yield body


async def latest(source: RecordSource, number: int, *, may_be_missing: bool = False) -> tuple[list[bytes], Begin]:
    """The last `number` records at `source` by their time, oldest first, and where what comes later begins.

    Of a file its last 64 MiB are looked at: a journal that was shipped late may have older records before them.
    `may_be_missing`: a file that does not exist yet has no records. SinkError: otherwise it cannot be read.
    """
    if source.topic:
        messages, offsets = await read_last(source.connection, source.topic, number)
        return _last_by_time((message.value for message in messages), number), Begin(offsets=offsets)
    earlier = with_rotated(source.file)[:-1] if source.rotated and source.file else []
    may_be_missing = may_be_missing or bool(earlier)
    more = _more(source._replace(rotated=False), only_end=True, may_be_missing=may_be_missing)
    last = _last_by_time(more(), number)
    while earlier and len(last) < number:
        rest = _file(earlier.pop(), only_end=True, may_be_missing=True)
        last = _last_by_time(chain(rest(), last), number)
    return last, Begin(more=more)


def _last_by_time(records: Iterable[bytes], number: int) -> list[bytes]:
    keyed = ((_time_of(body), place, body) for place, body in enumerate(records))
    return [body for _, _, body in sorted(nlargest(number, keyed))]


def _time_of(body: bytes) -> bytes:
    """Its time: of one length and one zone, so it sorts as text. Our writer puts no space after a colon."""
    start = body.find(_TIME)
    return body[start + len(_TIME) : body.find(b'"', start + len(_TIME))] if start >= 0 else b""


def _more(source: RecordSource, *, only_end: bool = False, may_be_missing: bool = False) -> More:
    """Each call of what is returned gives what is new at `source`."""
    if source.journal is not None:
        return _journal(source.journal, source.stream)
    assert source.file is not None  # noqa: S101 - see RecordSource
    may_be_missing = may_be_missing or bool(source.compressed())  # then it was rotated, and is not begun anew yet
    return _file(source.file, only_end=only_end, may_be_missing=may_be_missing, rotated=source.rotated)


def _journal(folder: Path, stream: str) -> More:
    """Each call gives the new entries of all workers' journals."""
    if not folder.is_dir():
        reason = os.strerror(errno.ENOTDIR if folder.exists() else errno.ENOENT)
        raise SinkError(f"{folder}: cannot be read: {reason}{'' if folder.exists() else _NOTHING_YET}")
    journals = JournalFolder(folder)
    readers: dict[str, JournalReader] = {}

    def more() -> Iterator[bytes]:
        for worker in journals.workers():
            reader = readers.setdefault(worker, journals.reader(worker, None))
            while entries := reader.read(BATCH_BYTES):
                yield from (entry.body for entry in entries if entry.stream == stream and entry.body)

    return more


def _file(path: Path, *, only_end: bool, may_be_missing: bool, rotated: bool = False) -> More:
    """The whole lines that are new. SinkError: it cannot be read, or does not exist and may not be missing.

    `rotated`: those of the rotated files first, once. If another file is at `path` since the last call, the rest of the
    one that was moved away comes first, then all of the new one; a file that was cut is read from its beginning.
    """
    offset, identity = -1, (0, 0)

    def more() -> Iterator[bytes]:
        nonlocal offset, identity
        is_first, offset_before = offset < 0, max(offset, 0)
        with ExitStack() as stack:
            files = [stack.enter_context(file) for file in _open_files(path, rotated and is_first, may_be_missing)]
            offset = offset_before
            for file in files:
                is_own = Path(file.name) == path
                if is_own:
                    status = os.fstat(file.fileno())
                    before, identity = identity, (status.st_dev, status.st_ino)
                    if identity != before:
                        yield from _rest_of(path, before, offset)
                    is_new = identity != before or status.st_size < offset
                    offset = _start_of_end(file) if only_end and is_first else 0 if is_new else offset
                    file.seek(offset)
                for line in _whole_lines(file):
                    offset += len(line) * is_own
                    yield line[:-1]

    return more


def _rest_of(path: Path, identity: tuple[int, int], offset: int) -> Iterator[bytes]:
    """The whole lines after `offset` in the file of that device and inode, if a rotated file is it."""
    for each in with_rotated(path)[:-1]:
        with suppress(OSError), each.open("rb") as file:
            status = os.fstat(file.fileno())
            if (status.st_dev, status.st_ino) == identity:
                file.seek(offset)
                yield from (line[:-1] for line in _whole_lines(file))


def _whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    return takewhile(lambda line: line.endswith(b"\n"), file)


def _open_files(path: Path, rotated: bool, may_be_missing: bool) -> list[IO[bytes]]:
    try:
        return open_with_rotated(path) if rotated else [path.open("rb")]
    except OSError as error:
        if may_be_missing and isinstance(error, FileNotFoundError):
            return []
        more = _NOTHING_YET if isinstance(error, FileNotFoundError) else ""
        raise SinkError(f"{error.filename or path}: cannot be read: {error.strerror}{more}") from None


def not_read(packed: Sequence[Path]) -> str:
    """Says which compressed files were not read, and what unpacks them."""
    names = " ".join(map(str, packed[:_NAMED]))
    more = f" and {len(packed) - _NAMED} more" if len(packed) > _NAMED else ""
    tools = dict.fromkeys(_UNPACK[each.suffix] for each in packed)
    verb = "was" if len(packed) == 1 else "were"
    return f"{names}{more} {verb} not read, since compressed: unpack with {' or '.join(tools)}, and repeat the command"


def _start_of_end(file: IO[bytes]) -> int:
    """Where the first whole line of the file's last END_BYTES begins."""
    start = file.seek(0, os.SEEK_END) - END_BYTES
    if start <= 0:
        return 0
    file.seek(start - 1)
    file.readline()
    return file.tell()


async def verified(source: RecordSource, *, schema: bool, may_begin_late: bool = False) -> Report:
    """Look at every record at `source`: numbers, copies, totals and, where asked, the schema.

    A journal may begin late: what is shipped is removed. `may_begin_late` says the same of a file or a topic.
    """
    verifier = Verifier(schema_check() if schema else None)
    verifier.report.may_begin_late = may_begin_late or source.journal is not None
    async for body in bodies(source):
        verifier.add(body)
    verifier.close()
    return verifier.report


def schema_check() -> Callable[[dict[str, Any]], str | None]:
    """A function that gives the first fault of a record by the schema of its kind, in one line, or None."""
    validators = _validators()

    def check(record: dict[str, Any]) -> str | None:
        validator = validators.get(str(record.get("type")))
        if validator is None:
            return f"type {record.get('type')!r} is not one of ours"
        return None if validator.is_valid(record) else _text(next(validator.iter_errors(record)))

    return check


def schema_faults() -> Callable[[dict[str, Any]], list[str]]:
    """A function that gives all faults of a usage record by its schema, each in one line."""
    validator = _validators()["sidecar.usage.v1"]

    def check(record: dict[str, Any]) -> list[str]:
        return [] if validator.is_valid(record) else [_text(error) for error in validator.iter_errors(record)]

    return check


def _validators() -> dict[str, jsonschema_rs.Draft202012Validator]:
    kinds = record_schema()["$defs"]
    return {f"sidecar.{kind}.v1": jsonschema_rs.Draft202012Validator(schema) for kind, schema in kinds.items()}


def _text(error: jsonschema_rs.ValidationError) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
    return f"${path}: {error.message}"


def is_json(body: bytes) -> bool:
    """Whether `body` can be shown as JSON."""
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True
