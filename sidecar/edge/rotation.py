"""The files that a sink's file was rotated to, as logrotate names them, and those of them that are compressed.

Rotated files are read before the file that they were moved away from, oldest first. They are opened together: files
that are moved on meanwhile are neither left out nor read twice. Compressed files are never read; a command that reads
the others names them where they matter, and those whose names are not understood.

    records.jsonl.2   records.jsonl.1                      a number of up to four digits: the higher is the older
    records.jsonl-20261121   records.jsonl.2026112114      a date, with a time or not: the lower is the older
    records.jsonl-2026-11-21   records.jsonl-1796100000    the same; 10 or 13 digits from 1 on are seconds or ms of Unix
"""

from __future__ import annotations

import errno
import glob
import os
import re
import stat
import zlib
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

_PACKED: Final = r"(?P<packed>\.(?:gz|zst|xz|bz2|lz4|lzma|Z))?"
_ROTATED: Final = re.compile(
    r"(?:\.(?P<number>[0-9]{1,4})|[.-](?P<date>(?:[0-9]{8,14}|[0-9]{4}-[0-9]{2}-[0-9]{2})(?:[-_T:][0-9]{2,14})*))"
    + _PACKED
)
_IS_PACKED: Final = re.compile(r".*" + _PACKED.rstrip("?"), re.DOTALL)
_EPOCH: Final = re.compile(r"1[0-9]{9}(?:[0-9]{3})?")  # seconds or ms since 1970, until 2033
_OF_THE_SINK: Final = re.compile(r"\.lock|\.positions.*", re.DOTALL)
_SKIPPED_FILE: Final = "not taken for a rotated file: name it with --file"
_ATTEMPTS: Final = 100
_CHUNK_BYTES: Final = 1 << 20
_GZIP_TRAILER: Final = 8  # CRC-32 and size modulo 2^32 of what was packed, little-endian (RFC 1952, 2.3.1)


def with_rotated(path: Path) -> list[Path]:
    """The file after those that were moved away from its place, oldest first, by the names above.

    Compressed ones are not among them. A file of a later name may refer to records of an earlier one.
    """
    return [*_rotated(path, packed=False), path]


def compressed(path: Path, copies: Iterable[Path] = ()) -> list[Path]:
    """The compressed rotated files of which nothing unpacked is beside `path` or among `copies`, oldest first.

    An unpacked file is known by its contents (`.gz`), else by name and time of change, which tools keep. So a file
    that has only the name of another is not a copy. A file that cannot be read has no copies.
    """
    packed = _rotated(path, packed=True)
    plain = [*with_rotated(path), *copies] if packed else []
    return [each for each in packed if not any(_is_unpacked(each, copy) for copy in plain)]


def open_with_rotated(path: Path) -> list[IO[bytes]]:
    """The files of `with_rotated`, open at once; one at `path` may be absent where there are rotated ones.

    OSError: one of them cannot be opened, or none exists.
    """
    for _ in range(_ATTEMPTS):
        with ExitStack() as stack:
            files: list[IO[bytes]] = []
            for each in with_rotated(path):
                try:
                    files.append(stack.enter_context(each.open("rb")))
                except FileNotFoundError:
                    continue  # not there yet, or moved on: then the names are others
            if [_identity(os.fstat(file.fileno())) for file in files] == _identities(path):
                if not files:
                    path.open("rb").close()  # raises what is wrong
                stack.pop_all()
                return files
    raise OSError(0, "is rotated too often to be read")


def not_taken(path: Path) -> dict[Path, str]:
    """The reasons by path, of the files that begin with its name and are not read; compressed ones are left out."""
    denials = path.with_name(f"{path.stem}.denials{path.suffix}").name
    reasons: dict[Path, str] = {}
    for each in _beside(path):
        rest = each.name.removeprefix(path.name)
        if each.name.startswith(denials) or _OF_THE_SINK.fullmatch(rest) or _IS_PACKED.fullmatch(rest):
            continue
        if not _ROTATED.fullmatch(rest):
            reasons[each] = _SKIPPED_FILE
        elif not _is_read(each) and os.path.lexists(each):
            reasons[each] = "not a file: nothing is read of it"
    return dict(sorted(reasons.items()))


def _beside(path: Path) -> Iterable[Path]:
    return path.parent.glob(glob.escape(path.name) + "[.-]*")


def _rotated(path: Path, *, packed: bool) -> list[Path]:
    rotated = [
        (_age(match), each)
        for each in _beside(path)
        if (match := _ROTATED.fullmatch(each.name.removeprefix(path.name)))
        and bool(match["packed"]) == packed
        and _is_read(each)
    ]
    return [each for _, each in sorted(rotated)]


def _age(match: re.Match[str]) -> tuple[str, int]:
    """The key that sorts the oldest first: dates as digits from the year on, then numbers."""
    if match["date"] is None:
        return "~", -int(match["number"])
    for part in re.split(r"[-_T:]", match["date"]):
        if _EPOCH.fullmatch(part):
            moment = datetime.fromtimestamp(int(part[:10]), UTC)
            return f"{moment:%Y%m%d%H%M%S}{part[10:]}", 0
    return re.sub(r"[^0-9]", "", match["date"]), 0


def _is_read(path: Path) -> bool:
    """Whether it is a file. One that cannot be looked at is taken for a file, so that reading it is an error."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ELOOP)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _identities(path: Path) -> list[tuple[int, int]]:
    identities = []
    for each in with_rotated(path):
        try:
            identities.append(_identity(each.stat()))
        except FileNotFoundError:
            continue
    return identities


def _is_unpacked(packed: Path, copy: Path) -> bool:
    try:
        if packed.suffix == ".gz":
            return _is_gunzipped(packed, copy)
        return packed.stem == copy.name and int(packed.stat().st_mtime) == int(copy.stat().st_mtime)
    except OSError:
        return False


def _is_gunzipped(packed: Path, copy: Path) -> bool:
    """Whether size and checksum are those of the trailer. Of several packed parts the trailer is of the last one."""
    with packed.open("rb") as file:
        if file.seek(0, os.SEEK_END) < _GZIP_TRAILER:
            return False
        file.seek(-_GZIP_TRAILER, os.SEEK_END)
        trailer = file.read()
    if copy.stat().st_size & 0xFFFFFFFF != int.from_bytes(trailer[4:], "little"):
        return False
    checksum = 0
    with copy.open("rb") as file:
        while data := file.read(_CHUNK_BYTES):
            checksum = zlib.crc32(data, checksum)
    return checksum == int.from_bytes(trailer[:4], "little")
