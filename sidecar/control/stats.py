"""What a child tells of itself when asked, and what the node shows of all children together.

Figures are plain integers with their unit in the name; a histogram is a list of counts per bucket, not cumulative, one
more than `BOUNDS_US` has (the last is everything above). Every part is optional: a child tells what it knows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypedDict

BOUNDS_US = (25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000)


class Histogram(TypedDict):
    """Counts per bucket of `BOUNDS_US` (a value belongs to the first bound that is not below it), and their sum."""

    buckets: list[int]
    sum_us: int


class WorkerStats(TypedDict, total=False):
    """What one child tells: a worker, or the shipper.

    requests   {"route|2xx": n}          answers, by route id ("" where none matched) and class of status
    denials    {"limit|enforce": n}      refusals by limit id; "limit|shadow" would have refused
    added_us   Histogram                 per exchange: the whole time less the time the upstream took
    store_us   Histogram                 per round trip to the store of counters
    counts     {name: n}                 only ever grow; summed over children and kept over restarts (metrics.COUNTS)
    gauges     {name: n}                 of this moment; summed over children (metrics.GAUGES)
    ages_us    {name: µs}                of this moment; the greatest over children is shown (metrics.AGES)
    policy     the version of the policy in force, as `Policy.version` says it
    """

    requests: dict[str, int]
    denials: dict[str, int]
    added_us: Histogram
    store_us: Histogram
    counts: dict[str, int]
    gauges: dict[str, int]
    ages_us: dict[str, int]
    policy: str


def empty_histogram() -> Histogram:
    """A histogram that has counted nothing."""
    return {"buckets": [0] * (len(BOUNDS_US) + 1), "sum_us": 0}


def observe(histogram: Histogram, value_us: int) -> None:
    """Count `value_us` once."""
    histogram["buckets"][bisect_left(BOUNDS_US, value_us)] += 1
    histogram["sum_us"] += value_us


def add_counts(into: dict[str, int], more: Mapping[str, int]) -> None:
    """Add `more` to `into`, name by name."""
    for name, value in more.items():
        into[name] = into.get(name, 0) + value


def add_histogram(into: Histogram, more: Histogram) -> None:
    """Add `more` to `into`, bucket by bucket."""
    into["buckets"] = [a + b for a, b in zip(into["buckets"], more["buckets"], strict=True)]
    into["sum_us"] += more["sum_us"]


@dataclass(slots=True)
class Totals:
    """The figures that only grow, over all children, the dead ones too: a restart must not look like a reset."""

    requests: dict[str, int] = field(default_factory=dict)
    denials: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    added_us: Histogram = field(default_factory=empty_histogram)
    store_us: Histogram = field(default_factory=empty_histogram)

    def add(self, stats: WorkerStats) -> None:
        """Count in what one child told."""
        add_counts(self.requests, stats.get("requests", {}))
        add_counts(self.denials, stats.get("denials", {}))
        add_counts(self.counts, stats.get("counts", {}))
        if "added_us" in stats:
            add_histogram(self.added_us, stats["added_us"])
        if "store_us" in stats:
            add_histogram(self.store_us, stats["store_us"])

    def plus(self, several: Iterable[WorkerStats]) -> Totals:
        """Return these totals and what the living children tell, as a new object."""
        sums = Totals()
        sums.add(
            {
                "requests": self.requests,
                "denials": self.denials,
                "counts": self.counts,
                "added_us": self.added_us,
                "store_us": self.store_us,
            },
        )
        for stats in several:
            sums.add(stats)
        return sums


@dataclass(slots=True)
class ChildView:
    """One child as the control listener shows it. `cpu_us` and `rss_bytes` are the kernel's figures."""

    name: str
    pid: int
    ready: bool
    reasons: list[str]
    away: dict[str, str]
    restarts: int
    stats: WorkerStats = field(default_factory=WorkerStats)
    listening: str = ""
    cpu_us: int = 0
    rss_bytes: int = 0


@dataclass(slots=True)
class PolicyView:
    """The policy in force and how its last reload went; times in µs since the Unix epoch, 0 for never."""

    version: str = ""
    loaded_us: int = 0
    tried_us: int = 0
    failed_reloads: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass(slots=True)
class NodeView:
    """Everything that the control listener knows, at one moment."""

    version: str
    started_us: int
    draining: bool
    children: list[ChildView]
    policy: PolicyView
    totals: Totals
    form: str = ""  # of the data path: compiled or pure

    def reasons(self) -> list[str]:
        """Say why the node is not ready; nothing where it is."""
        if self.draining:
            return ["draining"]
        return [f"{child.name}: {reason}" for child in self.children for reason in child.reasons]

    def degraded(self) -> dict[str, str]:
        """Say what is away although the node serves: {"worker-0 redis": why}."""
        return {f"{child.name} {what}": why for child in self.children for what, why in child.away.items()}


class Node(Protocol):
    """What the control listener asks of the supervisor."""

    async def view(self) -> NodeView:
        """Ask every child, within a bound; one that does not answer shows its last figures and a reason."""
