"""Records of an operator's command, in a folder of the node's journal that commands share: all of them, or none.

Each command is a source of its own. Its records are written to a file that no reader knows, synced, and then renamed to
a segment: a command that is killed before the rename has recorded nothing, and the next one removes its file. The
source begins with a `started` record and ends with a final checkpoint, so it is complete as soon as it can be read.

    commands/179610000000000012345678-00000001.seg    //sidecar/eu-1/gw-3/commands/179610000000000012345678
      #1 source: started   #2 void   #3 audit   #4 checkpoint: highest 3, final
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from time import sleep
from types import MappingProxyType
from typing import Final, NamedTuple, Self

import orjson

from sidecar.core.errors import SinkError
from sidecar.core.record import Checkpoint, Ids, Totals, checkpoint_record
from sidecar.core.record.frame import HEAD, RECORD, encode_frame, frame_at, segment_name
from sidecar.core.record.statements import SourceState, statement_record
from sidecar.edge.files import OwnedError
from sidecar.edge.journal.folder import Disk, Folder, mapped
from sidecar.edge.journal.segments import head_frame
from sidecar.ports import Clock

COMMANDS: Final = "commands"  # the folder, and the name of its sources in place of a worker's number
WAIT_US: Final = 10_000_000
_POLL_S: Final = 0.05
_CHUNK_BYTES: Final = 1 << 20
_UNFINISHED: Final = ".new"
_NO_USAGE: Final[Mapping[str, int]] = MappingProxyType({})


class PendingRecord(NamedTuple):
    """A record that has no number yet: `render(time_us, source, sequence)` gives its JSON.

    `key`: its partition key; "": the source. `usage`: the units that it adds to the `totals` of the source, of a usage
    record.
    """

    id: bytes
    key: str
    render: Callable[[int, str, int], bytes]
    usage: Mapping[str, int] = _NO_USAGE


class CommandSource:
    """The right to record, in a `with` block: commands of one node record one after the other.

    Entering waits up to `wait_us` for another command. OwnedError: it is still at work. SinkError: the folder cannot be
    written. `node_source` is the node's name in records, as in //sidecar/eu-1/gw-3.
    """

    def __init__(
        self, directory: Path, node_source: str, clock: Clock, disk: Disk | None = None, wait_us: int = WAIT_US
    ) -> None:
        self._folder = Folder(directory / COMMANDS)
        self._source = f"{node_source}/{COMMANDS}"
        self._clock = clock
        self._disk = disk or Disk()
        self._wait_us = wait_us

    def __enter__(self) -> Self:
        deadline_us = self._clock.mono_us() + self._wait_us
        while True:
            try:
                self._folder.own()
            except OwnedError as error:
                if self._clock.mono_us() >= deadline_us:
                    raise OwnedError(
                        f"{error}. Another command has recorded here for {self._wait_us // 1_000_000} s: "
                        "nothing was recorded, try again when it has ended"
                    ) from None
                sleep(_POLL_S)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        self._folder.release()

    def write(self, records: Iterable[PendingRecord], version: str) -> str:
        """Record all of `records`, durably, and return their source. SinkError: none of them is recorded.

        `version` is the sidecar's. Memory is bounded, however many there are.
        """
        self._remove_unfinished()
        now_us = self._clock.now_us()
        predecessor = self._predecessor()
        epoch = self._folder.raise_epoch(now_us)
        name = f"{self._source}/{epoch}"
        path = self._folder.path / segment_name(epoch, 1)
        unfinished = path.with_name(path.name + _UNFINISHED)
        frames = _frames(records, SourceState("started", name, version, predecessor), (now_us, name, epoch))
        try:
            self._write(unfinished, frames)
            unfinished.replace(path)
        except OSError as error:
            self._remove_unfinished()
            raise SinkError(f"{path}: nothing was recorded: {error.strerror}") from None
        except BaseException:
            self._remove_unfinished()
            raise
        try:
            self._folder.sync()
        except OSError as error:
            raise SinkError(
                f"{path}: was written, and may not survive a power cut: {error.strerror}: check the disk, then repeat "
                "the command"
            ) from None
        return name

    def _write(self, path: Path, frames: Iterable[bytes]) -> None:
        fd = self._disk.create(path)
        try:
            waiting = bytearray()
            for frame in frames:
                waiting += frame
                if len(waiting) >= _CHUNK_BYTES:
                    self._put(fd, bytes(waiting))
                    waiting.clear()
            self._put(fd, bytes(waiting))
            self._disk.sync(fd)
        finally:
            os.close(fd)

    def _put(self, fd: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            written = self._disk.write(fd, rest)
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            rest = rest[written:]

    def _remove_unfinished(self) -> None:
        for path in self._folder.path.glob(f"*.seg{_UNFINISHED}"):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _predecessor(self) -> str | None:
        """The source before this one, from the last segment; the last one stays when its records are shipped."""
        for segment in reversed(self._folder.segments()):
            with suppress(OSError), mapped(self._folder.path / segment_name(*segment)) as data:
                first = frame_at(data, 0)
                if first is not None and first[1].type == HEAD:
                    return str(orjson.loads(first[1].body)["source"])
        return None


def _frames(records: Iterable[PendingRecord], started: SourceState, at: tuple[int, str, int]) -> Iterable[bytes]:
    """The whole segment: its head, the start of the source, the records, and the final checkpoint."""
    now_us, source, epoch = at
    ids = Ids(secrets.randbits(60))
    yield head_frame(source, epoch, 1)
    id_ = ids.mint(now_us // 1000)
    yield _frame(1, id_, source, statement_record(started, id_, (now_us, source, 1)))
    totals, sequence = Totals(), 1
    for record in records:
        sequence += 1
        totals.add(dict(record.usage))
        yield _frame(sequence, record.id, record.key or source, record.render(now_us, source, sequence))
    checkpoint = Checkpoint({"records": sequence, "denials": 0}, totals.units, final=True)
    id_ = ids.mint(now_us // 1000)
    body = checkpoint_record(checkpoint, id_, now_us, source, sequence + 1)
    yield _frame(sequence + 1, id_, source, body)


def _frame(sequence: int, id_: bytes, key: str, body: bytes) -> bytes:
    return encode_frame(RECORD, "records", sequence, id_, key.encode("utf-8", "replace"), body)
