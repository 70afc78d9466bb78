"""The figures of one worker, gathered when somebody asks: `control.stats.WorkerStats`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.control.stats import BOUNDS_US, Histogram, WorkerStats, empty_histogram
from sidecar.edge.redis.wire import LATENCY_BOUNDS_US, WireStats

if TYPE_CHECKING:
    from sidecar.app.worker import Worker


def worker_stats(worker: Worker) -> WorkerStats:
    """Gather from every part that counts."""
    figures, journal = worker.figures, worker.journal.figures
    store, keys = worker.counters.figures(), worker.keys.figures()
    denials = worker.journal.denials
    state_counts, state_ages = worker.embedded.figures() if worker.embedded is not None else ({}, {})
    posting_counts, posting_gauges = worker.postings.figures()
    counts = {
        **posting_counts,
        **state_counts,
        **figures.counts,
        **store.counts,
        **keys.counts,
        **worker.acceptor.counts,
        "records": journal.records,
        "unrecorded": journal.unrecorded,
        "recovered": journal.crashed,
        "denials_recorded": denials.recorded,
        "denials_summarised": denials.summarised,
        "upstream_retries": worker.upstreams.retries,
        "upstream_share_refusals": worker.upstreams.share_refusals,
        "late_us": worker.late_us,
        "upstream_failed_look_ups": worker.upstreams.failed_look_ups,
    }
    return {
        "requests": {f"{route}|{kind}xx": count for (route, kind), count in figures.requests.items()},
        "denials": {
            f"{limit}|{'shadow' if shadow else 'enforce'}": count for (limit, shadow), count in figures.denials.items()
        },
        "added_us": figures.added_us,
        "store_us": store_latency(worker.counters.stats),
        "counts": counts,
        "gauges": {
            "connections": worker.acceptor.number,
            "connections_max": worker.acceptor.most,
            "exchanges": worker.context.open.number,
            "journal_full": journal.full | journal.broken,
            "denials_waiting": denials.waiting,
            **posting_gauges,
            **worker.upstreams.gauges(),
            **store.gauges,
            **keys.gauges,
        },
        "ages_us": {
            **state_ages,
            "store_lost": worker.counters.markers.last_us if worker.counters.markers else 0,
            "store_loss_denying": int(worker.counters.loss.denying),
        },
        "policy": worker.context.policies.policy.version,
    }


def store_latency(stats: WireStats) -> Histogram:
    """The wire's buckets are among ours, so no reply changes its bound."""
    histogram = empty_histogram()
    for bound, count in zip((*LATENCY_BOUNDS_US, None), stats.latency_buckets, strict=True):
        place = len(BOUNDS_US) - 1 if bound is None else BOUNDS_US.index(bound)
        histogram["buckets"][place + (bound is None)] += count
    histogram["sum_us"] = stats.latency_sum_us
    return histogram
