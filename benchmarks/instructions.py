"""`python -m benchmarks.instructions`: instructions and write system calls per request, held to ceilings.

Instruction counts do not depend on what else the machine does, so they can fail a build where CPU time cannot. The
worker of the compiled wheel runs under callgrind with real sockets and a real Redis; collection is on during the load
only. The kernel is not in the count: its share is held by the number of write system calls, which strace counts in a
second run.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks import compiled, load, upstreams
from benchmarks.peers import on_path
from benchmarks.sidecars import Form
from benchmarks.stage import FAILURES, LOAD_CORE, RunFailed, Stage, command_line, tree, twice

CEILINGS = Path(__file__).with_name("ceilings.json")
WORKER = re.compile(r"-m sidecar _worker\b")
CALLGRIND_OUT = "callgrind.out"
CALLGRIND = ("valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={CALLGRIND_OUT}")
TOTALS = re.compile(r"^totals: (\d+)$", re.MULTILINE)
WRITES = frozenset({"write", "writev", "pwrite64", "pwritev", "pwritev2", "send", "sendto", "sendmsg", "sendmmsg"})
CONTROL_SECONDS = 60
SLOW_START_SECONDS = 120  # an interpreter under valgrind imports for ten seconds, on a busy machine for a minute
WRITES_SECONDS = 5
LOADS = 8  # at the most: on a busy machine one load is too few requests
FEWEST = 1000  # requests: below, what a worker does once a second is too much of the count

# Redis may take longer than in production: under valgrind a tick of the loop lasts a quarter of a second.
_SLOW = {"redis_timeout": "20s", "start_seconds": SLOW_START_SECONDS}
FORMS = {
    "leased": Form(limits=True, redis=True, shipping=True, leases=True),
    "exact": Form(limits=True, redis=True, shipping=True),
    "embedded": Form(limits=True, redis=False, shipping=True),
    "chat": Form(limits=True, redis=True, shipping=True, chat=True),
    "paths": Form(limits=True, redis=True, shipping=True),
}
TRAFFIC = {"chat": "chat", "paths": "paths"}
DEFAULT_FORMS = ",".join(FORMS)


@dataclass(frozen=True)
class Count:
    """What one form costs: instructions per request, and write system calls per 1,000 requests; None: not counted."""

    instructions: int | None = None
    writes_per_1000: int | None = None


def missing() -> str:
    """ "" where everything needed is on the PATH; else what installs it."""
    return on_path("valgrind", "valgrind", "callgrind_control", "valgrind", "strace", "strace", "wrk", "wrk")()


def count_instructions(name: str, seconds: int, keep: Path | None = None) -> int:
    """Instructions per request of the worker of form `name`; `keep` gets the profile for callgrind_annotate."""
    form = replace(FORMS[name], worker_prefix=CALLGRIND, **_SLOW)
    with Stage() as stage:
        requests = _run(stage, form, TRAFFIC.get(name, "same"), seconds, _collecting)
        profile = stage.dir / CALLGRIND_OUT
        total = TOTALS.search(profile.read_text())
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(profile, keep / f"callgrind.{name}.out")
    if total is None:
        raise RunFailed(f"{name}: callgrind wrote no totals")
    return int(total[1]) // requests


def count_writes(name: str, seconds: int) -> int:
    """Write system calls per 1,000 requests of the worker of form `name`, to sockets and files alike."""
    with Stage() as stage:
        requests = _run(stage, FORMS[name], TRAFFIC.get(name, "same"), seconds, _tracing)
        calls = write_calls((stage.dir / "strace.out").read_text())
    return calls * 1000 // requests


def write_calls(summary: str) -> int:
    """Sum the calls of `strace -c` that write; RunFailed where the text is not such a summary."""
    rows = [row for line in summary.splitlines() if len(row := line.split()) >= 5 and row[3].isdigit()]
    if not rows:
        raise RunFailed(f"strace counted nothing:\n{summary}")
    return sum(int(row[3]) for row in rows if row[-1] in WRITES)


def _run(
    stage: Stage, form: Form, traffic: str, seconds: int, observe: Callable[[Stage, int], Callable[[], None]]
) -> int:
    """Load one form while `observe` watches its worker; the requests that the upstream saw meanwhile."""
    upstream = upstreams.start_upstream(stage, 1024, LOAD_CORE)
    started = form.start(stage, upstream)
    worker = next(pid for pid in tree(stage.pid("sidecar")) if WORKER.search(command_line(pid)))
    answered = load.warm_up(stage, started.port, 2, traffic=traffic, connections=load.CONNECTIONS).requests
    seen = Seen(upstream)
    before = seen.when_quiet(stage)
    end = observe(stage, worker)
    for _ in range(LOADS):
        answered += load.wrk(stage, started.port, seconds, traffic=traffic).requests
        requests = seen.when_quiet(stage) - before
        if requests >= FEWEST:
            break
    else:
        raise RunFailed(f"the upstream saw {requests} requests in {LOADS} loads of {seconds} s, fewer than {FEWEST}")
    end()
    started.verify(answered, (LOADS + 1) * load.CONNECTIONS)
    return requests


class Seen:
    """Counts the requests that the upstream has seen, without those that ask for this figure."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._questions = 0
        self._last = -1

    def now(self) -> int:
        """The requests until now."""
        self._questions += 1
        return upstreams.requests_seen(self._upstream) - self._questions

    def when_quiet(self, stage: Stage) -> int:
        """The same, once the requests that wrk abandoned have arrived too."""
        stage.until("the load to end", self._is_quiet, CONTROL_SECONDS, pause=0.25)
        return self._last

    def _is_quiet(self) -> bool:
        previous, self._last = self._last, self.now()
        return previous == self._last


def _collecting(_stage: Stage, worker: int) -> Callable[[], None]:
    _control("on", worker)
    return partial(_control, "off", worker)


def _control(state: str, worker: int) -> None:
    done = subprocess.run(
        ["callgrind_control", "-i", state, str(worker)],
        capture_output=True,
        text=True,
        check=False,
        timeout=CONTROL_SECONDS,
    )
    if done.returncode or "OK" not in done.stdout:
        raise RunFailed(f"callgrind_control could not switch collection {state}: {done.stdout}{done.stderr}")


def _tracing(stage: Stage, worker: int) -> Callable[[], None]:
    stage.start("strace", ["strace", "-c", "-f", "-o", "strace.out", "-p", str(worker)], LOAD_CORE)
    log = stage.dir / "strace.log"
    stage.until("strace to attach (it needs ptrace)", lambda: "attached" in log.read_text())
    return partial(stage.end, "strace", signal.SIGINT)


@dataclass(frozen=True)
class Ceilings:
    """The most that a form may cost. They bind on the kind of interpreter that they were measured on only.

    A figure may be `margin` percent above them: so much do two counts of the same build differ.
    """

    measured: str
    forms: dict[str, Count]
    margin: int = 0

    @classmethod
    def read(cls, path: Path = CEILINGS) -> Ceilings:
        document = json.loads(path.read_text())
        return cls(document["measured"], {name: Count(**most) for name, most in document["forms"].items()})

    def exceeded_by(self, name: str, count: Count) -> list[str]:
        """One sentence for each figure above its ceiling; a form without ceilings is never above."""
        most = asdict(self.forms.get(name, Count()))
        return [
            f"{name}: {what} is {counted:,}, above its ceiling of {most[what]:,}"
            for what, counted in asdict(count).items()
            if counted is not None and most[what] is not None and 100 * counted > (100 + self.margin) * most[what]
        ]


def interpreter() -> str:
    """The kind of interpreter that the wheel runs on here, as `measured` names it."""
    code = "import platform as p; print(p.python_implementation(), '.'.join(p.python_version_tuple()[:2]), sep=' ')"
    python = subprocess.run([compiled.base(), "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return f"{python.stdout.strip()}, {platform.machine()}"


@dataclass(frozen=True)
class Asked:
    """The options of the command."""

    forms: str
    seconds: int
    rounds: int
    only: str
    margin: int
    keep: Path | None
    as_json: bool


@click.command(context_settings={"show_default": True})
@click.option("--forms", default=DEFAULT_FORMS, help=f"Of {', '.join(FORMS)}; separated by commas.")
@click.option("--seconds", default=15, type=click.IntRange(2, 120), help="Seconds of load under callgrind.")
@click.option("--rounds", default=3, type=click.IntRange(1, 9), help="Runs of each while it is above its ceiling.")
@click.option("--only", default="both", type=click.Choice(["both", "instructions", "writes"]), help="What to count.")
@click.option("--margin", default=0, type=click.IntRange(0, 30), help="Percent that a figure may be above its ceiling.")
@click.option("--keep", type=click.Path(path_type=Path), default=None, help="A folder for callgrind's profiles.")
@click.option("--json", "as_json", is_flag=True, help="JSON on the standard output, instead of a table.")
def main(**options: Any) -> None:
    """Instructions and write system calls per request; exit code 1 where one is above benchmarks/ceilings.json."""
    asked = Asked(**options)
    names = [name.strip() for name in asked.forms.split(",")]
    if unknown := [name for name in names if name not in FORMS]:
        raise click.UsageError(f"no form is named {', '.join(unknown)}; there are {', '.join(FORMS)}")
    if why := missing() or next((why for name in names if (why := FORMS[name].missing())), ""):
        raise click.ClickException(why)
    ceilings = Ceilings.read()
    if (here := interpreter()) != ceilings.measured:
        print(f"the ceilings are those of {ceilings.measured}; this is {here}: not compared", file=sys.stderr)
        ceilings = Ceilings(here, {})
    ceilings = replace(ceilings, margin=asked.margin)
    try:
        counts = {name: count_form(name, asked, ceilings) for name in names}
    except FAILURES as failure:
        raise click.ClickException(str(failure)) from failure
    report(counts, ceilings, as_json=asked.as_json)
    if failures := [text for name, count in counts.items() for text in ceilings.exceeded_by(name, count)]:
        sys.exit("\n".join(failures))


def count_form(name: str, asked: Asked, ceilings: Ceilings) -> Count:
    """Count one form. Load from elsewhere only adds (leases run out between ticks), so the least of the runs counts."""

    def least(what: str, run: Callable[[], int]) -> int:
        counted: list[int] = []
        while len(counted) < asked.rounds:
            print(f"{name}: counting {what}", file=sys.stderr, flush=True)
            counted.append(twice(run, partial(print, file=sys.stderr, flush=True)))
            if not ceilings.exceeded_by(name, Count(**{what: counted[-1]})):
                break
        return min(counted)

    runs = {
        "instructions": lambda: count_instructions(name, asked.seconds, asked.keep),
        "writes_per_1000": lambda: count_writes(name, min(asked.seconds, WRITES_SECONDS)),
    }
    return Count(**{what: least(what, run) for what, run in runs.items() if asked.only in {"both", what.split("_")[0]}})


def report(counts: dict[str, Count], ceilings: Ceilings, *, as_json: bool) -> None:
    """Print what was counted beside its ceilings."""
    if as_json:
        print(json.dumps({name: asdict(count) for name, count in counts.items()}, indent=2))
        return
    table = Table("form", "instructions", "ceiling", "writes per 1,000", "ceiling", title="Per request")
    for name, count in counts.items():
        most = ceilings.forms.get(name, Count())
        figures = (count.instructions, most.instructions, count.writes_per_1000, most.writes_per_1000)
        table.add_row(name, *(f"{figure:,}" if figure is not None else "-" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.instructions")
