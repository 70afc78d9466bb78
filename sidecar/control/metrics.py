"""Every metric that the node exports, as one table, and the collector that reads it. docs/metrics.md holds the same.

Figures are made of plain integers at scrape; the data path knows nothing of Prometheus. Microseconds become seconds
here and nowhere else. A count whose name is not in the table is shown under `sidecar_events_total`: nothing is quiet.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from sidecar.control.stats import BOUNDS_US, Histogram, NodeView

US = 1_000_000


class Row(NamedTuple):
    """One metric: its name as scraped (without `_total`), what it means, its labels, and the divisor to its unit."""

    metric: str
    help: str
    labels: tuple[str, ...] = ()
    divisor: int = 1


REQUESTS = Row("sidecar_requests", "Answers sent to clients, the refusals among them.", ("route", "status"))
DENIALS = Row("sidecar_denials", "Requests that a limit refused, or in stage shadow would have.", ("limit", "stage"))
ADDED = Row("sidecar_added_seconds", "Time the sidecar itself added to an exchange: all of it less the upstream's.")
STORE = Row("sidecar_store_seconds", "Time for one round trip to the store of counters.")
EVENTS = Row("sidecar_events", "Other things that happened, by name.", ("event",))

# The name that a child counts under → what it is for the world.
COUNTS = {
    "records": Row("sidecar_records", "Records written to the journal."),
    "shipped": Row("sidecar_records_shipped", "Records committed to Kafka or written to the sink."),
    "quarantined": Row("sidecar_records_quarantined", "Records that the sink will never take, set aside."),
    "missing": Row("sidecar_records_missing", "Numbers of records that never came: a gap in the journal."),
    "corrupt_bytes": Row("sidecar_journal_corrupt_bytes", "Bytes of the journal that are no frame, and were skipped."),
    "unrecorded": Row("sidecar_unrecorded", "Exchanges served without a record, because on_full says serve."),
    "recovered": Row("sidecar_records_recovered", "Exchanges found open after a crash and closed as crashed."),
    "degraded": Row("sidecar_degraded_decisions", "Decisions taken while the store did not answer."),
    "degraded_us": Row("sidecar_degraded_seconds", "Time in which the store of counters did not answer.", (), US),
    "store_failures": Row("sidecar_store_failures", "Calls to the store that failed or timed out."),
    "ship_failures": Row("sidecar_ship_failures", "Batches that the sink did not take at the first try."),
    "upstream_retries": Row("sidecar_upstream_retries", "Requests sent to an upstream a second time."),
    "debts_paid": Row("sidecar_store_debts_paid", "Exchanges of an outage that were put into the counters after it."),
    "debts_lost": Row("sidecar_store_debts_lost", "Exchanges of an outage that no counter will ever hold."),
    "keys_stale": Row(
        "sidecar_keys_stale", "Identities taken from the cache past their time: the keys did not answer."
    ),
}
GAUGES = {
    "connections": Row("sidecar_open_connections", "Open connections of clients."),
    "exchanges": Row("sidecar_open_exchanges", "Exchanges under way."),
    "journal_backlog_bytes": Row("sidecar_journal_backlog_bytes", "Bytes in the journal that are not shipped yet."),
    "journal_full": Row("sidecar_journal_full", "Journals that refuse or no longer record: disk or cap is full."),
    "breakers_open": Row("sidecar_store_breakers_open", "Workers whose breaker to the store is open."),
    "leased_units": Row(
        "sidecar_leased_units", "Units reserved ahead by workers: lost to a window if they are killed."
    ),
}
AGES = {
    "journal_oldest": Row("sidecar_journal_oldest_seconds", "Age of the oldest record not shipped yet.", (), US),
}
POLICY = Row("sidecar_policy_info", "The policy in force, always 1.", ("version",))
RELOADED = Row("sidecar_policy_reload_success", "1 when the last reload was taken, 0 when it was refused.")
RELOAD_TIME = Row("sidecar_policy_loaded_timestamp_seconds", "When the policy in force was loaded.", (), US)
RELOAD_FAULTS = Row("sidecar_policy_reload_failures", "Reloads that were refused; the old policy stayed.")
RESTARTS = Row("sidecar_child_restarts", "Times that a child process had to be started again.", ("process",))
READY = Row("sidecar_child_ready", "1 while the child is ready.", ("process",))
CPU = Row("sidecar_child_cpu_seconds", "CPU time of the living child, user and system.", ("process",), US)
RSS = Row("sidecar_child_resident_bytes", "Resident memory of the living child.", ("process",))
STARTED = Row("sidecar_start_timestamp_seconds", "When the supervisor started.", (), US)
BUILD = Row(
    "sidecar_build_info", "The version, and whether the data path is compiled or pure; always 1.", ("version", "form")
)

TYPES: dict[str, tuple[Row, ...]] = {
    "counter": (REQUESTS, DENIALS, *COUNTS.values(), EVENTS, RELOAD_FAULTS, RESTARTS, CPU),
    "gauge": (*GAUGES.values(), *AGES.values(), POLICY, RELOADED, RELOAD_TIME, READY, RSS, STARTED, BUILD),
    "histogram": (ADDED, STORE),
}

Samples = list[tuple[tuple[str, ...], int]]


def collect(view: NodeView) -> Iterator[Metric]:
    """Turn what the node knows into metric families."""
    totals = view.totals
    yield _counter(REQUESTS, [(_split(key), value) for key, value in totals.requests.items()])
    yield _counter(DENIALS, [(_split(key), value) for key, value in totals.denials.items()])
    yield _histogram(ADDED, totals.added_us)
    yield _histogram(STORE, totals.store_us)
    for name, row in COUNTS.items():
        yield _counter(row, [((), totals.counts.get(name, 0))])
    yield _counter(EVENTS, [((name,), value) for name, value in totals.counts.items() if name not in COUNTS])
    yield from _moments(view)
    yield from _policy(view)
    yield from _children(view)
    yield _gauge(STARTED, [((), view.started_us)])
    yield _gauge(BUILD, [((view.version, view.form), 1)])


def _moments(view: NodeView) -> Iterator[Metric]:
    told = [child.stats for child in view.children]
    for name, row in GAUGES.items():
        yield _gauge(row, [((), sum(stats.get("gauges", {}).get(name, 0) for stats in told))])
    for name, row in AGES.items():
        yield _gauge(row, [((), max((stats.get("ages_us", {}).get(name, 0) for stats in told), default=0))])


def _policy(view: NodeView) -> Iterator[Metric]:
    policy = view.policy
    yield _gauge(POLICY, [((policy.version,), 1)])
    yield _gauge(RELOADED, [((), int(not policy.faults))])
    yield _gauge(RELOAD_TIME, [((), policy.loaded_us)])
    yield _counter(RELOAD_FAULTS, [((), policy.failed_reloads)])


def _children(view: NodeView) -> Iterator[Metric]:
    children = view.children
    yield _counter(RESTARTS, [((child.name,), child.restarts) for child in children])
    yield _gauge(READY, [((child.name,), int(child.ready)) for child in children])
    yield _counter(CPU, [((child.name,), child.cpu_us) for child in children])
    yield _gauge(RSS, [((child.name,), child.rss_bytes) for child in children])


def _split(key: str) -> tuple[str, ...]:
    left, _, right = key.rpartition("|")
    return left, right


def _scaled(row: Row, value: int) -> float:
    return value / row.divisor if row.divisor != 1 else value


def _counter(row: Row, samples: Samples) -> Metric:
    family = CounterMetricFamily(row.metric, row.help, labels=row.labels)
    for labels, value in samples:
        family.add_metric(labels, _scaled(row, value))
    return family


def _gauge(row: Row, samples: Samples) -> Metric:
    family = GaugeMetricFamily(row.metric, row.help, labels=row.labels)
    for labels, value in samples:
        family.add_metric(labels, _scaled(row, value))
    return family


def _histogram(row: Row, histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(row.metric, row.help)
    bounds = [*(str(bound / US) for bound in BOUNDS_US), "+Inf"]
    family.add_metric((), list(zip(bounds, accumulate(histogram["buckets"]), strict=True)), histogram["sum_us"] / US)
    return family
