"""The goals, each as a sum over what was measured: its figure, and whether it is reached.

A comparison is made within a round, so of one sitting alone; where two forms were not measured together, or one not at
all, there is no figure, and the goal counts as not measured, never as reached.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import kept
from benchmarks.curves.rounds import Measured, from_json
from benchmarks.latency import Latencies
from benchmarks.measure import BASELINE, Results, Sample, Shape

NOT_MEASURED = "not measured"


class Evidence:
    """What is kept of all that was measured last. Every method gives one figure a round, [] where there is none."""

    def __init__(self) -> None:
        self.cpu = kept.newest("cpu")
        self.latency = kept.newest("latency")
        self.curves = kept.newest("curves")
        self.memory = kept.newest("memory")
        self.shipping = _shipping()

    def ratio(self, form: str, unit: str = BASELINE) -> list[float]:
        """CPU per request of `form` over that of `unit`."""
        if (sitting := self.cpu.get(form)) is None:
            return []
        samples = results_of(sitting.data).samples
        own, base = samples.get(form, {}), samples.get(unit, {})
        pairs = [(own[n].per_request_ns("proxy"), base[n].per_request_ns("proxy")) for n in sorted(own) if n in base]
        return [mine / theirs for mine, theirs in pairs if mine and theirs]

    def per_core(self, form: str, unit: str) -> list[float]:
        """Requests (or streams) that a core of `form` carries, over those that one of `unit` does."""
        return [1 / ratio for ratio in self.ratio(form, unit)]

    def added_us(self, form: str, quantile: str) -> list[float]:
        """What `form` adds to the bare upstream."""
        if (sitting := self.latency.get(form)) is None:
            return []
        found = latencies_of(sitting.data)
        return [float(us) for us in found.added(form, quantile)] if form in found.rounds_us else []

    def curve(self, name: str) -> Measured | None:
        """The curve as it was measured last."""
        return from_json(self.curves[name].data["curve"]) if name in self.curves else None

    def at(self, name: str, x: int, figure: str) -> list[float]:
        """A figure of one point of a curve."""
        found = self.curve(name)
        return found.values(x, figure) if found and x in found.figures else []

    def held(self, figure: str, unit: float = 1) -> list[float]:
        """A figure of the worker's memory."""
        sitting = self.memory.get("memory")
        return [one[figure] / unit for one in sitting.data["rounds"]] if sitting else []

    def shipped(self, target: str, figure: str) -> list[float]:
        """A figure of what `benchmarks.shipping` wrote down of one target."""
        return [one[figure] for one in self.shipping.get(target, {}).get("rounds", ())]

    def lag_ms(self, target: str, figure: str) -> list[float]:
        """How old the oldest record that was not shipped was, at a steady feed."""
        lag = self.shipping.get(target, {}).get("lag") or {}
        return [lag[figure] / 1000] if figure in lag else []


def results_of(data: dict[str, Any]) -> Results:
    """Results, after JSON."""
    told = dict(data["results"])
    samples = {name: {int(n): Sample(**one) for n, one in rounds.items()} for name, rounds in told["samples"].items()}
    return Results(**told | {"shape": Shape(**told["shape"]), "samples": samples})


def latencies_of(data: dict[str, Any]) -> Latencies:
    """Latencies, after JSON."""
    return Latencies(**data["latencies"])


def _shipping() -> dict[str, Any]:
    path = kept.HOME / "shipping.json"
    return json.loads(path.read_text()) if path.exists() else {}


@dataclass(frozen=True)
class Goal:
    """`figures` one a round; their median is held to `bound`, at most or `least`."""

    what: str
    bound: float
    figures: Callable[[Evidence], list[float]]
    unit: str = ""
    digits: int = 2
    least: bool = False

    def row(self, evidence: Evidence) -> tuple[str, str, str, str]:
        """What, the goal, the figure with its spread, and whether it is reached."""
        sign = "≥" if self.least else "≤"
        goal = f"{sign} {self.bound:,.10g}{self.unit}"
        if not (found := self.figures(evidence)):
            return self.what, goal, NOT_MEASURED, NOT_MEASURED
        middle = statistics.median(found)
        spread = f" ({min(found):,.{self.digits}f} … {max(found):,.{self.digits}f})" if len(found) > 1 else ""
        reached = middle >= self.bound if self.least else middle <= self.bound
        return self.what, goal, f"{middle:,.{self.digits}f}{self.unit}{spread}", "yes" if reached else "**no**"


def _falls(evidence: Evidence) -> list[float]:
    """Calls a request at the highest load times what the load grew by, over those at the lowest: 1 where they fall as
    1/load."""
    if not (found := evidence.curve("calls")) or len(found.figures) < 2:
        return []
    low, high = min(found.figures), max(found.figures)
    return [found.median(high, "calls") * high / (found.median(low, "calls") * low)]


GOALS = (
    Goal("CPU per request, 2 leased limits, ÷ nginx bare", 1.25, lambda e: e.ratio("leased")),
    Goal("the same, exact limits, ÷ nginx bare", 1.5, lambda e: e.ratio("redis")),
    Goal("the same, leased, ÷ Envoy bare", 0.5, lambda e: e.ratio("leased", "envoy")),
    Goal("the same, leased, ÷ Envoy + global rate limit service", 0.25, lambda e: e.ratio("leased", "envoy-global")),
    Goal("requests per core ÷ LiteLLM's proxy", 30, lambda e: e.per_core("chat", "litellm"), digits=1, least=True),
    Goal("added at 1,000 requests/s, p50, leased", 150, lambda e: e.added_us("leased", "p50"), " µs", 0),
    Goal("added at 1,000 requests/s, p99, leased", 1000, lambda e: e.added_us("leased", "p99"), " µs", 0),
    Goal("streams per core ÷ nginx, buffering off", 0.5, lambda e: e.per_core("stream", "nginx-stream"), least=True),
    Goal("memory of an idle worker (resident)", 45, lambda e: e.held("idle_rss_kib", 1024), " MiB", 1),
    Goal("memory per open keep-alive connection", 6, lambda e: e.held("connection_bytes", 1024), " KiB", 1),
    Goal("Redis calls per request at 4,000/s, 8 workers", 0.03, lambda e: e.at("calls", 4000, "calls"), digits=3),
    Goal("calls a second at the highest load ÷ at the lowest (1: falls as 1/load)", 2, _falls),
    Goal(
        "records/s and core, to Kafka", 1e5, lambda e: e.shipped("kafka", "records_per_core_second"), "", 0, least=True
    ),
    Goal(
        "records/s and core, to a file", 1e5, lambda e: e.shipped("file", "records_per_core_second"), "", 0, least=True
    ),
    Goal("greatest lag at 10,000 records/s, Kafka", 1000, lambda e: e.lag_ms("kafka", "max_us"), " ms", 0),
)
