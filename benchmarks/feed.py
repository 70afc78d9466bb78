"""Fills a journal as a worker does: an OPEN and a CLOSE an exchange, made and written by the code of the data path.

`python -m benchmarks.feed FOLDER --records N` writes as fast as it goes, or `--rate` a second, all of a tick at once.
On the standard output it says where the journal ended and when: a JSON line a tick, `[µs, records, bytes, position]`.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from bisect import bisect_left
from pathlib import Path

import click
import orjson

from benchmarks.stage import LOAD_CORE, RunFailed
from sidecar.core.decision import Decision
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.core.record import Facts, Ids, RecordTemplates, open_entry, usage_record
from sidecar.core.record.frame import Position
from sidecar.edge.clock import SystemClock
from sidecar.edge.journal import Journal, JournalOptions

WORKER = "feed"  # whose journal it is, unless said otherwise
ROOT = Path(__file__).resolve().parent.parent
CUSTOMERS = 500
TICK_US = 2_000
BULK = 64  # records a tick where no rate is asked for: about what a busy worker's loop sees at once
LIMITS = (
    Limit("monthly", "quota", 1_000_000_000, calendar="month", scope="customer"),
    Limit("burst", "rate", 1_000_000, per=1_000_000, period_us=1_000_000),
)


class Exchange(Facts):
    """One caller's exchanges: what differs from one to the next is set before each record."""

    def __init__(self, number: int, now_us: int) -> None:
        who = Identity(f"k_{number:06d}", f"app-{number:06d}", f"cust-{number:06d}", "pro")
        self.identity, self.plan, self.route, self.method = who, "pro@3", "chat", "POST"
        self.path, self.status, self.traceparent = "/v1/chat/completions", 200, ""
        self.bytes_in, self.bytes_out, self.duration_us, self.upstream_us = 310, 1024, 1234, 1100
        self.attempts, self.outcome, self.quality = 1, "ok", "exact"
        self.usage, self.billable, self.billable_reason = {"requests": 1, "egress_bytes": 1024}, True, "plan:pro"
        self.client_disconnected, self.arrived_us = False, now_us
        self.dims, self.usage_lines = {}, []
        self.templates = RecordTemplates()
        self.checks = checks_for(LIMITS, (1, 1), who, now_us)  # as a house keeps it, for all of a window
        self._left = 1_000_000_000

    def decide(self, now_us: int) -> None:
        self._left -= 1
        self.decision = Decision(checks=self.checks, now_us=now_us, remaining=(self._left, 999_999), reset_us=(0, 0))


def _pass(_written: bool) -> None:
    """Nobody waits for it."""


class Feed:
    """A worker's journal and those whose exchanges it tells of."""

    def __init__(self, folder: Path, worker: str) -> None:
        self._clock = SystemClock()
        options = JournalOptions(folder, worker, f"//sidecar/bench/node/{worker}", cap_bytes=1 << 40)
        self._journal = Journal(options, self._clock)
        self._ids = Ids(int(worker, 36))
        self._callers = itertools.cycle([Exchange(number, self._clock.now_us()) for number in range(CUSTOMERS)])
        self.records = 0

    def write(self, count: int) -> None:
        """`count` exchanges, opened and closed within this tick of the loop."""
        now_us, journal = self._clock.now_us(), self._journal
        for facts in itertools.islice(self._callers, count):
            facts.id = self._ids.mint(now_us // 1000)
            facts.decide(now_us)
            journal.open(facts.id, open_entry(facts, now_us), _pass)
            journal.close("records", facts.id, facts.identity.customer, self._record(facts, now_us), _pass)
        self.records += count

    def _record(self, facts: Exchange, now_us: int):
        return lambda source, sequence: usage_record(facts, now_us, source, sequence)

    def say(self) -> None:
        """Where the journal ends, and when it did: what was written in this tick is in the file."""
        figures, position = self._journal.figures, self._journal._segments.position  # told to nobody but this harness
        sys.stdout.buffer.write(
            orjson.dumps([self._clock.mono_us(), self.records, figures.bytes, str(position)]) + b"\n"
        )

    async def run(self, records: int, rate: int) -> None:
        self._journal.start()
        began_us = self._clock.mono_us()
        while self.records < records:
            due = (self._clock.mono_us() - began_us) * rate // 1_000_000 if rate else self.records + BULK
            self.write(min(due, records) - self.records)
            await asyncio.sleep(TICK_US / 1e6 if rate else 0)  # the tick's one write is before this returns
            self.say()
        sys.stdout.flush()
        await self._journal.aclose()


class Said:
    """What the feed told: when the journal held how many records, how many bytes, and where it ended."""

    def __init__(self, text: bytes) -> None:
        lines = [orjson.loads(line) for line in text.splitlines() if line.startswith(b"[")]
        if not lines:
            raise RunFailed(f"the feed wrote nothing:\n{text.decode(errors='replace')[-800:]}")
        self.us, self.records, self.bytes, told = map(list, zip(*lines, strict=True))
        self.ends = [Position.parse(position) for position in told]

    def records_at(self, position: Position) -> int:
        """How many records lie before `position`; within a tick's write by its share of the bytes."""
        at = min(bisect_left(self.ends, position), len(self.ends) - 1)
        upper, lower = self.ends[at], self.ends[at - 1] if at else self.ends[at]
        if upper[:2] != position[:2] or lower[:2] != position[:2] or upper.offset == lower.offset:
            return int(self.records[at] if upper <= position else self.records[at - 1] if at else 0)
        part = (position.offset - lower.offset) * (self.records[at] - self.records[at - 1])
        return int(self.records[at - 1] + part // (upper.offset - lower.offset))

    def written_us(self, record: int) -> int:
        """When record number `record` (from 1) was in the journal."""
        return int(self.us[bisect_left(self.records, record)])


def started(folder: Path, log: Path, *words: object) -> subprocess.Popen[bytes]:
    """A feed into `folder`, on the load's core; what it says goes to `log`."""
    argv = ["taskset", "-c", str(LOAD_CORE), sys.executable, "-m", "benchmarks.feed", str(folder), *map(str, words)]
    with log.open("wb") as out:
        return subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--records", default=100_000, type=click.IntRange(1))
@click.option("--rate", default=0, type=click.IntRange(0), help="Records a second; 0: as fast as it goes.")
@click.option("--worker", default=WORKER)
def main(folder: Path, records: int, rate: int, worker: str) -> None:
    """Write RECORDS exchanges into the journal at FOLDER."""
    asyncio.run(Feed(folder, worker).run(records, rate))


if __name__ == "__main__":
    main()
