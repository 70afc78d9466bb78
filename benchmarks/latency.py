"""What a proxy adds to the upstream's latency at a constant, moderate rate; never at saturation, where latency only
shows the length of the queue that the load generator made.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers import Peer
from benchmarks.stage import API_KEY, FAILURES, LOAD_CORE, RunFailed, Stage, twice
from benchmarks.upstreams import start_upstream

QUANTILES = {"p50": 5000, "p99": 9900, "p99.9": 9990}  # of 10,000
CONNECTIONS = 64
UPSTREAM = "upstream"
SCRIPT = Path(__file__).with_name("openloop.py")


@dataclass
class Latencies:
    """µs at each quantile, by form and round. A form that failed, or is not here, has its reason in `left_out`."""

    rate: int
    titles: dict[str, str]
    rounds_us: dict[str, list[dict[str, int]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def at(self, name: str, quantile: str) -> list[int]:
        return [one[quantile] for one in self.rounds_us[name]]

    def added(self, name: str, quantile: str) -> list[int]:
        """What the form adds to the upstream of the same round."""
        pairs = zip(self.at(name, quantile), self.at(UPSTREAM, quantile), strict=True)
        return [form - upstream for form, upstream in pairs]


def quantile(ordered: Sequence[int], ten_thousandths: int) -> int:
    """The smallest value that this share of the values does not exceed."""
    return ordered[max(-(-len(ordered) * ten_thousandths // 10_000) - 1, 0)]


def open_loop(port: int, rate: int, seconds: int, connections: int, *words: str) -> Any:
    """What the open loop prints, on the load's core; `words` are its last arguments."""
    argv = [sys.executable, str(SCRIPT), *map(str, (port, rate, seconds, connections)), API_KEY, *words]
    done = subprocess.run(
        ["taskset", "-c", str(LOAD_CORE), *argv], capture_output=True, text=True, check=False, timeout=seconds + 30
    )
    if done.returncode:
        raise RunFailed(f"the open loop at {rate} requests/s: {done.stderr.strip()}")
    return json.loads(done.stdout)


def _once(peer: Peer | None, rate: int, seconds: int, answer_bytes: int) -> list[int]:
    with Stage() as stage:
        upstream = start_upstream(stage, answer_bytes, LOAD_CORE)
        port = peer.start(stage, upstream).port if peer else upstream
        return sorted(open_loop(port, rate, seconds, CONNECTIONS))


def _not_for_latency(peer: Peer) -> str:
    return "" if peer.traffic == "same" else "its requests are not those of the open loop"


def measure_latency(peers: Sequence[Peer], shape: tuple[int, int, int, int], say: Callable[[str], None]) -> Latencies:
    """Interleaved rounds over the bare upstream and every peer. `shape`: rate, rounds, seconds, answer's bytes."""
    rate, rounds, seconds, answer_bytes = shape
    forms: list[tuple[str, Peer | None]] = [(UPSTREAM, None), *((p.name, p) for p in peers)]
    result = Latencies(rate, {UPSTREAM: "the upstream itself", **{p.name: p.title for p in peers}})
    result.left_out = {p.name: why for p in peers if (why := _not_for_latency(p) or p.missing())}
    for number in range(rounds):
        turn = number % len(forms)
        for name, peer in (*forms[turn:], *forms[:turn]):
            if name in result.left_out:
                continue
            say(f"round {number + 1} of {rounds}: {result.titles[name]} at {rate} requests/s")
            try:
                ordered = twice(partial(_once, peer, rate, seconds, answer_bytes), say)
                figures = {label: quantile(ordered, share) for label, share in QUANTILES.items()}
                result.rounds_us.setdefault(name, []).append(figures)
            except FAILURES as failure:
                result.left_out[name] = str(failure)
                result.rounds_us.pop(name, None)
    return result
