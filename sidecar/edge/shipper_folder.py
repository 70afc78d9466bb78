"""What the shipper keeps beside the journals: the quarantine, the journal's name for life, and the lock of its owner.

A line is in the quarantine before the position moves past its entry, and once, however often the shipper was killed
in between. The name is made with the folder, so that a new volume under an old node name is not taken for the old one.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path

import orjson

from sidecar.core.errors import SinkError
from sidecar.ports import Entry

QUARANTINE = "quarantine"
_NAME = "journal.id"
_LOCK = "shipper.lock"


def journal_id(directory: Path) -> str:
    """The journal's name, 16 hex digits, made on first use and synced. OSError: the folder cannot be written."""
    path = directory / _NAME
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}")
        _write_synced(fresh, secrets.token_hex(8).encode(), os.O_TRUNC)
        try:
            os.link(fresh, path)  # the first one wins, also between processes
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
        _sync_folder(directory)
    return path.read_text(encoding="ascii").strip()


def own(directory: Path) -> int:
    """Become the folder's only shipper for as long as the descriptor that is returned stays open.

    SinkError: another process is.
    """
    directory.mkdir(parents=True, exist_ok=True)
    fd = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise SinkError(f"{directory}: another process is shipping this journal; stop it first") from None
    return fd


class FileQuarantine:
    """`quarantine/<worker>.jsonl` under the journal: a line an entry, with its place, the reason and the body."""

    def __init__(self, directory: Path) -> None:
        self._folder = directory / QUARANTINE
        self._known: dict[str, set[str]] = {}

    def put(self, worker: str, entry: Entry, reason: str) -> None:
        """Keep the entry on disk, synced; once, however often it is put. OSError: it is not kept."""
        known = self._known.get(worker)
        if known is None:
            known = self._known[worker] = self._read(worker)
        place = str(entry.position_after)
        if place in known:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        _write_synced(self._path(worker), _line(place, entry, reason), os.O_APPEND)
        _sync_folder(self._folder)
        known.add(place)

    def _path(self, worker: str) -> Path:
        return self._folder / f"{worker}.jsonl"

    def _read(self, worker: str) -> set[str]:
        """The places of all whole lines; a torn last one is cut off, because its entry will be put again."""
        path = self._path(worker)
        if not path.exists():
            return set()
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)
        return {orjson.loads(line)["place"] for line in data[:whole].splitlines()}


def _line(place: str, entry: Entry, reason: str) -> bytes:
    line = {
        "place": place,
        "reason": reason,
        "stream": entry.stream,
        "sequence": entry.sequence,
        "id": entry.id.decode("ascii", "replace"),
        "key": entry.key.decode("utf-8", "backslashreplace"),
        "body": entry.body.decode("utf-8", "backslashreplace"),
    }
    return orjson.dumps(line) + b"\n"


def _write_synced(path: Path, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | mode, 0o644)
    try:
        while data:
            data = data[os.write(fd, data) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_folder(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
