"""`python -m benchmarks.shipping`: what the shipper carries a second and core, and how far it lags behind a feed.

The sidecar runs as an operator runs it, on a core of its own, over a journal written by the code of the data path. How
far it got is read where the records go, never asked of it; a run that has one record less, or more, gives no number.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

import click
from rich.console import Console

from benchmarks import compiled, feed, kept, report
from benchmarks.destinations import PATIENCE_S, Makes, ToFile, ToKafka, broker
from benchmarks.feed import Said
from benchmarks.sidecars import shippers_of
from benchmarks.stage import PROXY_CORE, RunFailed, Stage, cpu_us, free_port, get, tree
from sidecar.core.record.frame import Position, segment_of

OUT = kept.HOME / "shipping.json"
GRID_US = 10_000  # how often one looks at the lag
WARM_US = 2_000_000  # of a feed, in which the first transactions open their partitions
SECOND_US = 1_000_000
COLUMNS = ("to", "records/s and core", "CPU a record", "records/s", "MB/s")
LAG_COLUMNS = ("to", "records/s", "lag p50", "p99", "max", "CPU of the shipper")
CONFIG = """
listen: 127.0.0.1:{port}
control: {{ listen: 127.0.0.1:{control} }}
node: {node}
upstreams:
  default: {{ urls: ["http://127.0.0.1:9"] }}
policies: policies/
keys: {{ file: keys.yaml }}
journal: {{ dir: journal, durability: os }}
"""
KEYS = "keys: []\n"
POLICY = """
meters: { requests: { count: 1 } }
routes: [{ id: all, match: { path: "/**" } }]
plans: { bench: { limits: [] } }
"""


class House:
    """A sidecar on a stage, over the journal in the stage's folder."""

    def __init__(self, stage: Stage, makes: Makes, *, pure: bool) -> None:
        node = f"bench{time.monotonic_ns()}"
        self.stage, self.target = stage, makes(stage, node)
        path = f"PYTHONPATH={compiled.ROOT if pure else ''}"
        self._command = ["env", path, sys.executable if pure else str(compiled.python()), "-P", "-m", "sidecar"]
        self._control = free_port()
        stage.write("policies/bench.yaml", POLICY)
        stage.write("keys.yaml", KEYS)
        text = CONFIG.format(port=free_port(), control=self._control, node=node) + self.target.config
        stage.write("sidecar.yaml", text)

    def start(self) -> None:
        if self.target.topics:
            words = ["kafka", "init", "-c", "sidecar.yaml", "--replicas", "1"]
            subprocess.run([*self._command, *words], cwd=self.stage.dir, check=True, capture_output=True, timeout=60)
        pid = self.stage.start("sidecar", [*self._command, "run", "-c", "sidecar.yaml"], PROXY_CORE)
        self.stage.until("a shipper to be there", lambda: bool(shippers_of(tree(pid))), 30)
        self._shipper = shippers_of(tree(pid))

    def ready(self) -> None:
        self.stage.until("the sidecar to be ready", lambda: get(self._control, "/readyz")[0] == 200, 60)

    def cpu_us(self) -> int:
        """What the shipper has used."""
        if not (used := cpu_us(self._shipper)):
            raise RunFailed(f"the shipper is gone:\n{self.stage.log('sidecar')}")
        return used

    def committed(self) -> Iterator[Position | None]:
        """What is committed, until it is enough; RunFailed where that takes too long."""
        deadline = time.monotonic() + PATIENCE_S
        for position in self.target.committed():
            yield position
            if time.monotonic() > deadline:
                raise RunFailed(f"not all was shipped within {PATIENCE_S} s:\n{self.stage.log('sidecar')}")

    def hold_to(self, records: int) -> None:
        """RunFailed unless each record of the feed is there, and none twice."""
        if (there := self.target.count()) != records:
            raise RunFailed(f"{records} records were in the journal, and {there} arrived")


class Backlog:
    """A journal that nobody has shipped yet, made once; runs get links to its segments."""

    def __init__(self, stage: Stage, records: int) -> None:
        log = stage.dir / "backlog.log"
        with feed.started(stage.dir, log, "--records", records) as running:
            running.wait()
        self.said = Said(log.read_bytes())
        self._folder = stage.dir / feed.WORKER

    def link(self, stage: Stage) -> None:
        """Lay it under the stage's own journal."""
        folder = stage.dir / "journal" / feed.WORKER
        folder.mkdir(parents=True)
        for path in self._folder.iterdir():
            if segment_of(path.name):
                os.link(path, folder / path.name)


def carry(makes: Makes, backlog: Backlog, *, pure: bool) -> dict[str, int]:
    """Ship the backlog: counted from the first commit to the last, so that the start of a process is in no figure."""
    said = backlog.said
    with Stage() as stage:
        backlog.link(stage)
        house = House(stage, makes, pure=pure)
        house.start()
        marks: list[tuple[int, int, int]] = []  # µs, CPU, records
        for position in house.committed():
            if position is not None:
                marks.append((time.monotonic_ns() // 1000, house.cpu_us(), said.records_at(position)))
                if position >= said.ends[-1]:
                    break
        wall_us, used_us, records = (last - first for first, last in zip(marks[0], marks[-1], strict=True))
        if records < said.records[-1] // 2 or not used_us:
            raise RunFailed(f"only {records} records were left after the first commit: ask for more of them")
        house.hold_to(said.records[-1])
    return {
        "records_per_core_second": records * SECOND_US // used_us,
        "cpu_ns_per_record": used_us * 1000 // records,
        "records_per_second": records * SECOND_US // wall_us,
        "bytes_per_second": said.bytes[-1] * records // said.records[-1] * SECOND_US // wall_us,
    }


def follow(makes: Makes, rate: int, seconds: int, *, pure: bool) -> dict[str, int]:
    """Feed the journal at `rate`, and look every 10 ms how long the oldest record that is not committed has waited."""
    with Stage() as stage:
        house = House(stage, makes, pure=pure)
        (stage.dir / "journal").mkdir()
        house.start()
        house.ready()
        count = rate * (seconds * SECOND_US + WARM_US) // SECOND_US
        words = "--records", count, "--rate", rate
        used_us, began_us = house.cpu_us(), time.monotonic_ns() // 1000
        with feed.started(stage.dir / "journal", stage.dir / "feed.log", *words) as running:
            said, seen = _watch(house, running)
        used_us, took_us = house.cpu_us() - used_us, time.monotonic_ns() // 1000 - began_us
        house.hold_to(count)
    lags = sorted(_lags(said, seen))
    return {
        "rate": (said.records[-1] - said.records[0]) * SECOND_US // (said.us[-1] - said.us[0]),
        "p50_us": lags[len(lags) // 2],
        "p99_us": lags[len(lags) * 99 // 100],
        "max_us": lags[-1],
        "shipper_percent": used_us * 100 // took_us,
    }


def _watch(house: House, running: subprocess.Popen[bytes]) -> tuple[Said, list[tuple[int, Position]]]:
    """What the feed said, and what was seen committed when (µs), until all of it was."""
    said, seen = None, list[tuple[int, Position]]()
    try:
        for position in house.committed():
            if position is not None:
                seen.append((time.monotonic_ns() // 1000, position))
            if said is None and running.poll() is not None:
                said = Said((house.stage.dir / "feed.log").read_bytes())
            if said and seen and seen[-1][1] >= said.ends[-1]:
                return said, seen
    finally:
        running.kill()
    raise AssertionError("what is committed has no end")


def _lags(said: Said, seen: list[tuple[int, Position]]) -> Iterator[int]:
    """The age of the oldest record that was written and not seen committed, 0 where there is none, at each look."""
    times = [us for us, _ in seen]
    shipped = [said.records_at(position) for _, position in seen]
    for now_us in range(said.us[0] + WARM_US, said.us[-1], GRID_US):
        at = bisect_left(times, now_us)
        first = (shipped[at - 1] if at else 0) + 1
        yield max(0, now_us - said.written_us(first)) if first <= said.records[-1] else 0


@click.command(context_settings={"show_default": True})
@click.option("--records", default=300_000, type=click.IntRange(50_000), help="In the journal that is carried.")
@click.option("--rounds", default=3, type=click.IntRange(1, 100), help="Interleaved: each target once a round.")
@click.option("--rate", default=10_000, type=click.IntRange(1, 50_000), help="Records a second of the steady feed.")
@click.option("--seconds", default=20, type=click.IntRange(1, 600), help="Of the steady feed, once a target.")
@click.option("--to", "targets", default="kafka,file", help="Where: kafka, file.")
@click.option("--pure", is_flag=True, help="The tree as it lies and this interpreter, not the wheel; nothing is kept.")
@click.option("--json", "as_json", is_flag=True, help="JSON on the standard output, instead of tables.")
def main(  # noqa: PLR0913, PLR0917 - one parameter an option
    records: int, rounds: int, rate: int, seconds: int, targets: str, pure: bool, as_json: bool
) -> None:
    """Records per second and core of the shipper, and its lag behind a steady feed."""
    if not pure and (why := compiled.missing()):
        raise click.ClickException(why)
    try:
        found = measure(targets.split(","), (records, rounds, rate, seconds), pure=pure)
    except RunFailed as failure:
        raise click.ClickException(str(failure)) from failure
    if not pure:
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.write_text(json.dumps(found, indent=1))
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(found)


def measure(names: list[str], shape: tuple[int, int, int, int], *, pure: bool) -> dict[str, Any]:
    """All rounds, then the feeds. Each target's figures are medians, beside those of the rounds."""
    records, rounds, rate, seconds = shape
    found: dict[str, Any] = {
        "machine": report.machine(),
        "when": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "form": "pure" if pure else "compiled",
        "records": records,
        "seconds": seconds,
    }
    with contextlib.ExitStack() as open_:
        known: dict[str, Makes] = {"file": ToFile}
        if "kafka" in names:
            bootstrap = open_.enter_context(broker())
            known["kafka"] = lambda _stage, node: ToKafka(bootstrap, node)
        backlog = Backlog(open_.enter_context(Stage()), records)
        samples: dict[str, list[dict[str, int]]] = {name: [] for name in names}
        for number in range(rounds):
            turn = number % len(names)
            for name in (*names[turn:], *names[:turn]):
                _say(f"round {number + 1} of {rounds}: {name}")
                samples[name].append(carry(known[name], backlog, pure=pure))
        for name in names:
            _say(f"{seconds} s of {rate} records/s: {name}")
            lag = follow(known[name], rate, seconds, pure=pure)
            middle = {key: int(statistics.median(one[key] for one in samples[name])) for key in samples[name][0]}
            found[name] = {**middle, "rounds": samples[name], "lag": lag}
    return found


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def show(found: dict[str, Any]) -> None:
    """Two tables."""
    out = Console(width=None if sys.stdout.isatty() else 180)
    names = [name for name in ("kafka", "file") if name in found]
    out.print(
        report.table(
            f"The shipper, {found['form']}, {found['records']:,} records", COLUMNS, map(_row, names, [found] * 2)
        )
    )
    lags = [_lag_row(name, found[name]["lag"]) for name in names]
    out.print(report.table(f"Age of the oldest record not committed, over {found['seconds']} s", LAG_COLUMNS, lags))
    out.print(found["machine"], highlight=False, markup=False)


def _row(name: str, found: dict[str, Any]) -> tuple[str, ...]:
    one = found[name]
    rates = [each["records_per_core_second"] for each in one["rounds"]]
    return (
        name,
        f"{one['records_per_core_second']:,} ({min(rates):,} … {max(rates):,})",
        f"{one['cpu_ns_per_record'] / 1000:.2f} µs",
        f"{one['records_per_second']:,}",
        f"{one['bytes_per_second'] / 1e6:,.0f}",
    )


def _lag_row(name: str, lag: dict[str, int]) -> tuple[str, ...]:
    ages = (f"{lag[key] // 1000} ms" for key in ("p50_us", "p99_us", "max_us"))
    return name, f"{lag['rate']:,}", *ages, f"{lag['shipper_percent']} %"


if __name__ == "__main__":
    main()
