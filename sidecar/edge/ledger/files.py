"""The ledger's folder: files whose names say which offsets they hold, so that the names alone say where to go on.

    ledger.json                                  format, a random id, and the cluster or file that each topic is of
    <topic>/p0007.lock, p0007.compaction         held by the one process that loads, or compacts, the partition
    <topic>/p0007.<first>-<last>.<digest>.parquet  offsets with 18 digits, both included; digests.py has the digest

A file appears whole or not at all: written beside its place, synced, renamed, its folder synced. Where a kill left the
parts of a compacted file beside it, the parts are ignored, because the larger range covers them. Other overlaps, names
that are not ours, and files that are damaged or were written for another place (footers.py) are refused by name, and
the rest is read: what is refused covers nothing, and no load goes on behind it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from sidecar.core.errors import SinkError
from sidecar.edge.files import OwnedError, lock_file, sync_folder, write_atomic
from sidecar.edge.ledger.digests import DIGITS, digest_of
from sidecar.edge.ledger.footers import COPY, fault_of
from sidecar.edge.ledger.schema import FORMAT

_NAME: Final = re.compile(rf"p(\d{{4,6}})\.(\d{{18}})-(\d{{18}})\.([0-9a-f]{{{DIGITS}}})\.parquet", re.ASCII)
_NOT_OURS: Final = "not a name of the ledger: give it the name that it had, or delete it and load again"
_LAST: Final = "; loading goes on before it, after the last good file: delete it and load again"
_LISTINGS: Final = 10
_MODE: Final = 0o640  # records name customers and paths
LOADING: Final = "loading"
COMPACTING: Final = "compacting"
_LOCKS: Final = {LOADING: ("lock", "loads"), COMPACTING: ("compaction", "compacts")}
SEALED: Final = "sealed"  # a folder that is not a topic
FILE_TOPIC: Final = "file."  # the topic of a sink file begins with this


class LedgerFile(NamedTuple):
    """One file: the offsets from `first` to `last`, both included, of a partition. `digest`: "" until it has a name."""

    topic: str
    part: int
    first: int
    last: int
    digest: str = ""

    @property
    def place(self) -> str:
        """Topic, partition and offsets, as its name has them."""
        return f"{self.topic}/p{self.part:04}.{self.first:018}-{self.last:018}"

    @property
    def name(self) -> str:
        """The file's name in the folder of its topic."""
        digest = f".{self.digest}" if self.digest else ""
        return f"{self.place[len(self.topic) + 1 :]}{digest}.parquet"

    def __str__(self) -> str:
        return f"{self.topic}/{self.name}"


class Listing(NamedTuple):
    """The files to read, those that a larger one covers, and what is refused: a name and why."""

    files: list[LedgerFile]
    covered: list[LedgerFile]
    refused: list[tuple[str, str]]

    def of(self, topic: str, part: int) -> list[LedgerFile]:
        """The files of a partition, in order."""
        return [each for each in self.files if (each.topic, each.part) == (topic, part)]

    def position(self, topic: str, part: int) -> int:
        """The offset after the last one that is here; 0 without files."""
        return max([each.last + 1 for each in self.of(topic, part)], default=0)

    def gaps(self) -> list[tuple[LedgerFile, LedgerFile]]:
        """Neighbours of a partition between which offsets are in no file."""
        pairs = zip(self.files, self.files[1:], strict=False)
        return [(a, b) for a, b in pairs if a[:2] == b[:2] and b.first > a.last + 1]


class Disk:
    """The steps by which files appear and go; tests end the process before and after each. All raise OSError."""

    def sync(self, path: Path) -> None:
        """Make the contents durable."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, draft: Path, path: Path) -> None:
        """Give the file its name."""
        draft.replace(path)

    def sync_folder(self, path: Path) -> None:
        """Make the names durable."""
        sync_folder(path)

    def delete(self, path: Path) -> None:
        """Remove a file that another one covers."""
        path.unlink(missing_ok=True)


class LedgerFolder:
    """The folder of a ledger. SinkError from each method: the folder cannot be used, and why."""

    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        self.path = path
        self.disk = disk or Disk()

    def identify(self, origins: Mapping[str, str] | None = None) -> None:
        """Write ledger.json on first use, and check the folder against it. `origins`: of each topic, such as a cluster.

        A topic of another origin has the same offsets for other records, so it is refused.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path / "ledger.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        except OSError as error:
            raise SinkError(f"{self.path}: the ledger cannot be written here: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # for moments: two first loads would write two ids
            self._identify(origins or {})
        finally:
            os.close(fd)

    def _identify(self, origins: Mapping[str, str]) -> None:
        about = self.identity()
        known: dict[str, str] = dict(about.get("origins", {}))
        for topic, origin in origins.items():
            if known.setdefault(topic, origin) != origin:
                raise SinkError(
                    f"{self.path}: {topic} was loaded from {known[topic]}, and this is {origin}: set another ledger.dir"
                )
        wanted = {"format": FORMAT, "id": about.get("id") or secrets.token_hex(8), "origins": known}
        if wanted == about:
            return
        try:
            write_atomic(self.path / "ledger.json", json.dumps(wanted, indent=1).encode() + b"\n")
        except OSError as error:
            raise SinkError(f"{self.path}: the ledger cannot be written here: {error.strerror}") from error

    def identity(self) -> dict[str, Any]:
        """The contents of ledger.json; empty before the first use."""
        path = self.path / "ledger.json"
        try:
            about = json.loads(path.read_bytes())
            form = int(about["format"])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SinkError(f"{path}: not a ledger's ({error}): put back what it held") from error
        if form > FORMAT:
            raise SinkError(f"{path}: format {form} is of a newer version; this one reads up to {FORMAT}")
        return dict(about)

    def listing(self) -> Listing:
        """All files, in order of topic, partition and offset.

        The folder is read until two readings agree: a compaction between them could hide both a file and its parts.
        """
        names = self._names()
        for _ in range(_LISTINGS):
            before, names = names, self._names()
            if names == before:
                break
        files: list[LedgerFile] = []
        faults: list[tuple[LedgerFile, str]] = []
        foreign: list[tuple[str, str]] = []
        for topic, name in names:
            each = _parsed(topic, name)
            if each is None:
                foreign.append((f"{topic}/{name}", _NOT_OURS))
            elif fault := "its range is empty" if each.last < each.first else fault_of(self.at(each), each.place):
                faults.append((each, fault))
            else:
                files.append(each)
        return _resolve(files, faults, foreign)

    def at(self, file: LedgerFile) -> Path:
        """The path of a file."""
        return self.path / file.topic / file.name

    def lock(self, topic: str, part: int, what: str = LOADING) -> int:
        """Become the only one who loads, or compacts, a partition until the descriptor is closed.

        Both go on at the same time: a load only adds a file behind all others. OwnedError: another process does.
        """
        suffix, verb = _LOCKS[what]
        try:
            fd = lock_file(self.path / topic / f"p{part:04}.{suffix}")
            sync_folder(self.path)  # the topic's folder may be new
        except OwnedError as owner:
            raise OwnedError(f"{topic} partition {part}: the process with pid {owner} {verb} it") from None
        except OSError as error:
            raise SinkError(f"{self.path}: the ledger cannot be written here: {error.strerror}") from error
        return fd

    def work_file(self, topic: str, part: int, kind: str) -> Path:
        """A path for what a writer of the partition has under way. `clear_work` removes what a killed one left."""
        return self.path / topic / f"p{part:04}.{kind}"

    def clear_work(self, topic: str, part: int, *kinds: str) -> None:
        """Remove what a killed writer left. The caller holds the lock."""
        for kind in kinds:
            with suppress(FileNotFoundError):
                self.work_file(topic, part, kind).unlink()

    def publish(self, draft: Path, file: LedgerFile) -> LedgerFile:
        """Give a whole draft its name with its digest, durably."""
        try:
            draft.chmod(_MODE)
            self.disk.sync(draft)
            named = file._replace(digest=digest_of(draft, file.place))
            self.disk.rename(draft, self.at(named))
            self.disk.sync_folder(draft.parent)
        except OSError as error:
            raise SinkError(f"{self.at(file)}: {error.strerror}") from error
        return named

    def delete(self, files: Iterable[LedgerFile]) -> None:
        """Remove files that others cover, or that are no longer retained."""
        try:
            for file in files:
                self.disk.delete(self.at(file))
        except OSError as error:
            raise SinkError(f"{self.path}: {error.strerror}") from error

    def _names(self) -> list[tuple[str, str]]:
        try:
            topics = [
                each.name
                for each in os.scandir(self.path)
                if each.is_dir() and each.name != SEALED and each.name[0] != "."
            ]
            return sorted(
                (topic, each.name)
                for topic in topics
                for each in os.scandir(self.path / topic)
                if each.name.endswith(".parquet")
            )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SinkError(f"{error.filename}: the ledger cannot be read: {error.strerror}") from error


def _parsed(topic: str, name: str) -> LedgerFile | None:
    """The file of this name; None: the ledger does not write such a name."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    part, first, last = map(int, match.groups()[:3])
    file = LedgerFile(topic, part, first, last, match[4])
    return file if file.name == name else None


def _resolve(
    files: list[LedgerFile], faults: list[tuple[LedgerFile, str]], foreign: list[tuple[str, str]]
) -> Listing:  # fmt: skip
    """Part what is to be read from what is covered, and refuse a file that overlaps another in part."""
    chosen: list[LedgerFile] = []
    covered: list[LedgerFile] = []
    ends: dict[tuple[str, int], int] = {}
    for each in sorted(files, key=lambda file: (file.topic, file.part, file.first, -file.last)):
        last = chosen[-1] if chosen and chosen[-1][:2] == each[:2] else None
        if last is None or each.first > last.last:
            chosen.append(each)
            ends[each.topic, each.part] = each.last
        elif each.last <= last.last:
            covered.append(each)
        else:
            faults.append((each, f"its offsets overlap those of {last.name}"))
    refused = [
        (str(file), why + _LAST * (file.last > ends.get(file[:2], -1) and not why.startswith(COPY)))
        for file, why in faults
    ]
    return Listing(chosen, covered, [*foreign, *refused])
