"""`python -m benchmarks`: what a request costs beside what people would use instead, and as things grow.

Everything that is started is stopped by its pid; loads are bounded in time and connections; what is not on the machine,
or fails, is named and left out, never guessed.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks import kept, load, page, report, sidecars
from benchmarks.curves import memory
from benchmarks.curves.catalogue import BY_NAME, Curve
from benchmarks.curves.point import Timing
from benchmarks.curves.rounds import Measured, measure_curve
from benchmarks.goals import Evidence
from benchmarks.latency import Latencies, measure_latency
from benchmarks.measure import BASELINE, Results, Shape, measure_all
from benchmarks.peers import PEERS, Peer
from benchmarks.stage import FAILURES, twice

RESULTS = Path(__file__).with_name("RESULTS.md")
FORMS: dict[str, Peer] = {p.name: p for p in (*PEERS, *sidecars.FORMS)}
LATENCY_FORMS = (BASELINE, "envoy", "embedded", "leased", "redis")
SHORT_FORMS, SHORT_CURVE = (BASELINE, "leased", "redis"), "limits"
DESCRIPTORS = 65_536
SHIPPING_SECONDS = 3600
ALL = "all"
OUT = Console(width=None if sys.stdout.isatty() else 180)
TELL = Console(stderr=True)


@dataclass(frozen=True)
class Asked:
    """The options of the command, as they are."""

    forms: str
    rounds: int
    seconds: int
    warmup: int
    answer_bytes: int
    latency: bool
    rate: int
    curves: str
    memory: bool
    as_json: bool
    keep: bool
    compose: bool
    write: bool
    short: bool

    @property
    def shape(self) -> Shape:
        return Shape(self.rounds, self.seconds, self.warmup, self.answer_bytes)

    @property
    def timing(self) -> Timing:
        return Timing(min(self.seconds, 5), self.warmup)

    @property
    def keeps(self) -> bool:
        return self.keep or self.write


def named(names: str, known: dict[str, Any], kind: str) -> list[Any]:
    """Those of `known` that were named; UsageError for a name that is none."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in known]:
        raise click.UsageError(f"no {kind} is named {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in wanted]


def chosen(names: str) -> list[Peer]:
    """The forms that were named."""
    return named(names, FORMS, "form")


@click.command(context_settings={"show_default": True})
@click.option("--forms", default="", help="Only these, by name, separated by commas. nginx is always the baseline.")
@click.option("--rounds", default=5, type=click.IntRange(1, 100), help="Interleaved rounds.")
@click.option("--seconds", default=5, type=click.IntRange(1, sidecars.STOPPED_SECONDS), help="Seconds of a run.")
@click.option("--warmup", default=1, type=click.IntRange(0, 60), help="Seconds before them that are not counted.")
@click.option("--answer-bytes", default=1024, type=click.IntRange(0, 1 << 20), help="Bytes of the upstream's answer.")
@click.option("--latency", is_flag=True, help="Latency added at a constant rate (an open loop), instead of CPU.")
@click.option("--rate", default=1000, type=click.IntRange(1, 20000), help="Requests per second of --latency.")
@click.option("--curves", is_flag=False, flag_value=ALL, default="", help=f"CPU as things grow: {', '.join(BY_NAME)}.")
@click.option("--memory", is_flag=True, help="Memory of an idle worker and of an idle connection.")
@click.option("--json", "as_json", is_flag=True, help="JSON on the standard output, instead of a table.")
@click.option("--keep", is_flag=True, help="Keep what is measured for the page of results.")
@click.option("--compose", is_flag=True, help="Write benchmarks/RESULTS.md from the parts that were kept last.")
@click.option("--write", is_flag=True, help="Measure all there is, keep it part by part, and write the page.")
@click.option("--short", is_flag=True, help="One round of a few forms and one curve; fails where it cannot measure.")
def main(**options: Any) -> None:
    """CPU per request of the sidecar and of its peers, with nginx as 1."""
    asked = Asked(**options)
    if asked.compose:
        _compose()
        return
    if not sys.platform.startswith("linux"):
        raise click.ClickException("the benchmark reads /proc and pins with taskset: it runs on Linux only")
    if why := load.missing():
        raise click.ClickException(f"wrk: {why}")
    _more_descriptors()
    if asked.short:
        sys.exit(_short(asked))
    else:
        sys.exit(_measure(asked))


def _more_descriptors() -> None:
    """For all that is started and its connections, as far as this user may."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    enough = DESCRIPTORS if most == resource.RLIM_INFINITY else min(most, DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (enough, most))


def _measure(asked: Asked) -> int:
    """Whatever was asked for; 1 where some part could not be measured at all."""
    curves = named("" if asked.curves == ALL else asked.curves, BY_NAME, "curve") or list(BY_NAME.values())
    forms = chosen(asked.forms)
    late = forms or chosen(",".join(name for name in LATENCY_FORMS if name in FORMS))
    nothing = not (asked.latency or asked.curves or asked.memory)
    parts: list[tuple[bool, Callable[[], bool]]] = [
        (asked.write or nothing, lambda: _cpu(asked, forms or list(FORMS.values()))),
        (asked.write or asked.latency, lambda: _latency(asked, late)),
        (asked.write or asked.memory, lambda: _memory(asked)),
        *((asked.write or bool(asked.curves), lambda curve=curve: _curve(asked, curve)) for curve in curves),
        (asked.write, _shipping),
    ]
    failed = [_guarded(part) for wanted, part in parts if wanted].count(False)
    if asked.write:
        _compose()
    return int(failed > 0)


def _guarded(part: Callable[[], bool]) -> bool:
    """Whether the part was measured. One that fails is named, and the others go on."""
    try:
        return part()
    except FAILURES as failure:
        OUT.print(f"left out: {failure}", highlight=False, markup=False)
        return False


def _cpu(asked: Asked, forms: list[Peer]) -> bool:
    units = dict.fromkeys((BASELINE, *(form.unit for form in forms)))
    peers = [*(FORMS[unit] for unit in units if FORMS[unit] not in forms), *forms]
    results = measure_all(peers, asked.shape, _say)
    versions = _versions(results)
    if asked.keeps:
        kept.keep("cpu", list(results.samples), {"results": asdict(results), "versions": versions})
    _show(results, versions, asked)
    return BASELINE in results.samples


def _versions(results: Results) -> list[str]:
    """Of what was measured; what cannot say its version any more has none."""
    found: dict[str, None] = {}
    for name in results.samples:
        with suppress(*FAILURES):
            found[FORMS[name].version()] = None
    return list(found)


def _latency(asked: Asked, forms: list[Peer]) -> bool:
    timing = measure_latency(forms, (asked.rate, asked.rounds, max(asked.seconds, 5), asked.answer_bytes), _say)
    if asked.keeps:
        kept.keep("latency", list(timing.rounds_us), {"latencies": asdict(timing)})
    _show_latency(timing, asked)
    return bool(timing.rounds_us)


def _curve(asked: Asked, curve: Curve, *, ends: bool = False) -> bool:
    measured = measure_curve(curve, asked.timing, min(asked.rounds, 3), _say, ends=ends)
    if asked.keeps and measured.figures:
        kept.keep("curves", [curve.name], {"curve": asdict(measured)})
    _show_curve(curve, measured, asked)
    return bool(measured.figures)


def _memory(asked: Asked) -> bool:
    rounds = []
    for number in range(min(asked.rounds, 3)):
        _say(f"memory, round {number + 1} of {min(asked.rounds, 3)}")
        rounds.append(twice(memory.memory, _say))
    if asked.keeps:
        kept.keep("memory", ["memory"], {"rounds": rounds, "connections": memory.CONNECTIONS})
    if asked.as_json:
        click.echo(json.dumps({"machine": report.machine(), "memory": rounds}))
    else:
        OUT.print(report.table("Memory of a worker", page.MEMORY_COLUMNS, page.memory_rows(rounds)))
    return True


def _shipping() -> bool:
    """A program of its own, which keeps what it measures beside the rest."""
    _say("the shipper")
    subprocess.run([sys.executable, "-m", "benchmarks.shipping"], check=True, timeout=SHIPPING_SECONDS)
    return True


def _short(asked: Asked) -> int:
    """A look that fits into continuous integration: it says nothing of goals, only that all of it can be measured."""
    brief = Asked(**{**asdict(asked), "rounds": 1, "seconds": 2})
    forms, curve = chosen(",".join(SHORT_FORMS)), BY_NAME[SHORT_CURVE]
    results = measure_all(forms, brief.shape, _say)
    _show(results, _versions(results), brief)
    found = measure_curve(curve, brief.timing, 1, _say, ends=True)
    _show_curve(curve, found, brief)
    return int(bool(results.left_out or found.left_out))


def _compose() -> None:
    evidence = Evidence()
    RESULTS.write_text(page.compose(evidence))
    OUT.print(report.table("Goals", page.GOAL_COLUMNS, page.goal_rows(evidence)))


def _say(what: str) -> None:
    TELL.print(what, style="dim", highlight=False)


def _show(results: Results, versions: list[str], asked: Asked) -> None:
    if asked.as_json:
        click.echo(json.dumps({"machine": report.machine(), "versions": versions, **report.as_json(results)}))
        return
    OUT.print(report.table("CPU per request: median (min … max)", report.COLUMNS, report.rows(results)))
    for line in (report.machine(), *(f"left out: {one}" for one in report.left_out(results))):
        OUT.print(line, highlight=False, markup=False)


def _show_latency(timing: Latencies, asked: Asked) -> None:
    if asked.as_json:
        click.echo(json.dumps({"machine": report.machine(), **vars(timing)}))
        return
    title = f"Latency at {timing.rate} requests/s, open loop"
    OUT.print(report.table(title, report.LATENCY_COLUMNS, report.latency_rows(timing)))
    for name, why in timing.left_out.items():
        OUT.print(f"left out: {timing.titles[name]}: {why}", highlight=False, markup=False)


def _show_curve(curve: Curve, measured: Measured, asked: Asked) -> None:
    if asked.as_json:
        click.echo(json.dumps({"machine": report.machine(), **asdict(measured)}))
        return
    OUT.print(report.table(curve.title, report.curve_columns(curve), report.curve_rows(curve, measured)))
    for line in report.curve_left_out(measured):
        OUT.print(f"left out: {line}", highlight=False, markup=False)


if __name__ == "__main__":
    main()
