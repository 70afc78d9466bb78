"""`python -m benchmarks`: CPU per request beside what people would use instead, repeatable by anyone.

Everything that is started is stopped by its pid; loads are bounded in time and connections; what is not on the machine
is named and left out, never guessed.
"""

from __future__ import annotations

import datetime as dt
import json
import shlex
import sys
from pathlib import Path

import click
from rich.console import Console

from benchmarks import load, profiler, report, sidecars, toolbox
from benchmarks.latency import Latencies, measure_latency
from benchmarks.measure import BASELINE, Results, Shape, measure_all
from benchmarks.peers import PEERS, Peer
from benchmarks.stage import RunFailed

RESULTS = Path(__file__).with_name("RESULTS.md")
FORMS: dict[str, Peer] = {p.name: p for p in (*PEERS, *sidecars.FORMS)}
LATENCY_FORMS = (BASELINE, "embedded", "redis")
OUT = Console(width=None if sys.stdout.isatty() else 180)
TELL = Console(stderr=True)


def chosen(names: str) -> list[Peer]:
    """The forms that were named; UsageError for a name that is none."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in FORMS]:
        raise click.UsageError(f"no form is named {', '.join(unknown)}; there are {', '.join(FORMS)}")
    return [FORMS[name] for name in wanted]


def versions(results: Results) -> list[str]:
    return list(dict.fromkeys(FORMS[name].version() for name in results.samples))


@click.command(context_settings={"show_default": True})
@click.option("--forms", default="", help="Only these, by name, separated by commas. nginx is always the baseline.")
@click.option("--rounds", default=5, type=click.IntRange(1, 100), help="Interleaved rounds.")
@click.option("--seconds", default=5, type=click.IntRange(1, sidecars.STOPPED_SECONDS), help="Seconds of a run.")
@click.option("--warmup", default=1, type=click.IntRange(0, 60), help="Seconds before them that are not counted.")
@click.option("--answer-bytes", default=120, type=click.IntRange(1, 4000), help="Bytes of the upstream's answer.")
@click.option("--latency", is_flag=True, help="Latency added at a constant rate (an open loop), instead of CPU.")
@click.option("--rate", default=1000, type=click.IntRange(1, 20000), help="Requests per second of --latency.")
@click.option("--profile", "profiled", default="", help="Profile the worker of this form under load, instead.")
@click.option("--json", "as_json", is_flag=True, help="JSON on the standard output, instead of a table.")
@click.option("--write", is_flag=True, help="Rewrite benchmarks/RESULTS.md: CPU and latency, all forms.")
def main(  # noqa: PLR0913, PLR0917 - one parameter an option
    forms: str,
    rounds: int,
    seconds: int,
    warmup: int,
    answer_bytes: int,
    latency: bool,
    rate: int,
    profiled: str,
    as_json: bool,
    write: bool,
) -> None:
    """CPU per request of the sidecar and of its peers, with nginx as 1."""
    if not sys.platform.startswith("linux"):
        raise click.ClickException("the benchmark reads /proc and pins with taskset: it runs on Linux only")
    if why := load.missing():
        raise click.ClickException(f"wrk: {why}")
    shape = Shape(rounds, seconds, warmup, answer_bytes)
    if profiled:
        _profile(chosen(profiled)[0], shape)
        return
    peers = chosen(forms) if forms else list(FORMS.values())
    results = timing = None
    if write or not latency:
        results = measure_all(_with_baseline(peers), shape, _say)
        _show(results, as_json)
    if write or latency:
        picked = peers if forms else chosen(",".join(LATENCY_FORMS))
        timing = measure_latency(picked, (rate, rounds, max(seconds, 5), answer_bytes), _say)
        _show_latency(timing, as_json)
    if write and results and timing:
        RESULTS.write_text(_page(results, timing))
    sys.exit(0 if (results is None or BASELINE in results.samples) else 1)


def _with_baseline(peers: list[Peer]) -> list[Peer]:
    return peers if any(p.name == BASELINE for p in peers) else [FORMS[BASELINE], *peers]


def _say(what: str) -> None:
    TELL.print(what, style="dim", highlight=False)


def _show(results: Results, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"machine": report.machine(), "versions": versions(results), **report.as_json(results)}))
        return
    OUT.print(report.table("CPU per request: median (min … max)", report.COLUMNS, report.rows(results)))
    for line in (report.machine(), *(f"left out: {one}" for one in report.left_out(results))):
        OUT.print(line, highlight=False, markup=False)


def _show_latency(timing: Latencies, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"machine": report.machine(), **vars(timing)}))
        return
    title = f"Latency at {timing.rate} requests/s, open loop"
    OUT.print(report.table(title, report.LATENCY_COLUMNS, report.latency_rows(timing)))
    for name, why in timing.left_out.items():
        OUT.print(f"left out: {timing.titles[name]}: {why}", highlight=False, markup=False)


def _profile(peer: Peer, shape: Shape) -> None:
    try:
        found = profiler.top(peer, shape)
    except (RunFailed, FileNotFoundError) as failure:
        raise click.ClickException(str(failure)) from failure
    OUT.print(report.table(f"{peer.title}: the worker, {toolbox.PY_SPY}", ("function", "own", "with callees"), found))


PAGE = """# Results

Written by `{command}` on {day}; [docs/benchmarks.md](../docs/benchmarks.md) says what is measured and how to repeat it.

- Machine: {machine}
- Versions: {versions}
- {shape.rounds} interleaved rounds of {shape.seconds} s after {shape.warmup} s of warm-up, {connections} keep-alive \
connections, answers of {shape.answer_bytes} bytes; median (min … max)

## CPU per request

{cpu}

The ratio is to the nginx of the same round. Shipper and Redis are apart; the supervisor and the control listener are
in the first figure.
{left_out}
## Latency at {timing.rate} requests/s

{latency}

Open loop: a latency counts from the moment the request was due. What a form adds is taken within its
round; p99.9 stands on a handful of requests in a round: read it with its spread.
{latency_left_out}"""


def _page(results: Results, timing: Latencies) -> str:
    late = [f"{timing.titles[name]}: {why}" for name, why in timing.left_out.items()]
    return PAGE.format(
        command=shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        day=dt.datetime.now(dt.UTC).date(),  # noqa: TID251 - the date of a report, not a clock
        machine=report.machine(),
        versions=", ".join(versions(results)),
        shape=results.shape,
        connections=load.CONNECTIONS,
        cpu=report.markdown_table(report.COLUMNS, report.rows(results)),
        left_out=_list("Left out:", report.left_out(results)),
        timing=timing,
        latency=report.markdown_table(report.LATENCY_COLUMNS, report.latency_rows(timing)),
        latency_left_out=_list("Left out:", late),
    )


def _list(title: str, lines: list[str]) -> str:
    return "\n".join(["", title, "", *(f"- {line.splitlines()[0]}" for line in lines), ""]) if lines else ""


if __name__ == "__main__":
    main()
