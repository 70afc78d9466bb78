"""The journal of one worker: numbers records without gaps, pairs every OPEN with a CLOSE, and says when it is full.

A number that was given to a record is never given to another, and nothing is dropped to make room: what cannot be
recorded is refused or let through, as the operator chose, and counted.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from sidecar import ports
from sidecar.core.errors import SinkError
from sidecar.core.record import Checkpoint, Ids, checkpoint_record, crashed_record
from sidecar.core.record.frame import CLOSE, OPEN, PROGRESS, RECORD, encode_frame
from sidecar.edge.journal.folder import Disk, Folder
from sidecar.edge.journal.recovery import look_back
from sidecar.edge.journal.segments import Figures, Segments
from sidecar.edge.journal.writer import Manner, Then, Writer
from sidecar.ports import Clock

ALARM_PERCENT, FULL_PERCENT = 80, 95  # of the cap; the rest is for what is under way when it is full
_TICK_S: Final = 1.0
_log = logging.getLogger(__name__)

Write = Callable[[str, int], bytes]


class JournalOptions(NamedTuple):
    """Where and how. `source` is this worker's name in records, "//sidecar/eu-1/gw-3/0"; the epoch comes after it.

    durability: os (written), interval (written, synced every `interval_us`), always (synced). `cap_bytes` is for this
    worker's folder alone. on_full: reject (`accepting` says no) or serve (exchanges pass unrecorded, and are counted).
    """

    directory: Path
    worker: str
    source: str
    durability: str = "os"
    interval_us: int = 100_000
    segment_bytes: int = 64 << 20
    cap_bytes: int = 4 << 30
    on_full: str = "reject"


class Report(NamedTuple):
    """What a start found: exchanges closed as crashed, and bytes that were no entries."""

    epoch: int
    crashed: int
    segments: int
    torn_bytes: int
    corrupt: int
    corrupt_bytes: int


class Journal(ports.Journal):
    """`ports.Journal`. `start` and `aclose` on the loop that calls the rest; `figures` at any time."""

    def __init__(self, options: JournalOptions, clock: Clock, disk: Disk | None = None) -> None:
        self.figures = Figures()
        self._options = options
        self._clock = clock
        self._folder = Folder(options.directory / options.worker)
        durable = options.durability != "os"
        self._serve = options.on_full == "serve"
        self._segments = Segments(
            self._folder, disk or Disk(), self.figures, segment_bytes=options.segment_bytes, durable=durable
        )
        manner = Manner(durable, options.durability == "always", self._serve)
        self._opened: dict[bytes, bytes] = {}  # id → what was last said of it
        self._elders: dict[bytes, bytes] = {}  # the same, for those that were open at the last `_carry`
        self._carry_at = self._carry_every = max(1, options.cap_bytes // options.segment_bytes // 8)
        self._unopened: set[bytes] = set()  # let through unrecorded, by `on_full: serve`
        self._writer = Writer(self._segments, clock, manner, self._judge, self._drop)
        self._ids = Ids(secrets.randbits(60))
        self._sources: dict[str, str] = {}
        self._next = {"records": 1, "denials": 1}
        self._full = self._alarmed = self._ended = False
        self._shut = True  # not begun, broken, full or ended: the one test that a healthy journal makes
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def start(self) -> Report:
        """Own the folder, close what a killed predecessor left open, and begin an epoch. Blocks: call before serving.

        SinkError: another process owns the folder, a newer version wrote in it, or it cannot be read or written.
        """
        self._writer.start()
        self._folder.own()
        try:
            found = look_back(self._folder)
            epoch = self._folder.raise_epoch()
        except SinkError:
            self._folder.release()
            raise
        source = f"{self._options.source}/{epoch}"
        self._sources = {"records": source, "denials": f"{source}/denials"}
        self._segments.begin(epoch, source)
        crashed = [frame for id_, body in found.open.items() for frame in self._crashed(id_, body)]
        if self._writer.put_synced(crashed):
            self._folder.mark_closed(self._segments.position)
        figures = self.figures
        figures.crashed, figures.torn_bytes = len(crashed), found.torn_bytes
        figures.corrupt, figures.corrupt_bytes = found.corrupt, found.corrupt_bytes
        self._second()
        if self._options.durability == "interval":
            self._interval()
        return Report(epoch, len(crashed), found.segments, found.torn_bytes, found.corrupt, found.corrupt_bytes)

    def accepting(self) -> bool:
        """False where a new exchange could not be recorded and `on_full: reject` says not to serve it."""
        return not self._shut or (self._serve and not self._ended)

    def open(self, id: bytes, body: bytes, then: Then) -> None:
        """Write an OPEN entry; `then(False)`: it could not be, so the upstream must not see the exchange."""
        if self._shut:
            passes = self._serve and not self._ended
            if passes:
                self._unopened.add(id)
            then(passes)
            return
        self._opened[id] = body
        self._writer.put(encode_frame(OPEN, "", 0, id, b"", body), then)

    def progress(self, id: bytes, body: bytes) -> None:
        """Write how far a long exchange is. `body` is as for `open`; a crash record would say its amounts."""
        for known in (self._opened, self._elders):
            if id in known and not self._shut:
                known[id] = body
                self._writer.put(encode_frame(PROGRESS, "", 0, id, b"", body), _noted)

    def close(self, stream: str, id: bytes, key: str, write: Write, then: Then) -> None:
        """Write the record that ends an exchange, or stands alone; see `ports.Journal`."""
        kind = CLOSE if id in self._opened or id in self._elders else RECORD
        if self._shut and not self._takes(stream, id, kind):
            then(self._serve and not self._ended)
            return
        frame = self._numbered(kind, stream, id, key, write)
        if kind == CLOSE:
            self._drop(id)
        elif self._unopened:
            self._unopened.discard(id)
        self._writer.put(frame, then)

    def checkpoint(
        self, open_exchanges: int, policy: str, degraded_s: int, totals: Mapping[str, int] | None = None
    ) -> None:
        """Say how far this producer is, traffic or not. `totals`: units by meter of all its records."""
        said = Checkpoint(
            highest={stream: following - 1 for stream, following in self._next.items()},
            totals=totals or {},
            open_exchanges=open_exchanges,
            backlog_bytes=self.figures.retained_bytes,
            unrecorded=self.figures.unrecorded,
            degraded_s=degraded_s,
            policy=policy,
        )
        now_us = self._clock.now_us()
        id_ = self._ids.mint(now_us // 1000)
        self.close("records", id_, self._sources["records"], partial(checkpoint_record, said, id_, now_us), _noted)

    async def aclose(self) -> None:
        """Write and sync what is left, say whether all exchanges are closed, and let go of the folder."""
        for timer in self._timers.values():
            timer.cancel()
        lost = await self._writer.drain()
        self._ended = self._shut = True
        if lost:
            self.figures.lost += lost
            _log.error("%s: %d entries could not be written before the end", self._folder.path, lost)
        if await self._writer.aclose() and not (self._opened or self._elders):
            self._folder.mark_closed(self._segments.position)
        self._folder.release()

    def _crashed(self, id_: bytes, body: bytes) -> list[bytes]:
        """The CLOSE of an exchange that was found open; none where what is known of it is no JSON of ours."""
        try:
            key = str(orjson.loads(body).get("customer", ""))
            write = partial(crashed_record, body, id_, self._clock.now_us())
            return [self._numbered(CLOSE, "records", id_, key, write)]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _log.error("%s: exchange %r was open and cannot be read: %r", self._folder.path, id_, error)
            return []

    def _numbered(self, kind: int, stream: str, id_: bytes, key: str, write: Write) -> bytes:
        sequence = self._next[stream]
        body = write(self._sources[stream], sequence)
        frame = encode_frame(kind, stream, sequence, id_, key.encode("utf-8", "replace"), body)
        self._next[stream] = sequence + 1
        self.figures.records += 1
        return frame

    def _drop(self, id_: bytes) -> None:
        if self._opened.pop(id_, None) is None:
            self._elders.pop(id_, None)

    def _carry(self) -> None:
        """Say again what is open for long, so that the segments where it was said first can be freed."""
        if self.figures.rotations < self._carry_at or self._writer.broken:
            return
        for id_, body in self._elders.items():
            self._writer.put(encode_frame(PROGRESS, "", 0, id_, b"", body), _noted)
        self._elders.update(self._opened)
        self._opened.clear()
        self._carry_at = self.figures.rotations + self._carry_every

    def _takes(self, stream: str, id_: bytes, kind: int) -> bool:
        """Whether a journal that is shut still takes this: the end of what it opened, and checkpoints while it can."""
        if self._ended:
            return False
        if kind == CLOSE:
            return True
        unrecorded = id_ in self._unopened
        if not unrecorded and stream == "records":
            return not self._writer.broken
        self._unopened.discard(id_)
        self.figures.unrecorded += 1
        return False

    def _second(self) -> None:
        self._timers["second"] = asyncio.get_running_loop().call_later(_TICK_S, self._second)
        self.figures.retained_bytes = self._folder.retained_bytes()
        self._writer.repair()
        self._judge()
        self._carry()

    def _interval(self) -> None:
        loop = asyncio.get_running_loop()
        self._timers["interval"] = loop.call_later(self._options.interval_us / 1_000_000, self._interval)
        self._writer.sync()

    def _judge(self) -> None:
        """Is there room? Said once on each change, not each second."""
        retained, cap = self.figures.retained_bytes, self._options.cap_bytes
        alarmed, full = retained * 100 >= cap * ALARM_PERCENT, retained * 100 >= cap * FULL_PERCENT
        if (alarmed, full) != (self._alarmed, self._full):
            level = logging.ERROR if full else logging.WARNING
            _log.log(
                level, "%s: %d of %d bytes are in use: ship them, or raise the cap", self._folder.path, retained, cap
            )
        self._alarmed, self._full = alarmed, full
        self.figures.alarm, self.figures.full = int(alarmed), int(full)
        self._writer.watch_bytes = 0 if full else cap * FULL_PERCENT // 100
        self._shut = full or self._writer.broken or self._ended


def _noted(_written: bool) -> None:
    """Nobody waits for it."""
