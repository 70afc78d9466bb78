"""The statistics that a child reports on request, and the view of all children that the node exports.

Figures are plain integers with their unit in the name; a histogram is a list of counts per bucket, not cumulative, one
more than `BOUNDS_US` has (the last is everything above). Every part is optional.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Protocol, TypedDict

BOUNDS_US = (25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000)


class Histogram(TypedDict):
    """Counts per bucket of `BOUNDS_US` (a value belongs to the first bound that is not below it), and their sum."""

    buckets: list[int]
    sum_us: int


class WorkerStats(TypedDict, total=False):
    """The report of one child: a worker, or the shipper.

    requests   {"route|2xx": n}          answers, by route id ("" where none matched) and class of status
    denials    {"limit|enforce": n}      refusals by limit id; "limit|shadow" would have refused
    added_us   Histogram                 per exchange: total time less the time of the upstream
    store_us   Histogram                 per round trip to the store of counters
    counts     {name: n}                 never decrease; summed over children, restarts included (metrics.COUNTS);
                                         where that has a label, {"name|label": n}
    gauges     {name: n}                 current, summed over children (metrics.GAUGES), or {"name|label": n}
    ages_us    {name: µs}                current; the greatest of all children is exported (metrics.AGES)
    policy     the version of the active policy, `Policy.version`
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
    """A histogram without observations."""
    return {"buckets": [0] * (len(BOUNDS_US) + 1), "sum_us": 0}


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
    """The figures that never decrease, over all children, ended ones included: a restart must not look like a reset."""

    requests: dict[str, int] = field(default_factory=dict)
    denials: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    added_us: Histogram = field(default_factory=empty_histogram)
    store_us: Histogram = field(default_factory=empty_histogram)

    def add(self, stats: WorkerStats) -> None:
        """Add the report of one child."""
        add_counts(self.requests, stats.get("requests", {}))
        add_counts(self.denials, stats.get("denials", {}))
        add_counts(self.counts, stats.get("counts", {}))
        if "added_us" in stats:
            add_histogram(self.added_us, stats["added_us"])
        if "store_us" in stats:
            add_histogram(self.store_us, stats["store_us"])

    def plus(self, several: Iterable[WorkerStats]) -> Totals:
        """Return the sum of these totals and the reports of the running children, as a new object."""
        sums = deepcopy(self)
        for stats in several:
            sums.add(stats)
        return sums


@dataclass(slots=True)
class ChildView:
    """One child in the view. `cpu_us` and `rss_bytes` are the kernel's figures.

    `serves`: it serves clients, so the node is ready only while it is. `away`: why a dependency is down, by its name.
    """

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
    serves: bool = True


@dataclass(slots=True)
class PolicyView:
    """The active policy and the result of its last reload; times in µs since the Unix epoch, 0 for never."""

    version: str = ""
    loaded_us: int = 0
    tried_us: int = 0
    failed_reloads: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass(slots=True)
class NodeView:
    """Everything that the control listener exports, at one moment."""

    version: str
    started_us: int
    draining: bool
    children: list[ChildView]
    policy: PolicyView
    totals: Totals
    form: str = ""  # of the data path: compiled or pure
    certificates: dict[str, int] = field(default_factory=dict)  # expiry, s since the epoch, by setting
    own: WorkerStats = field(default_factory=WorkerStats)  # statistics of the supervisor itself

    def reasons(self) -> list[str]:
        """The reasons why the node is not ready; empty: ready. Ready: it can serve requests and record them.

        Shipping of records does not matter: they are safe in the journal, and other nodes would ship no better.
        """
        if self.draining:
            return ["draining"]
        return [f"{child.name}: {reason}" for child in self.children if child.serves for reason in child.reasons]

    def degraded(self) -> dict[str, str]:
        """The dependencies that are down although the node serves: {"worker-0 redis": reason, "shipper": reason}."""
        dependencies = {
            f"{child.name} {name}": why
            for child in self.children
            for name, why in child.away.items()
            if child.serves or not any(why in reason for reason in child.reasons)  # which are below
        }
        return dependencies | {
            child.name: "; ".join(child.reasons) for child in self.children if child.reasons and not child.serves
        }


class Node(Protocol):
    """The interface of the supervisor for the control listener."""

    async def view(self) -> NodeView:
        """Query every child, within a time bound; one that does not answer has its last figures and a reason."""
