"""The state file of a node without Redis: written completely beside the old one, then renamed to its name.

    state           the newest state
    state.previous  the one before it, for a start that finds the newest one damaged
    state.keep      a journal position: a replay from the older of the two files needs the entries after it
    ….before-redis  the same three files, as they were when the node began to count on Redis; nothing reads them

A file consists of frames as in the journal: HEAD (version, time), NOTE (one per slice: a journal position, and the rows
that were in memory at it) and a last HEAD with the number of slices, without which the file is torn.

    HEAD  {"version": 1, "made_us": 1764547200000000}
    NOTE  {"written": "3.7.9120", "settled": "3.7.8800", "highest": 412, "rows": [["count", "sc:{acme}:…", …], …]}
    HEAD  {"version": 1, "slices": 1}

A start loads the rows and replays the journal from the smaller of the two positions, here byte 8800 of segment 7.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import orjson

from sidecar.core.decision.saved import KINDS
from sidecar.core.errors import SinkError, StateError
from sidecar.core.record.frame import (
    HEAD,
    NO_ID,
    NOTE,
    Frame,
    NewerVersionError,
    Position,
    encode_frame,
    scan,
)
from sidecar.edge.files import sync_folder, write_all, write_atomic

VERSION: Final = 3
SLICE_BYTES: Final = 256 << 10  # of rows in one frame, unless a single row has more
ROWS: Final = KINDS | {"open", "retry", "alert", "posted", "adjusted"}
_UNREADABLE: Final = (ValueError, LookupError, TypeError, AttributeError)
ASIDE: Final = ".before-redis"
_NAME, _PREVIOUS, _DRAFT, _KEEP = "state", "state.previous", "state.new", "state.keep"


Read = Callable[[Path], "Iterable[Slice]"]


class Followed(NamedTuple):
    """Another worker still writes to `folder` (a name); the rows include its journal up to `position`."""

    folder: str
    position: Position


class Slice(NamedTuple):
    """The `rows` at a time when all entries before `written` were reserved, and all before `settled` were settled.

    Records with numbers up to `highest`, in the epoch of `written`, were settled too.
    """

    written: Position
    settled: Position
    highest: int
    rows: list[Any]
    followed: tuple[Followed, ...] = ()


class DamagedError(SinkError):
    """A file is torn or corrupt, or is not a state."""


class AllDamagedError(StateError):
    """All state files of a folder are damaged."""


def read_slices(folder: Path) -> tuple[list[Slice], list[str]]:
    """The slices of the newest undamaged file, and the faults of a newer one; no slices if no state was ever saved.

    StateError: a newer version wrote the file, or all files are damaged. SinkError: a file cannot be read.
    """
    return _read_newest(folder, _read)


def check_slices(folder: Path) -> Slice | None:
    """The first slice. Raises as `read_slices`, but checks only the checksums of the other slices."""
    return next(iter(_read_newest(folder, _check)[0]), None)


def _read_newest(folder: Path, read: Read) -> tuple[list[Slice], list[str]]:
    faults: list[str] = []
    for name in (_NAME, _PREVIOUS):
        path = folder / name
        try:
            return list(read(path)), faults
        except FileNotFoundError:
            continue
        except DamagedError as error:
            faults.append(str(error))
        except NewerVersionError as error:
            raise StateError(f"{path}: {error}") from None
        except OSError as error:
            raise SinkError(f"{path}: cannot be read: {error.strerror}") from None
    if faults:
        raise AllDamagedError(
            f"{'; '.join(faults)}: counters and wallets are unknown. Restore the file from a backup, or remove "
            f"{folder / _NAME} and {folder / _PREVIOUS} to start with empty counters and wallets"
        )
    return [], faults


def needed_from(folder: Path) -> Position | None:
    """The position after which the counters need the journal; None: they need no entry. SinkError: it is unreadable."""
    try:
        return Position.parse((folder / _KEEP).read_text(encoding="ascii", errors="replace").strip())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SinkError(f"{folder / _KEEP}: cannot be read: {error.strerror}") from None


def keep_nothing(folder: Path) -> None:
    """Allow the deletion of all segments here, since the state is in another folder now."""
    (folder / _KEEP).unlink(missing_ok=True)


def is_kept(folder: Path) -> bool:
    """Whether a start without Redis needs entries of this folder."""
    return (folder / _KEEP).exists()


def holds_state(folder: Path) -> bool:
    """Whether a state was saved here."""
    return (folder / _NAME).exists()


def forget_states(folder: Path) -> None:
    """Remove states that are older than that of another folder, so that no start uses them."""
    for name in (_PREVIOUS, _NAME):
        (folder / name).unlink(missing_ok=True)


def set_aside(folder: Path) -> None:
    """Rename the files of a state, the newest last: a kill in between leaves either a complete state or none."""
    for name in (_PREVIOUS, _NAME, _KEEP):
        with suppress(FileNotFoundError):
            (folder / name).replace(folder / (name + ASIDE))


class StateFile:
    """A state file that is being written. After an OSError call `drop`: the old file stays."""

    def __init__(self, folder: Path, made_us: int) -> None:
        self._folder = folder
        self._made_us = made_us
        self._slices = 0
        self._first: Position | None = None
        self._fd = -1

    def open(self) -> Self:
        """Create the draft."""
        mode = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._fd = os.open(self._folder / _DRAFT, mode, 0o600)
        self._write(_head({"made_us": self._made_us}))
        return self

    def add(self, each: Slice) -> None:
        """Write one slice, in as many frames as it needs. A replay starts at the first slice's positions."""
        self._first = self._first or min(each.written, each.settled)
        where: dict[str, Any] = {"written": str(each.written), "settled": str(each.settled), "highest": each.highest}
        if each.followed:
            where["followed"] = {other.folder: str(other.position) for other in each.followed}
        for rows in _batches(each.rows):
            body = orjson.dumps(where)[:-1] + b',"rows":[' + b",".join(rows) + b"]}"
            self._write(encode_frame(NOTE, "", 0, NO_ID, b"", body))
            self._slices += 1

    def keep(self) -> None:
        """Sync it and rename it to `state`; the old file becomes `state.previous`."""
        self._write(_head({"slices": self._slices}))
        os.fsync(self._fd)
        os.close(self._fd)
        self._fd = -1
        last, previous = self._folder / _NAME, self._folder / _PREVIOUS
        if last.exists():
            last.replace(previous)
        (self._folder / _DRAFT).replace(last)
        sync_folder(self._folder)
        if self._first is not None:
            self._note_first(self._first)

    def _note_first(self, first: Position) -> None:
        """Write `state.keep`. It follows the files, so that the old position holds while they may be needed."""
        before = None
        with suppress(OSError, SinkError):
            before = next(iter(_read(self._folder / _PREVIOUS)), None)
        start = first if before is None else min(first, before.written, before.settled)
        write_atomic(self._folder / _KEEP, str(start).encode())

    def drop(self) -> None:
        """Delete the draft."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            (self._folder / _DRAFT).unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        write_all(self._fd, data)


def _head(more: dict[str, int]) -> bytes:
    return encode_frame(HEAD, "", 0, NO_ID, b"", orjson.dumps({"version": VERSION, **more}))


def _batches(rows: list[Any]) -> Iterator[list[bytes]]:
    """The rows as JSON, in batches of about SLICE_BYTES; one empty batch if there are no rows."""
    batch, size = list[bytes](), 0
    for row in map(orjson.dumps, rows):
        if size + len(row) > SLICE_BYTES and batch:
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += len(row)
    yield batch


def _read(path: Path) -> Iterator[Slice]:
    """The slices of one file; DamagedError at the first fault."""
    return (_slice(path, text) for text in _bodies(path))


def _check(path: Path) -> list[Slice]:
    """The first slice of one file. Raises as `_read`, except for the content of later slices."""
    bodies = _bodies(path)
    first = next(bodies)
    deque(bodies, maxlen=0)
    return [_slice(path, first)]


def _slice(path: Path, text: bytes) -> Slice:
    try:
        body = orjson.loads(text)
        written, settled = Position.parse(body["written"]), Position.parse(body["settled"])
        others = [Followed(name, Position.parse(place)) for name, place in body.get("followed", {}).items()]
        unknown = next((row for row in body["rows"] if row[0] not in ROWS), None)
        if unknown is None:
            return Slice(written, settled, body["highest"], body["rows"], tuple(others))
    except (*_UNREADABLE, SinkError) as error:
        raise DamagedError(f"{path}: is not a state file: {error!r}") from None
    raise DamagedError(f"{path}: has a row of an unknown kind: {str(unknown)[:40]}")


def _bodies(path: Path) -> Iterator[bytes]:
    """The slices of one file as JSON."""
    data = path.read_bytes()
    slices, is_whole, count = 0, False, 0
    for _, frame in scan(data):
        if not isinstance(frame, Frame):
            raise DamagedError(f"{path}: damaged: the checksum at byte {frame.start} does not match")
        if frame.type == HEAD:
            version, count = _read_head(path, frame.body)
            if version > VERSION:
                raise StateError(f"{path}: state of version {version}; this sidecar reads version {VERSION}")
            is_whole = count > 0
        elif frame.type == NOTE:
            slices += 1
            yield frame.body
        else:
            raise DamagedError(f"{path}: is not a state file: it has a frame of type {frame.type}")
    if not is_whole or count != slices:
        raise DamagedError(f"{path}: is torn: the end is missing")


def _read_head(path: Path, text: bytes) -> tuple[int, int]:
    """The version, and the number of slices (0: the frame has no number)."""
    try:
        body = orjson.loads(text)
        return int(body["version"]), int(body.get("slices", 0))
    except _UNREADABLE as error:
        raise DamagedError(f"{path}: is not a state file: {error!r}") from None
