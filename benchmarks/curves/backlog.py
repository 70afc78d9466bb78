"""A journal that an earlier life has left: N exchanges that nobody shipped, in the real format, made at full speed.

Each exchange is what a real sidecar wrote down for one (an OPEN and a CLOSE), with an id and a number of its own. The
segments are made once, for the longest backlog; a shorter one is the first of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import orjson

from benchmarks.curves.site import Site
from benchmarks.peers import start_upstream
from benchmarks.stage import LOAD_CORE, RunFailed, Stage
from sidecar.core.record import Ids
from sidecar.core.record.frame import CLOSE, HEAD, NO_ID, OPEN, Frame, Position, encode_frame, scan, segment_name

SEGMENT_BYTES = 64 << 20
WORKER = "0"
_EPOCH = 1
_FIRST_MS = 1_763_692_406_000
_SPARE = 2  # as much of the disk as is needed stays free, and as much again


class Backlog:
    """Segments in `folder`, enough for `exchanges` like `sample`. RunFailed: the disk has no room for them."""

    def __init__(self, folder: Path, exchanges: int, sample: tuple[Frame, Frame]) -> None:
        self._folder = folder
        self._open, self._close = sample
        each = len(self._open.body) + len(self._close.body) + 2 * (50 + len(self._close.key))
        self.per_segment = SEGMENT_BYTES // each
        self.exchanges = exchanges
        self._bytes = each * exchanges
        self._sizes: list[int] = []

    def make(self) -> None:
        """Write all of it."""
        if (free := shutil.disk_usage(self._folder).free) < _SPARE * self._bytes:
            raise RunFailed(f"{self.exchanges} records take {self._bytes >> 20} MiB; {free >> 20} MiB are free")
        pairs = self._pairs()
        source = orjson.loads(self._close.body)["source"]
        for number in range(1, -(-self.exchanges // self.per_segment) + 1):
            head = orjson.dumps({"source": source, "epoch": _EPOCH, "segment": number})
            frames = [encode_frame(HEAD, "", 0, NO_ID, b"", head)]
            frames += [frame for pair in islice(pairs, self.per_segment) for frame in pair]
            self._sizes.append((self._folder / segment_name(_EPOCH, number)).write_bytes(b"".join(frames)))

    def files(self, exchanges: int) -> tuple[tuple[str, Path], ...]:
        """What a worker's folder holds after `exchanges`, rounded up to whole segments: name and path of each file."""
        if not exchanges:
            return ()
        count = -(-exchanges // self.per_segment)
        marks = {"epoch": str(_EPOCH), "closed": str(Position(_EPOCH, count, self._sizes[count - 1]))}
        for name, text in marks.items():
            (self._folder / f"{name}-{count}").write_text(text)
        kept = [(name, self._folder / f"{name}-{count}") for name in marks]
        names = [segment_name(_EPOCH, number) for number in range(1, count + 1)]
        return tuple((f"{WORKER}/{name}", path) for name, path in [*kept, *((n, self._folder / n) for n in names)])

    @property
    def cap_gib(self) -> int:
        """Room for all of it below the alarm."""
        return max(4, 2 * self._bytes >> 30)

    def _pairs(self) -> Iterator[tuple[bytes, bytes]]:
        """OPEN and CLOSE of each exchange: a tick of 1 ms for ten of them."""
        ids, opened, closed = Ids(7), self._open, self._close
        said = orjson.loads(closed.body)
        number = said["sequence"].encode()
        open_parts, close_parts = opened.body.split(opened.id), closed.body.split(closed.id)
        for sequence in range(1, self.exchanges + 1):
            id_ = ids.mint(_FIRST_MS + sequence // 10)
            body = id_.join(close_parts).replace(number, b"%018d" % sequence, 1)
            yield (
                encode_frame(OPEN, "", 0, id_, opened.key, id_.join(open_parts)),
                encode_frame(CLOSE, "records", sequence, id_, closed.key, body),
            )


def sample() -> tuple[Frame, Frame]:
    """The OPEN and the CLOSE of one exchange, as a real sidecar wrote them."""
    with Stage() as stage:
        running = Site().start(stage, start_upstream(stage, 1024, LOAD_CORE))
        running.parts()  # a shipper that is stopped frees nothing
        found = [frame for path in stage.dir.glob("journal/*/*.seg") for _, frame in scan(path.read_bytes())]
        running.killed()
    frames = [frame for frame in found if isinstance(frame, Frame)]
    closed = next(frame for frame in frames if frame.type == CLOSE)
    return next(frame for frame in frames if frame.type == OPEN and frame.id == closed.id), closed
