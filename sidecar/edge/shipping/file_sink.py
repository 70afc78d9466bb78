"""Records to a JSON-lines file, each exactly once, through `kill -9` and power cuts; or to stdout, at least once.

The positions file says how far the journals were carried and how long each file was then; it is replaced as a whole,
after the records are on disk. Bytes beyond that length were never committed and are cut off on opening.
A position belongs to one journal, whose name is a part of its key: another journal is read from its own beginning.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from sidecar.core.errors import SinkError
from sidecar.edge.files import OwnedError, lock_file, sync_folder, write_all, write_atomic
from sidecar.ports import Entry

DENIALS = "denials"
MODE = 0o600  # of new files: records name customers and paths
_log = logging.getLogger(__name__)


def own_file(path: Path) -> int:
    """Become the only writer of a FileSink's files for as long as the descriptor that is returned stays open.

    SinkError: another process is, or the folder cannot be written. Two would cut off each other's records.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        return lock_file(lock)
    except OSError as error:
        raise SinkError(f"sink.file: {lock}: {error.strerror}") from None
    except OwnedError as owner:
        raise SinkError(
            f"{path}: the process with pid {owner} writes to it: stop it, or give this one a sink.file of its own"
        ) from None


class FileSink:
    """A RecordSink on a file of its own: records to `path`, denials to `<stem>.denials.jsonl` beside it.

    `journal` is the name of the journal that is carried here. The positions are in `<name>.positions` beside it; hold
    `own_file` as long as the sink is open. A file that was moved away is begun anew, by the next commit, so a rotation
    needs no signal; one that was cut is an error, because nobody can tell then what it held.
    """

    def __init__(self, path: Path, journal: str = "") -> None:
        self._paths = {"records": path, DENIALS: path.with_name(f"{path.stem}.{DENIALS}{path.suffix}")}
        self._marks = _Marks(path.with_name(path.name + ".positions"), journal)
        self._files: dict[str, int] = {}
        self._lengths: dict[str, int] = {}
        self._positions: dict[str, str] = {}

    async def open(self) -> Mapping[str, str]:
        """Cut off what was never committed; the committed positions. SinkError: a file is not as it was left."""
        await self.close()
        try:
            marks = self._marks.read()
            self._positions, lengths = marks["positions"], marks["lengths"]
            for stream, path in self._paths.items():
                self._files[stream], self._lengths[stream] = _open_at(path, lengths.get(stream, 0))
            if lengths and lengths != self._lengths:  # else a crash within a commit would leave them for a shorter file
                self._marks.write(self._positions, self._lengths)
        except OSError as error:
            raise SinkError(f"sink.file: {error.filename} cannot be opened: {error.strerror}") from error
        return dict(self._positions)

    async def commit(self, entries: Sequence[Entry], positions: Mapping[str, str]) -> None:
        """Append, sync, then replace the positions file.

        Not in a thread: a caller that is cancelled would close the file while the thread still writes to its number.
        """
        try:
            self._commit(entries, positions)
        except OSError as error:
            raise SinkError(f"{error.filename or self._paths['records']}: {error.strerror}") from error

    async def close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def _follow_rotation(self) -> None:
        """Begin anew each file that was moved away. Its length is noted first, as on opening."""
        moved = [stream for stream, path in self._paths.items() if _is_moved(path, self._files[stream])]
        for stream in moved:
            path = self._paths[stream]
            if path.exists() and path.stat().st_size:
                raise SinkError(f"{path}: another file with content is in its place: move that one away")
            os.close(self._files.pop(stream))
            self._files[stream], self._lengths[stream] = _open_at(path, 0)
        if moved:
            self._marks.write(self._positions, self._lengths)

    def _commit(self, entries: Sequence[Entry], positions: Mapping[str, str]) -> None:
        self._follow_rotation()
        lengths = dict(self._lengths)
        for stream, file in self._files.items():
            lines = [entry.body for entry in entries if entry.stream == stream]
            if lines:
                lines.append(b"")  # so that the last one ends too, without a copy of megabytes
                data = b"\n".join(lines)
                write_all(file, data)
                os.fdatasync(file)
                lengths[stream] += len(data)
        together = {**self._positions, **positions}
        self._marks.write(together, lengths)
        self._positions, self._lengths = together, lengths


class StdoutSink:
    """A RecordSink on a descriptor, as for a container's log: every record at least once.

    No more can be promised: a pipe does not tell what was read from it. A kill between the lines and the position
    repeats one batch; copies are recognised by their `id`. The positions are kept in `folder`.
    """

    def __init__(self, folder: Path, fd: int = 1, journal: str = "") -> None:
        self._marks = _Marks(folder / "stdout.positions", journal)
        self._fd = fd
        self._positions: dict[str, str] = {}

    async def open(self) -> Mapping[str, str]:
        try:
            self._positions = self._marks.read()["positions"]
        except OSError as error:
            raise SinkError(f"{error.filename}: {error.strerror}") from error
        return dict(self._positions)

    async def commit(self, entries: Sequence[Entry], positions: Mapping[str, str]) -> None:
        """Write all lines, then the positions. SinkError: the reader is gone or the positions cannot be kept."""
        together = {**self._positions, **positions}
        try:
            await asyncio.to_thread(write_all, self._fd, b"".join(entry.body + b"\n" for entry in entries))
            self._marks.write(together, {})
        except OSError as error:
            raise SinkError(f"{error.filename or 'standard output'}: {error.strerror}") from error
        self._positions = together

    async def close(self) -> None:
        """Nothing to let go of: the descriptor is the process's."""


class _Marks:
    """The positions file: always one whole state, the old one or the new.

    A position's key is `worker/journal`. Keys of older versions have no journal, and count as of this one.
    """

    def __init__(self, path: Path, journal: str) -> None:
        self._path = path
        self._journal = journal
        self._others: dict[str, str] = {}  # positions of other journals

    def read(self) -> dict[str, Any]:
        """`positions` of this journal by worker, `lengths` by stream. SinkError: the file was changed by hand."""
        try:
            marks = orjson.loads(self._path.read_bytes())
            return {"positions": self._ours(dict(marks["positions"])), "lengths": dict(marks["lengths"])}
        except FileNotFoundError:
            return {"positions": {}, "lengths": {}}
        except (ValueError, KeyError, TypeError) as error:
            raise SinkError(
                f"{self._path}: not a positions file ({error}); put back what it held, or move it and the records away"
            ) from error

    def write(self, positions: Mapping[str, str], lengths: Mapping[str, int]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        after = f"/{self._journal}" if self._journal else ""
        keyed = {**self._others, **{worker + after: position for worker, position in positions.items()}}
        write_atomic(self._path, orjson.dumps({"positions": keyed, "lengths": lengths}), mode=MODE)

    def _ours(self, keyed: dict[str, str]) -> dict[str, str]:
        plain, named, self._others = {}, {}, {}
        for key, position in keyed.items():
            worker, slash, journal = key.rpartition("/")
            if not slash:
                plain[key] = position
            elif journal == self._journal:
                named[worker] = position
            else:
                self._others[key] = position
        if self._others and not named and not plain:
            _log.warning(
                "%s: the positions are of another journal, so this one is read from its beginning. If the other one is"
                " lost, so is what it had not shipped",
                self._path,
            )
        return {**plain, **named}


def _is_moved(path: Path, file: int) -> bool:
    try:
        return not os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return True


def _open_at(path: Path, length: int) -> tuple[int, int]:
    """The file, cut to `length` and ready for appending, and its length: 0 where it was moved away and begins anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, MODE)
    size = os.fstat(fd).st_size
    if 0 < size < length:
        os.close(fd)
        raise SinkError(
            f"{path}: {size} bytes, and {length} were committed to it: put back what was cut, or move the file away"
        )
    length = min(size, length)
    os.ftruncate(fd, length)
    os.fsync(fd)
    sync_folder(path.parent)
    return fd, length
