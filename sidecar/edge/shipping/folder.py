"""The files of the shipper beside the journals: the quarantine, the permanent name of the journal, and its lock.

A line is in the quarantine before the position moves past its entry, and once, however often the shipper was killed
in between. The name is made with the folder, so that a new volume under an old node name is not taken for the old one.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

import orjson

from sidecar.core.errors import SinkError
from sidecar.edge.files import OwnedError, lock_file, sync_folder, write_synced
from sidecar.ports import Entry

QUARANTINE = "quarantine"
_NAME = "journal.id"
_LOCK = "shipper.lock"
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
_IS_NAME = re.compile(r"[0-9a-f]{16}").fullmatch


def journal_id(directory: Path) -> str:
    """The journal's name, 16 hex digits, made on first use and synced. OSError: the folder cannot be written.

    SinkError: the file holds something else. Another name would be taken for a new journal and ship all of it again.
    """
    path = directory / _NAME
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}")
        write_synced(fresh, secrets.token_hex(8).encode(), mode=0o644)
        try:
            os.link(fresh, path)  # the first one wins, also between processes
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
        sync_folder(directory)
    name = path.read_text(encoding="ascii", errors="replace").strip()
    if not _IS_NAME(name):
        raise SinkError(
            f"{path}: holds {name[:16]!r}, not the journal's name of 16 hexadecimal digits. Write the name into it "
            "that the keys of the sink's positions end with, or remove it: then all that is still in the journal is "
            "shipped again"
        )
    return name


def own(directory: Path) -> int:
    """Become the folder's only shipper for as long as the descriptor that is returned stays open.

    SinkError: another process is.
    """
    try:
        return lock_file(directory / _LOCK)
    except OwnedError as owner:
        raise SinkError(f"{directory}: another process is shipping this journal (pid {owner}); stop it first") from None


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
        write_synced(self._path(worker), _line(place, entry, reason), _APPEND, mode=0o644)
        sync_folder(self._folder)
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
