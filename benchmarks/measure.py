"""CPU per request, side by side: every round runs every form once, each round begins with another, and each form is
compared with the nginx of its own round. A run that lost a request, or did not do the same work, gives no number.
A request that is a stream is counted by what came of it, for most streams are cut where a run begins and ends.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks import load, upstreams
from benchmarks.peers import Peer, Started
from benchmarks.stage import FAILURES, LOAD_CORE, Parts, RunFailed, Stage, cpu_by_part, twice
from benchmarks.streams import BYTES

BASELINE = "nginx"
STREAM_SECONDS = 4  # at the least: a stream takes one, and some have to come to their end


@dataclass(frozen=True)
class Shape:
    """What is asked for: rounds, seconds of a run and of its warm-up, bytes of an answer."""

    rounds: int = 5
    seconds: int = 5
    warmup: int = 1
    answer_bytes: int = 1024


@dataclass(frozen=True)
class Sample:
    """One run: requests served (streams: by their bytes), and the CPU in µs that each part spent on them."""

    requests: int
    duration_us: int
    cpu_us: dict[str, int]
    facts: dict[str, int]

    def per_request_ns(self, part: str) -> int | None:
        return self.cpu_us[part] * 1000 // self.requests if part in self.cpu_us else None


@dataclass
class Results:
    """Samples by form and round. A form that failed, or is not here, has its reason in `left_out`. `units` names the
    form that one is compared with, where it is not nginx."""

    shape: Shape
    titles: dict[str, str]
    samples: dict[str, dict[int, Sample]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)

    def cpu_ns(self, name: str, part: str = "proxy") -> list[int]:
        return [ns for s in self.samples.get(name, {}).values() if (ns := s.per_request_ns(part)) is not None]

    def ratios(self, name: str) -> list[float]:
        """The form's CPU per request over that of its unit in the same round."""
        base = self.samples.get(self.units.get(name, BASELINE), {})
        pairs = [(s.per_request_ns("proxy"), base[i].per_request_ns("proxy")) for i, s in self._of(name) if i in base]
        return [form / unit for form, unit in pairs if form and unit]

    def _of(self, name: str) -> list[tuple[int, Sample]]:
        return sorted(self.samples.get(name, {}).items())

    def rates(self, name: str) -> list[int]:
        """Requests per second, by round."""
        return [s.requests * 1_000_000 // s.duration_us for _, s in self._of(name)]

    def facts(self, name: str) -> dict[str, float]:
        """The median of each fact that the runs of this form reported."""
        samples = [s for _, s in self._of(name)]
        return {key: statistics.median(s.facts[key] for s in samples) for key in (samples[0].facts if samples else ())}


def measure(peer: Peer, shape: Shape) -> Sample:
    """One run of one form on a stage of its own."""
    streamed = peer.traffic == load.STREAMS
    with Stage() as stage:
        upstream = _upstream(stage, shape, streamed)
        started = peer.start(stage, upstream)
        how: Any = {"traffic": peer.traffic, "connections": peer.connections}
        warm = load.warm_up(stage, started.port, shape.warmup, **how)
        if streamed:  # those that wrk left are gone, and nobody drains them into the figure
            stage.until("the streams of the warm-up to end", lambda: upstreams.open_streams(upstream) == 0)
        parts = started.parts()
        before = cpu_by_part(parts)
        served = load.wrk(stage, started.port, max(shape.seconds, STREAM_SECONDS * streamed), **how)
        after = cpu_by_part(parts)
        used = {part: after[part] - before[part] for part in parts}
        _hold(stage, started, parts, used)
        if (seen := upstreams.requests_seen(upstream)) < warm.requests + served.requests:
            raise RunFailed(f"{served.requests + warm.requests} requests were answered; the upstream saw {seen}")
        # wrk leaves up to one request a connection behind when its time is up, in each of the two loads
        facts = started.verify(warm.requests + served.requests, 2 * peer.connections)
    requests = served.received // BYTES if streamed else served.requests
    return Sample(requests, served.duration_us, used, facts)


def _upstream(stage: Stage, shape: Shape, streamed: bool) -> int:
    if streamed:
        return upstreams.start_streams(stage, LOAD_CORE)
    return upstreams.start_upstream(stage, shape.answer_bytes, LOAD_CORE)


def _hold(stage: Stage, started: Started, parts: Parts, used: dict[str, int]) -> None:
    """RunFailed where not all of the work was done by those whose CPU was counted."""
    if started.parts() != parts:
        raise RunFailed("a process came or went during the run, so its CPU is not known")
    if idle := [part for part, us in used.items() if us <= 0 and part != started.may_rest]:
        raise RunFailed(f"{', '.join(idle)}: no CPU at all was used during the load, so the work was not done")
    stage.check_alive()


def measure_all(peers: Sequence[Peer], shape: Shape, say: Callable[[str], None]) -> Results:
    """All rounds. `say` hears of each run; what fails twice is left out from then on, with the reason."""
    results = Results(shape, {p.name: p.title for p in peers}, units={p.name: p.unit for p in peers})
    for peer in peers:
        if why := peer.missing():
            results.left_out[peer.name] = why
    for number in range(shape.rounds):
        turn = number % len(peers)
        for peer in (*peers[turn:], *peers[:turn]):
            if peer.name in results.left_out:
                continue
            say(f"round {number + 1} of {shape.rounds}: {peer.title}")
            try:
                results.samples.setdefault(peer.name, {})[number] = twice(partial(measure, peer, shape), say)
            except FAILURES as failure:
                results.left_out[peer.name] = str(failure)
                results.samples.pop(peer.name, None)
    return results
