"""Sink files as topics: `file.<digest of the first line>`, one partition, offsets that are places in bytes.

So a file that was renamed or has grown goes on where it was read to. One that is shorter than what was loaded, or has
other bytes there, is another file or was changed: it is refused. Bytes that the sink has not committed are not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

import orjson

from sidecar.core.errors import SinkError
from sidecar.edge.ledger.files import FILE_TOPIC
from sidecar.edge.ledger.lines import Pair

_CHUNK_BYTES: Final = 8 << 20
_TAIL_BYTES: Final = 4_096
_DENIALS: Final = ".denials"


class SinkFile:
    """A file of JSON lines to load. SinkError: it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                first = file.readline()
            self.size = path.stat().st_size
        except OSError as error:
            raise SinkError(f"{path}: {error.strerror}") from error
        self.topic = FILE_TOPIC + hashlib.sha256(first.rstrip(b"\n")).hexdigest()[:16] if first.endswith(b"\n") else ""
        committed = _committed(path)
        self.end = self.size if committed is None else min(committed, self.size)

    def check(self, position: int, tail: str) -> None:
        """SinkError: not the file that was loaded up to `position`, where its last bytes had the digest `tail`."""
        if position > self.size:
            raise SinkError(
                f"{self.path}: {self.size} bytes, and {position} were loaded: it was cut; load the whole file"
            )
        if position and tail and self.tail(position) != tail:
            raise SinkError(f"{self.path}: not the file that was loaded: its bytes before {position} have changed")

    def tail(self, position: int) -> str:
        """The digest of the last bytes before `position`."""
        with self._open(max(0, position - _TAIL_BYTES)) as file:
            return hashlib.sha256(file.read(min(position, _TAIL_BYTES))).hexdigest()

    def chunks(self, position: int) -> Iterator[tuple[list[Pair], int]]:
        """The whole lines from `position` on, with their places, and the place after the last of them."""
        with self._open(position) as file:
            while position < self.end:
                data = file.read(min(_CHUNK_BYTES, self.end - position))
                whole = data.rfind(b"\n") + 1
                if not whole:
                    data += file.readline()  # a line longer than a chunk
                    whole = len(data) if data.endswith(b"\n") and position + len(data) <= self.end else 0
                if not whole:
                    return
                yield list(_places(data[:whole], position)), position + whole
                position += whole
                file.seek(position)

    def _open(self, position: int) -> IO[bytes]:
        try:
            file = self.path.open("rb")
            file.seek(position)
        except OSError as error:
            raise SinkError(f"{self.path}: {error.strerror}") from error
        return file


def _places(data: bytes, position: int) -> Iterator[Pair]:
    for line in data.split(b"\n")[:-1]:
        if line:
            yield position, line
        position += len(line) + 1


def _committed(path: Path) -> int | None:
    """How many bytes of a sink's own file are committed; None: no sink writes it."""
    stem = path.stem
    is_denials = stem.endswith(_DENIALS)
    name = f"{stem.removesuffix(_DENIALS)}{path.suffix}" if is_denials else path.name
    with suppress(OSError, ValueError, KeyError, TypeError):
        lengths = orjson.loads(path.with_name(name + ".positions").read_bytes())["lengths"]
        return int(lengths["denials" if is_denials else "records"])
    return None
