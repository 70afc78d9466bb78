"""Sink files as topics: `file.<digest of the first line>`, one partition, offsets that are places in bytes.

So a file that was renamed or has grown goes on where it was read to. One that is shorter than what was loaded, or has
other bytes there, is another file or was changed: it is refused. Bytes that the sink has not committed are not read.
A file is opened once, by its name: if it is moved away meanwhile, nothing is read of the one that took its place.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO, Final

import orjson

from sidecar.core.errors import SinkError
from sidecar.edge.files import open_regular
from sidecar.edge.ledger.files import FILE_TOPIC
from sidecar.edge.ledger.lines import Pair

_CHUNK_BYTES: Final = 8 << 20
_TAIL_BYTES: Final = 4_096
_DENIALS: Final = ".denials"
_COMPRESSED: Final = {  # the first bytes of such a file, and what decompresses it
    b"\x1f\x8b": "gunzip",
    b"\x28\xb5\x2f\xfd": "unzstd",
    b"BZh": "bunzip2",
    b"\xfd7zXZ\0": "unxz",
}


class ShortFileError(SinkError):
    """A file is shorter than what was loaded of it: it was cut, or is a copy of the beginning of another one."""


class SinkFile(AbstractContextManager["SinkFile"]):
    """A file of JSON lines to load, open until the end of its block. SinkError: it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = open_regular(path)
        except OSError as error:
            raise SinkError(f"{path}: {error.strerror}") from error
        self._first = first = self._file.readline()
        self.size = os.fstat(self._file.fileno()).st_size
        self.topic = FILE_TOPIC + hashlib.sha256(first.rstrip(b"\n")).hexdigest()[:16] if first.endswith(b"\n") else ""
        committed = _committed(path)
        self.end = self.size if committed is None else min(committed, self.size)

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def check_format(self) -> None:
        """SinkError: no sink wrote this file, by its first line. One that has no whole line yet passes."""
        for magic, tool in _COMPRESSED.items():
            if self._first.startswith(magic):
                raise SinkError(f"{self.path}: compressed: decompress it first, with {tool}")
        if self.topic and (fault := _fault_of(self._first)):
            raise SinkError(f"{self.path}: not a sink file: its first line is not {fault}")

    def check(self, position: int, tail: str) -> None:
        """SinkError: not the file that was loaded up to `position`, where its last bytes had the digest `tail`."""
        if position > self.size:
            raise ShortFileError(
                f"{self.path}: {self.size} bytes, and {position} were loaded: it was cut; load the whole file"
            )
        if position and tail and self.tail(position) != tail:
            raise SinkError(f"{self.path}: not the file that was loaded: its bytes before {position} have changed")

    def tail(self, position: int) -> str:
        """The digest of the last bytes before `position`."""
        self._file.seek(max(0, position - _TAIL_BYTES))
        return hashlib.sha256(self._file.read(min(position, _TAIL_BYTES))).hexdigest()

    def chunks(self, position: int) -> Iterator[tuple[list[Pair], int]]:
        """The whole lines from `position` on, with their places, and the place after the last of them."""
        while position < self.end:
            self._file.seek(position)
            data = self._file.read(min(_CHUNK_BYTES, self.end - position))
            whole = data.rfind(b"\n") + 1
            if not whole:
                data += self._file.readline()  # a line longer than a chunk
                whole = len(data) if data.endswith(b"\n") and position + len(data) <= self.end else 0
            if not whole:
                return
            yield list(_places(data[:whole], position)), position + whole
            position += whole


def longer_copy(path: Path, others: Iterable[Path]) -> Path | None:
    """The one of `others` that has all bytes of `path` and more: nothing is lost where that is loaded. None: no such.

    OSError: `path` cannot be read. Others that cannot be read are passed over.
    """
    for other in others:
        with suppress(FileNotFoundError, PermissionError), path.open("rb") as short, other.open("rb") as long:
            size = os.fstat(short.fileno()).st_size
            if os.fstat(long.fileno()).st_size > size and _is_beginning(short, long, size):
                return other
    return None


def _is_beginning(short: IO[bytes], long: IO[bytes], size: int) -> bool:
    while size > 0 and (data := short.read(min(_CHUNK_BYTES, size))):
        if data != long.read(len(data)):
            return False
        size -= len(data)
    return size == 0


def _places(data: bytes, position: int) -> Iterator[Pair]:
    for line in data.split(b"\n")[:-1]:
        if line:
            yield position, line
        position += len(line) + 1


def _fault_of(line: bytes) -> str:
    """The format that a line lacks, as words after "is not"; "" if it may be a record, which the load looks at."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        record = None
    if not isinstance(record, dict):
        return "a JSON object"
    return "" if "type" in record else "a record: it has no type"


def _committed(path: Path) -> int | None:
    """How many bytes of a sink's own file are committed; None: no sink writes it."""
    stem = path.stem
    is_denials = stem.endswith(_DENIALS)
    name = f"{stem.removesuffix(_DENIALS)}{path.suffix}" if is_denials else path.name
    with suppress(OSError, ValueError, KeyError, TypeError):
        lengths = orjson.loads(path.with_name(name + ".positions").read_bytes())["lengths"]
        return int(lengths["denials" if is_denials else "records"])
    return None
