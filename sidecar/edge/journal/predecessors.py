"""The sources of a folder that have not ended, and the records by which a new epoch closes them and announces itself.

A source ends with a final checkpoint. A killed one cannot write it, so the next epoch in its folder closes it: with the
highest numbers that the folder has of it, a consumer knows whether it has all of its records. An epoch begins with
these statements, in one write with the records of the exchanges that were left open:

    epoch 3   1 source started   2 … 40 usage            then a `kill -9`
    epoch 4   1 source closed, about epoch 3, highest 40   2 source started   3 usage, crashed   …

An epoch that was killed before its own `started` was written may have closed nothing, so the search goes on with the
epoch before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import orjson

from sidecar.core.record.frame import CLOSE, HEAD, RECORD, Buffer, Frame, encode_frame, frame_at, scan, segment_name
from sidecar.core.record.statements import SourceState, statement_record
from sidecar.edge.journal.folder import Folder, mapped

_TAIL_BYTES = 4 << 20  # read first: the last frame is in it, and that is enough of a source that has ended
_CHECKPOINT, _STARTED = b'"type":"sidecar.checkpoint.v1"', b'"state":"started"'


class Predecessor(NamedTuple):
    """A source that has not ended. `highest`: its highest number by stream; denials are left out where unknown."""

    source: str
    highest: dict[str, int]


class Lineage(NamedTuple):
    """The last source in a folder ("" in an empty one), and all sources that have not ended, oldest first."""

    last: str
    unended: list[Predecessor]


class _End:
    """The end of an epoch, as far as it was read backwards."""

    def __init__(self) -> None:
        self.records = self.denials = 0
        self.knows_denials = self.is_final = False

    def read(self, data: Buffer, offset: int) -> None:
        """Take the frames from `offset` on; later ones must have been read already, or be among them."""
        latest: Frame | None = None
        for _, item in scan(data, offset):
            if isinstance(item, Frame) and item.type in {CLOSE, RECORD}:
                if item.stream == "denials":
                    self.denials, self.knows_denials = max(self.denials, item.sequence), True
                    continue
                latest = item
                if _CHECKPOINT in item.body:
                    self._take_checkpoint(item.body)
        if latest is not None and latest.sequence > self.records:
            self.records = latest.sequence
            self.is_final = _CHECKPOINT in latest.body and orjson.loads(latest.body)["data"].get("final", False)

    def _take_checkpoint(self, body: bytes) -> None:
        highest = orjson.loads(body)["data"]["highest"]
        self.denials, self.knows_denials = max(self.denials, highest.get("denials", 0)), True


def lineage(folder: Folder) -> Lineage:
    """The last source of `folder` and all that have not ended. Read it before a new epoch begins, torn tails cut.

    OSError, NewerVersionError: a segment cannot be read.
    """
    last, unended = "", list[Predecessor]()
    epochs = [[number for _, number in each] for _, each in groupby(folder.segments(), key=itemgetter(0))]
    names = sorted({epoch for epoch, _ in folder.segments()})
    for epoch, numbers in reversed(list(zip(names, epochs, strict=True))):
        paths = [folder.path / segment_name(epoch, number) for number in numbers]
        source = _source_of(paths)
        end = _end_of(paths, begins=numbers[0] == 1)
        last = last or source
        if end.is_final:
            break
        if source and end.records:
            denials = {"denials": end.denials} if end.knows_denials else {}
            unended.append(Predecessor(source, {"records": end.records} | denials))
        if numbers[0] > 1 or _is_announced(paths[0]):
            break
    return Lineage(last, unended[::-1])


def announcement(known: Lineage, source: str, version: str, mint: Callable[[], bytes], now_us: int) -> Iterable[bytes]:
    """The first frames of `source`: it closes its predecessors and announces itself, numbered from 1."""
    states = [
        *(SourceState("closed", each.source, version, highest=each.highest) for each in known.unended),
        SourceState("started", source, version, predecessor=known.last or None),
    ]
    for sequence, state in enumerate(states, 1):
        id_ = mint()
        write = partial(statement_record, state, id_)
        yield encode_frame(RECORD, "records", sequence, id_, source.encode(), write((now_us, source, sequence)))


def _source_of(paths: list[Path]) -> str:
    for path in paths:
        with mapped(path) as data:
            first = frame_at(data, 0)
            if first is not None and first[1].type == HEAD:
                return str(orjson.loads(first[1].body).get("source", ""))
    return ""


def _end_of(paths: list[Path], *, begins: bool) -> _End:
    """The end of an epoch. `begins`: its first segment is there, so denials that are not found were never written."""
    end = _End()
    with mapped(paths[-1]) as data:
        end.read(data, max(0, len(data) - _TAIL_BYTES))
    for path in reversed(paths):
        if end.is_final or (end.records and end.knows_denials):
            return end
        with mapped(path) as data:
            end.read(data, 0)
    end.knows_denials = end.knows_denials or begins
    return end


def _is_announced(path: Path) -> bool:
    """Whether the first segment of an epoch has its `started`: only statements come before it."""
    with mapped(path) as data:
        for _, item in scan(data):
            if isinstance(item, Frame) and item.type != HEAD:
                if b'"type":"sidecar.source.v1"' not in item.body:
                    return False
                if _STARTED in item.body:
                    return True
    return False
