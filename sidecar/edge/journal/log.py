"""The journal of one worker: an append-only log of all usage, which the shipper sends to Kafka.

The bill is computed from records, so three properties must survive a kill at any point:

1. No usage without a record. An OPEN entry is written before the upstream gets the first byte of an exchange, and a
   CLOSE entry with the record before the client gets the last byte. After a kill, the next start finds each OPEN
   without a CLOSE and closes it with a `crashed` record.
2. No lost record goes unnoticed. The records of a start (an epoch) are numbered from 1 without gaps, so a consumer
   detects a missing number. A number is never used for two records; if a write fails, the same bytes are written again.
3. Nothing is dropped to make room. A full journal refuses new exchanges, or admits and counts them (`on_full`).

An example, with epochs 3 and 4 and segments of two or three entries:

    3.1   HEAD   OPEN a       OPEN b   CLOSE a #1
    3.2   HEAD   PROGRESS b   OPEN c   CLOSE c #2     then a `kill -9`, while b is open
    4.1   HEAD   CLOSE b #1 (crashed)                 written by the next start, with the units that b had reserved

PROGRESS repeats the OPEN of a long exchange: with it segment 3.1 can be deleted once its records are shipped, although
b is open. The file `closed` has the position from which a start reads; here it is the begin of 3.2.

How full: with `cap_bytes` of 4 GiB there is an alarm at 3.2 GiB (80 %), and the journal is full at 3.8 GiB (95 %). The
last 0.2 GiB are for the records of exchanges that are open at that time.

The modules: `writer` writes the entries of a tick at once and acknowledges them, `segments` has the files, `recovery`
is the reading at a start, `settled` the position up to which the store has the settles, `reader` is for the shipper.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from sidecar import ports
from sidecar.core.errors import SinkError
from sidecar.core.record import Checkpoint, Denied, Ids, arrived_us, checkpoint_record
from sidecar.core.record.events import denial_summary_record
from sidecar.core.record.frame import CLOSE, NO_ID, NOTE, OPEN, PROGRESS, RECORD, Position, encode_frame
from sidecar.core.record.statements import Statement, statement_record
from sidecar.core.words import counted
from sidecar.edge.journal.denial_budget import DenialBudget, DenialOptions
from sidecar.edge.journal.folder import Disk, Folder
from sidecar.edge.journal.predecessors import announcement, lineage
from sidecar.edge.journal.recovery import close_open, look_back
from sidecar.edge.journal.segments import Figures, Segments
from sidecar.edge.journal.settled import Ended, SettledMark
from sidecar.edge.journal.writer import DurabilityOptions, Then, Writer
from sidecar.ports import Clock

ALARM_PERCENT, FULL_PERCENT = 80, 95  # of the cap; the rest is for exchanges that are open when it is full
_TICK_S: Final = 1.0
_log = logging.getLogger(__name__)

Write = Callable[[str, int], bytes]


class JournalOptions(NamedTuple):
    """The options of a worker's journal. `source`: its name in records, as "//sidecar/eu-1/gw-3/0", without the epoch.

    When an entry is acknowledged, by durability: os (written), interval (written; synced every `interval_us`), always
    (synced). `cap_bytes` is the bound of this worker's folder. on_full: reject (`accepting` returns False) or serve
    (exchanges are admitted without a record, and counted). `denials` bounds the records of denials. `spares`: the
    number of other folders to try if the worker's own has an owner, which is a worker of a killed supervisor that still
    finishes. `version` of the sidecar: in the record that announces the source; "": it is not announced.
    """

    directory: Path
    worker: str
    source: str
    durability: str = "os"
    interval_us: int = 100_000
    segment_bytes: int = 64 << 20
    cap_bytes: int = 4 << 30
    on_full: str = "reject"
    denials: DenialOptions = DenialOptions()
    spares: int = 0
    version: str = ""


class Report(NamedTuple):
    """The result of a start: the exchanges closed as crashed, and the bytes that could not be read.

    `usage`: the units by meter in the records of the crashed exchanges, which belong to this epoch.
    """

    epoch: int
    crashed: int
    segments: int
    torn_bytes: int
    corrupt: int
    corrupt_bytes: int
    usage: dict[str, int]


class Here(NamedTuple):
    """The state of a journal between two callbacks.

    All exchanges with an OPEN before `written` are reserved. All with a record before `settled`, or with a number of
    this epoch up to `highest`, are settled.
    """

    written: Position
    settled: Position
    highest: int


class Journal(ports.Journal):
    """Implements `ports.Journal`. All calls are made on the loop of `start`; `figures` may be read at any time."""

    def __init__(self, options: JournalOptions, clock: Clock, disk: Disk | None = None) -> None:
        self.figures = Figures()
        self.denials = DenialBudget(options.denials)
        self._options = options
        self._clock = clock
        self._folder = Folder(options.directory / options.worker)
        self._settled = SettledMark(self._folder)
        self._to_settle: list[Ended] = []
        durable = options.durability != "os"
        self._serve = options.on_full == "serve"
        self._segments = Segments(
            self._folder, disk or Disk(), self.figures, segment_bytes=options.segment_bytes, durable=durable
        )
        durability = DurabilityOptions(durable, options.durability == "always", self._serve)
        self._opened: dict[bytes, bytes] = {}  # id → body of the OPEN entry
        self._long_open: dict[bytes, bytes] = {}  # the same, for those that were open at the last `_rewrite_long_open`
        self._rewrite_at = self._rewrite_every = max(1, options.cap_bytes // options.segment_bytes // 8)
        self._rewritten: Position | None = None  # the begin of the last `_rewrite_long_open`, and of the one before it
        self._rewritten_before: Position | None = None
        self._closing: dict[bytes, bytes] = {}  # as `_opened`, while a record waits for its sync
        self._waits = options.durability == "always"
        self._unopened: set[bytes] = set()  # admitted without a record, by `on_full: serve`
        self._writer = Writer(self._segments, durability, self._check_space, self._drop)
        self._ids = Ids(secrets.randbits(60))
        self._sources: dict[str, str] = {}
        self._next = {"records": 1, "denials": 1}
        self._full = self._alarmed = self._ended = False
        self._shut = True  # not started, broken, full or ended: the only test while the journal is healthy
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def start(self) -> Report:
        """Own the folder, close the open exchanges of a killed predecessor, and begin an epoch. It blocks.

        SinkError: another process owns the folder, a newer version wrote in it, or it cannot be read or written.
        """
        self._writer.start()
        self._folder.own(self._options.spares)
        if self.folder != self._options.worker:
            _log.warning(
                "journal %s: used instead of the worker's own folder, which an earlier process still writes",
                self._folder.path,
            )
        now_us = self._clock.now_us()
        try:
            history = look_back(self._folder, self._settled.until())
            known = lineage(self._folder)
            epoch = self._folder.raise_epoch(now_us)
        except SinkError:
            self._folder.release()
            raise
        source = f"{self._options.source}/{epoch}"
        self._sources = {"records": source, "denials": f"{source}/denials"}
        self._segments.begin(epoch, source)
        version, mint = self._options.version, partial(self._ids.mint, now_us // 1000)
        statements = list(announcement(known, source, version, mint, now_us)) if version else []
        closings = close_open(self._folder.path, history.open, source, now_us, first=len(statements) + 1)
        crashed, written = len(closings.frames), [*statements, *closings.frames]
        self._to_settle = [*history.ended, *closings.ended]
        closed = self._segments.position if self._writer.put_synced(written) else None
        self._settled.begin(closed, settled=not self._to_settle)
        self._next["records"] += len(written)
        figures = self.figures
        figures.records += len(written)
        figures.crashed, figures.torn_bytes = crashed, history.torn_bytes
        figures.corrupt, figures.corrupt_bytes = history.corrupt, history.corrupt_bytes
        self._second()
        if self._options.durability == "interval":
            self._interval()
        return Report(
            epoch,
            crashed,
            history.segments,
            history.torn_bytes,
            history.corrupt,
            history.corrupt_bytes,
            closings.usage,
        )

    def on_acknowledged(self, call: Callable[[], None]) -> None:
        self._writer.on_acknowledged = call

    def withheld(self) -> bool:
        return self._writer.withheld

    @property
    def folder(self) -> str:
        """The name of the owned folder."""
        return self._folder.path.name

    def accepting(self) -> bool:
        """False if a new exchange could not be recorded and `on_full` is reject."""
        return not self._shut or (self._serve and not self._ended)

    def open(self, id: bytes, body: bytes, then: Then) -> None:
        """Write an OPEN entry. After `then(False)` the exchange must not be sent to the upstream."""
        if self._shut:
            passes = self._serve and not self._ended
            if passes:
                self._unopened.add(id)
            then(passes)
            return
        frame = encode_frame(OPEN, "", 0, id, b"", body)  # before `_opened` is changed, since it may raise
        self._opened[id] = body
        self._writer.put(frame, then)

    def close(self, stream: str, id: bytes, key: str, write: Write, then: Then) -> None:
        """Write the record of an exchange, or a record without an OPEN; see `ports.Journal`."""
        kind = CLOSE if id in self._opened or id in self._long_open else RECORD
        if self._shut and not self._accepts(id, kind):
            then(self._serve and not self._ended)
            self._writer.on_acknowledged()
            return
        frame = self._numbered(kind, stream, id, key, write)
        if kind == CLOSE:
            if self._waits:
                self._closing[id] = self._opened.get(id) or self._long_open[id]
                then = partial(self._closed, id, then)
            self._drop(id)
        elif self._unopened:
            self._unopened.discard(id)
        self._writer.put(frame, then)

    def deny(self, id: bytes, denied: Denied, write: Write) -> None:
        """Write the record of a denial if the budget of denials admits it; otherwise count it for a summary."""
        if self._shut or self._alarmed or not self.denials.admits(denied):
            self.denials.count(denied, self._clock.now_us())
            return
        self.denials.recorded += 1
        self._put_denial(id, denied.customer, write)

    def summarise_denials(self) -> None:
        """Write the summaries of counted denials now, although they may not be due: before the last checkpoint."""
        if self._writer.broken or self._ended:
            return
        now_us = self._clock.now_us()
        for summary in self.denials.take():
            id_ = self._ids.mint(now_us // 1000)
            key = summary.denied.customer or self._sources["denials"]
            self._put_denial(id_, key, partial(denial_summary_record, summary, id_, now_us))

    def _closed(self, id: bytes, then: Then, written: bool) -> None:
        del self._closing[id]
        then(written)

    def note(self, body: bytes, then: Then) -> None:
        """Write an entry for the next start of this node; it is never shipped. `body` is JSON."""
        if self._shut:
            then(False)
            return
        self._writer.put(encode_frame(NOTE, "", 0, NO_ID, b"", body), then)

    @property
    def path(self) -> Path:
        """The owned folder."""
        return self._folder.path

    @property
    def broken(self) -> bool:
        """Whether writing fails at present."""
        return self._writer.broken

    @property
    def records(self) -> int:
        """The number of records so far."""
        return self.figures.records

    def here(self) -> Here:
        """The present state, after writing all entries that were put before."""
        self._writer.flush()
        highest = 0 if self._options.durability == "always" else self._next["records"] - 1
        return Here(self._segments.position, self._writer.acknowledged, highest)

    def unclosed(self) -> dict[bytes, bytes]:
        """The bodies of OPEN entries by id, of exchanges that are open or whose record is not acknowledged yet."""
        return {**self._long_open, **self._opened, **self._closing}

    def checkpoint(
        self,
        open_exchanges: int,
        policy: str,
        degraded_s: int,
        totals: Mapping[str, int] | None = None,
        *,
        final: bool = False,
    ) -> None:
        """Write a checkpoint: the highest number of each stream, and `totals`, the units by meter of all records.

        `final`: nothing is written after it. It is an ordinary one while an exchange is open, for the next start closes
        that one, and this source.
        """
        final = final and not self.unclosed()
        state = Checkpoint(
            highest={stream: following - 1 for stream, following in self._next.items()},
            totals=totals or {},
            open_exchanges=open_exchanges,
            backlog_bytes=self.figures.retained_bytes,
            unrecorded=self.figures.unrecorded,
            degraded_s=degraded_s,
            policy=policy,
            denials=self.denials.total,
            oldest_open_us=min(map(arrived_us, self.unclosed().values()), default=0),
            final=final,
        )
        now_us = self._clock.now_us()
        id_ = self._ids.mint(now_us // 1000)
        self.close("records", id_, self._sources["records"], partial(checkpoint_record, state, id_, now_us), _ignore)
        if final:
            self._ended = self._shut = True

    def state(self, statement: Statement) -> None:
        """Write the record of a statement that concerns no customer. A journal that has not started has no source."""
        if not self._sources:
            return
        now_us = self._clock.now_us()
        id_ = self._ids.mint(now_us // 1000)

        def write(source: str, sequence: int) -> bytes:
            return statement_record(statement, id_, (now_us, source, sequence))

        self.close("records", id_, self._sources["records"], write, _ignore)

    def take_ended(self) -> list[Ended]:
        """Exchanges of earlier epochs whose settles the store has not acknowledged, to be sent again. Call it once."""
        ended, self._to_settle = self._to_settle, []
        return ended

    def note_settled(self) -> None:
        """The store has answered all settles that were sent before the previous call. Call it about once a second."""
        self._settled.note(self._writer.acknowledged)

    async def aclose(self, *, settled: bool = True) -> None:
        """Write and sync the remaining entries, mark whether all exchanges are closed, and release the folder.

        `settled`: the store has acknowledged all settles. Otherwise the next start sends them again.
        """
        for timer in self._timers.values():
            timer.cancel()
        self.summarise_denials()
        lost = await self._writer.drain()
        self._ended = self._shut = True
        if lost:
            self.figures.lost += lost
            _log.error(
                "journal %s: not written before the end, and lost: %s: check the disk of journal.dir",
                *(self._folder.path, counted(lost, "frame")),
            )
        whole = await self._writer.aclose() and not (self._opened or self._long_open)
        self._settled.finish(self._segments.position, settled=settled and whole)
        self._folder.release()

    def _put_denial(self, id_: bytes, key: str, write: Write) -> None:
        frame = self._numbered(RECORD, "denials", id_, key, write)
        self.denials.wrote(len(frame))
        self._writer.put(frame, _ignore)

    def _numbered(self, kind: int, stream: str, id_: bytes, key: str, write: Write) -> bytes:
        sequence = self._next[stream]
        body = write(self._sources[stream], sequence)
        frame = encode_frame(kind, stream, sequence, id_, key.encode("utf-8", "replace"), body)
        self._next[stream] = sequence + 1
        self.figures.records += 1
        return frame

    def _drop(self, id_: bytes) -> None:
        if self._opened.pop(id_, None) is None:
            self._long_open.pop(id_, None)

    def _rewrite_long_open(self) -> None:
        """Repeat the entries of long exchanges as PROGRESS, so that the segments with their OPEN can be deleted.

        An exchange that was open at the rewrite before the last one is closed by now, or the last one repeated it. So
        the mark `closed` moves to the begin of the rewrite before the last one.
        """
        if self.figures.rotations < self._rewrite_at or self._writer.broken:
            return
        if self._rewritten_before is not None:
            self._settled.close(self._rewritten_before)
        self._rewritten_before, self._rewritten = self._rewritten, self._segments.position
        for id_, body in self._long_open.items():
            self._writer.put(encode_frame(PROGRESS, "", 0, id_, b"", body), _ignore)
        self._long_open.update(self._opened)
        self._opened.clear()
        self._rewrite_at = self.figures.rotations + self._rewrite_every

    def _accepts(self, id_: bytes, kind: int) -> bool:
        """Whether a shut journal accepts this record: of an exchange that it opened, or a checkpoint, unless broken."""
        if self._ended:
            return False
        if kind == CLOSE:
            return True
        if id_ not in self._unopened:
            return not self._writer.broken
        self._unopened.discard(id_)
        self.figures.unrecorded += 1
        return False

    def _second(self) -> None:
        self._timers["second"] = asyncio.get_running_loop().call_later(_TICK_S, self._second)
        if self._folder.is_lost or self._segments.is_lost:
            self._replace_folder()
        self.figures.retained_bytes = self._folder.retained_bytes()
        self._writer.repair()
        self._check_space()
        self._rewrite_long_open()
        self._tick_denials()

    def _replace_folder(self) -> None:
        """Continue in the folder at the path, after ours was removed or replaced. If none can be made, it is broken."""
        if self._segments.ready:
            _log.error(
                "journal %s: the folder was removed or replaced: continuing in a new file. Records before it are lost,"
                " unless the shipper reads them from its open file before it or this worker ends",
                self._folder.path,
            )
            self._segments.retire()
        try:
            self._folder.own_again()
        except SinkError:  # repeated in a second; a write logs the reason
            return
        self._segments.append([])  # so that positions are in an existing file
        for id_, body in {**self._long_open, **self._opened}.items():  # the next start cannot read their OPEN entries
            self._writer.put(encode_frame(PROGRESS, "", 0, id_, b"", body), _ignore)

    def _tick_denials(self) -> None:
        oldest = 0
        if self.denials.retained_bytes:
            epoch = self._segments.position.epoch
            oldest = min((number for of, number in self._folder.segments() if of == epoch), default=0)
        self.denials.tick(oldest, self._segments.position.segment)
        if not self._shut and self.denials.is_due():
            self.summarise_denials()

    def _interval(self) -> None:
        loop = asyncio.get_running_loop()
        self._timers["interval"] = loop.call_later(self._options.interval_us / 1_000_000, self._interval)
        self._writer.sync()

    def _check_space(self) -> None:
        """Update `alarm`, `full` and `_shut`. The level is logged once per change."""
        retained, cap = self.figures.retained_bytes, self._options.cap_bytes
        alarmed, full = retained * 100 >= cap * ALARM_PERCENT, retained * 100 >= cap * FULL_PERCENT
        if (alarmed, full) != (self._alarmed, self._full):
            level = logging.ERROR if full else logging.WARNING
            _log.log(
                level,
                "journal %s: %d of %d bytes are in use: check that the shipper runs, or raise journal.cap",
                self._folder.path,
                retained,
                cap,
            )
        self._alarmed, self._full = alarmed, full
        self.figures.alarm, self.figures.full = int(alarmed), int(full)
        self._writer.watch_bytes = 0 if full else cap * FULL_PERCENT // 100
        self._shut = full or self._writer.broken or self._ended


def _ignore(_written: bool) -> None:
    """For records without a waiting caller."""
