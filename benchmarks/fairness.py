"""What one hostile client costs the others: `python -m benchmarks.fairness`.

A victim with a key of its own asks at a constant, moderate rate (the open loop) while one attacker at a time does what
a single client can do. Each round measures the victim without and with the attack, on the same worker; a ratio is that
of the p99 of one round, and the figure is the median of the rounds. A victim's request that fails, or a ratio above
MOST_RATIO, is exit code 1.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import statistics
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks import attacks, compiled, sidecars
from benchmarks.latency import open_loop, quantile
from benchmarks.stage import API_KEY, FAILURES, LOAD_CORE, PROXY_CORE, RunFailed, Stage, free_port, get

ROOT = Path(__file__).resolve().parent.parent
RATE, CONNECTIONS = 150, 16  # of the victim
MOST_RATIO = 2.0
READY_SECONDS = 60  # a busy machine compresses 300 MB first
WIDTH = 80
CONFIG = sidecars.CONFIG + "http: {{ max_connections: 1000 }}\n"
ATTACKER_KEY = """
  - {{ id: k_attacker, hash: "sha256:{hash}", customer: cust-attacker, subject: app-attacker, plan: bench }}
"""
POLICY = """
meters:
  requests: { count: 1 }
  output_tokens: { usage: openai.output }
routes:
  - { id: odd, match: { path: "/odd/**" }, upstream: default, usage: openai }
  - { id: all, match: { path: "/**" }, upstream: default }
plans:
  bench:
    limits:
      - { id: burst, meter: requests, rate: 1000000/s, burst: 1000000, scope: key }
      - { id: tokens, meter: output_tokens, quota: 1000000000000/month, scope: customer }
"""


@dataclass(frozen=True)
class Latency:
    """Of the victim's requests in one run, in µs; `failures` by reason."""

    p50_us: int
    p99_us: int
    failures: dict[str, int]


@dataclass
class Outcome:
    """The rounds of one case. `attacks`: what the attacker did in each."""

    normal: list[Latency] = field(default_factory=list)
    attacked: list[Latency] = field(default_factory=list)
    attacks: list[dict[str, Any]] = field(default_factory=list)

    def ratio(self) -> float:
        """The median of the rounds' ratios of p99."""
        pairs = zip(self.attacked, self.normal, strict=True)
        return statistics.median(attacked.p99_us / normal.p99_us for attacked, normal in pairs)

    def failures(self) -> dict[str, int]:
        """The victim's requests that failed, by reason, without and with the attack."""
        return dict(sum((Counter(each.failures) for each in (*self.normal, *self.attacked)), Counter()))

    def faults(self, name: str) -> list[str]:
        """One sentence for each way in which the victim was hurt."""
        slow = [f"{name}: p99 under attack is {self.ratio():.1f} times the normal one, more than {MOST_RATIO:.0f}"]
        failed = [f"{name}: {number} of the victim's requests: {why}" for why, number in self.failures().items()]
        return slow * (self.ratio() > MOST_RATIO) + failed


class Node(NamedTuple):
    """The ports of a sidecar."""

    port: int
    control: int


def start(stage: Stage, python: Path, path: str) -> Node:
    """Start the API and a sidecar of one worker before it."""
    ports = {"port": free_port(), "control": free_port(), "upstream": free_port()}
    stage.start("upstream", _module("odd", ports["upstream"]), LOAD_CORE, _PATH)
    stage.until_answers("the upstream", ports["upstream"], seconds=READY_SECONDS)
    hashes = [hashlib.sha256(key.encode()).hexdigest() for key in (API_KEY, attacks.KEY)]
    stage.write("policies/bench.yaml", POLICY)
    stage.write("keys.yaml", sidecars.KEYS.format(hash=hashes[0]).rstrip() + ATTACKER_KEY.format(hash=hashes[1]))
    stage.write("sidecar.yaml", CONFIG.format(**ports))
    stage.start(
        "sidecar", [str(python), "-P", "-m", "sidecar", "run", "-c", "sidecar.yaml"], PROXY_CORE, {"PYTHONPATH": path}
    )
    stage.until_answers("the sidecar", ports["port"], seconds=READY_SECONDS)
    return Node(ports["port"], ports["control"])


_PATH = {"PYTHONPATH": str(ROOT)}


def _module(name: str, *words: object) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.{name}", *map(str, words)]


def victim(port: int, seconds: int) -> Latency:
    """The victim's latencies while it asks for so long."""
    output = open_loop(port, RATE, seconds, CONNECTIONS, "count")
    failures = dict(Counter(output["failures"]))
    ordered = sorted(output["us"]) or [seconds * 1_000_000]  # at the least: none was answered
    return Latency(quantile(ordered, 5000), quantile(ordered, 9900), failures)


def under_attack(stage: Stage, name: str, port: int, seconds: int) -> tuple[Latency, dict[str, Any]]:
    """The same during the attack, and what the attacker says that it did."""
    # The victim goes first on the core that both have: its wait for the attacker there is not the doing of the sidecar.
    # A lower priority is not enough: Linux lets what runs go on for 3 ms, unless its class is `idle`.
    stage.start("attack", ["chrt", "--idle", "0", *_module("attacks", name, port)], LOAD_CORE, _PATH)
    log = stage.dir / "attack.log"
    stage.until("the attack to begin", lambda: "attacking" in log.read_text(), READY_SECONDS)
    latency = victim(port, seconds)
    stage.end("attack", signal.SIGTERM)
    report: dict[str, Any] = json.loads(log.read_text().splitlines()[-1])
    if not report["per_second"] and not report["open"]:
        raise RunFailed(f"the attack {name} did nothing: {report}")
    return latency, report


def wait_until_idle(stage: Stage, node: Node) -> None:
    """Wait until no exchange is open: an AI answer is read on when its client has left."""
    stage.until(
        "the last exchange to end", lambda: b"\nsidecar_open_exchanges 0.0" in get(node.control, "/metrics")[1], 60
    )


def measure(name: str, start_sidecar: Callable[[Stage], Node], rounds: int, seconds: int) -> Outcome:
    """Rounds without and with the attack, on one worker."""
    outcome = Outcome()
    with Stage() as stage:
        node = start_sidecar(stage)
        for number in range(rounds):
            print(f"{name}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            wait_until_idle(stage, node)
            outcome.normal.append(victim(node.port, seconds))
            attacked, report = under_attack(stage, name, node.port, seconds)
            outcome.attacked.append(attacked)
            outcome.attacks.append(report)
        stage.check_alive()
    return outcome


def report(outcomes: dict[str, Outcome], *, as_json: bool) -> None:
    """Print the figures: the median of the rounds, and the least one in brackets."""
    load = os.getloadavg()[0]
    if as_json:
        cases = {name: {**asdict(each), "ratio": each.ratio()} for name, each in outcomes.items()}
        print(json.dumps({"load_average": load, "cases": cases}, indent=2))
        return
    title = f"The victim's latency in ms, median and least of the rounds (load average {load:.1f})"
    table = Table(title=title, box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for column in ("case", "p50", "p99", "p50", "attack p99", "ratio", "fail", "attack"):
        table.add_column(column, no_wrap=True, justify="left" if column in {"case", "attack"} else "right")
    for name, each in outcomes.items():
        figures = [text for runs in (each.normal, each.attacked) for text in _quantiles(runs)]
        table.add_row(name, *figures, f"{each.ratio():.1f}", str(sum(each.failures().values())), _attack(name, each))
    Console(width=WIDTH).print(table)


def _quantiles(runs: list[Latency]) -> tuple[str, str]:
    """The median p50 in ms, and the median p99 with the least one."""
    p99s_ms = [run.p99_us / 1000 for run in runs]
    p50_ms = statistics.median(run.p50_us / 1000 for run in runs)
    return f"{p50_ms:.1f}", f"{statistics.median(p99s_ms):.1f} ({min(p99s_ms):.1f})"


def _attack(name: str, outcome: Outcome) -> str:
    rate = statistics.median(each["per_second"] for each in outcome.attacks)
    return f"{rate:,.{rate < 10:d}f} {attacks.CASES[name].unit}/s"


@click.command(context_settings={"show_default": True})
@click.option("--cases", default=",".join(attacks.CASES), help="Separated by commas.")
@click.option("--rounds", default=5, type=click.IntRange(1, 25), help="Rounds without and with each attack.")
@click.option("--seconds", default=4, type=click.IntRange(1, 60), help="Seconds of each run.")
@click.option("--pure", is_flag=True, help="The tree in this interpreter, instead of the compiled wheel.")
@click.option("--json", "as_json", is_flag=True, help="JSON on the standard output, instead of a table.")
def main(cases: str, rounds: int, seconds: int, *, pure: bool, as_json: bool) -> None:
    """The latency of one client while another one attacks; exit code 1 where it more than doubles, or requests fail."""
    names = [name.strip() for name in cases.split(",")]
    if unknown := [name for name in names if name not in attacks.CASES]:
        raise click.UsageError(f"no case is named {', '.join(unknown)}; there are {', '.join(attacks.CASES)}")
    if not pure and (why := compiled.missing()):
        raise click.ClickException(f"{why}; --pure measures the tree in this interpreter")
    python, path = (Path(sys.executable), str(ROOT)) if pure else (compiled.python(), "")
    try:
        started = partial(start, python=python, path=path)
        outcomes = {name: measure(name, started, rounds, seconds) for name in names}
    except FAILURES as failure:
        raise click.ClickException(str(failure)) from failure
    report(outcomes, as_json=as_json)
    if faults := [fault for name, each in outcomes.items() for fault in each.faults(name)]:
        print("\n".join(faults), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.fairness")
