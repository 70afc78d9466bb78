"""Every metric that the node exports, as one table, and the collector that reads it. docs/metrics.md has the same rows.

Metrics are made from plain integers at each scrape; the data path does not use the Prometheus client. Microseconds
become seconds here and nowhere else. A count that is not in the table is exported as `sidecar_events_total{event=…}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from sidecar.control.stats import BOUNDS_US, Histogram, NodeView, add_counts

US = 1_000_000


class Row(NamedTuple):
    """One metric: its name as scraped (without `_total`), help text, labels, and the divisor to its unit."""

    metric: str
    help: str
    labels: tuple[str, ...] = ()
    divisor: int = 1


REQUESTS = Row("sidecar_requests", "Answers sent to clients, the refusals among them.", ("route", "status"))
DENIALS = Row("sidecar_denials", "Requests that a limit refused, or in stage shadow would have.", ("limit", "stage"))
ADDED = Row("sidecar_added_seconds", "Time the sidecar itself added to an exchange: all of it less the upstream's.")
STORE = Row("sidecar_store_seconds", "Time for one round trip to the store of counters.")
EVENTS = Row("sidecar_events", "Other events, by name.", ("event",))

# The name of a count in a child → its metric.
COUNTS = {
    "records": Row("sidecar_records", "Records written to the journal."),
    "shipped": Row("sidecar_records_shipped", "Records committed to Kafka or written to the sink."),
    "postings": Row("sidecar_wallet_postings", "Postings of wallets written to the journal."),
    "postings_unreadable": Row(
        "sidecar_wallet_postings_unreadable",
        "Postings in a wallet's ledger that could not be read, and were passed over.",
    ),
    "quarantined": Row("sidecar_records_quarantined", "Records that the sink rejects permanently, set aside."),
    "state_saves": Row("sidecar_state_saves", "States of a node without Redis that were saved."),
    "state_save_failures": Row("sidecar_state_save_failures", "States that could not be saved; the last one remains."),
    "state_save_us": Row("sidecar_state_save_seconds", "Time spent on saving states, between requests.", (), US),
    "state_replayed": Row("sidecar_state_replayed", "Records that starts counted again, after the last saved state."),
    "state_damaged": Row("sidecar_state_damaged", "Saved states that could not be read, or were followed by a gap."),
    "missing": Row("sidecar_records_missing", "Record numbers that are missing: a gap in the journal."),
    "corrupt_bytes": Row("sidecar_journal_corrupt_bytes", "Bytes of the journal that were skipped: not a frame."),
    "journal_lost_bytes": Row(
        "sidecar_journal_lost_bytes", "Bytes that were shipped and are missing in a journal, as after a power cut."
    ),
    "unrecorded": Row("sidecar_unrecorded", "Exchanges served without a record, because on_full says serve."),
    "denials_recorded": Row("sidecar_denials_recorded", "Denials with a record of their own."),
    "denials_summarised": Row("sidecar_denials_summarised", "Denials that only a summary record counts."),
    "recovered": Row("sidecar_records_recovered", "Exchanges found open after a crash and closed as crashed."),
    "degraded": Row("sidecar_degraded_decisions", "Decisions made while the store did not answer."),
    "degraded_us": Row("sidecar_degraded_seconds", "Time in which the store of counters did not answer.", (), US),
    "store_failures": Row("sidecar_store_failures", "Calls to the store that failed or timed out."),
    "store_forbidden": Row("sidecar_store_forbidden", "Commands that the user of redis.url is not permitted to run."),
    "ship_failures": Row("sidecar_ship_failures", "Batches that the sink did not accept at the first try."),
    "upstream_retries": Row("sidecar_upstream_retries", "Requests sent to an upstream a second time."),
    "upstream_share_refusals": Row(
        "sidecar_upstream_share_refusals", "Requests refused because their customer has its share of a pool in use."
    ),
    "late_us": Row("sidecar_loop_late_seconds", "Time by which checks of deadlines ran late: busy loops.", (), US),
    "answers_in_turns": Row(
        "sidecar_answers_read_in_turns", "Times that an answer took long to read: many events, elements."
    ),
    "upstream_failed_look_ups": Row(
        "sidecar_upstream_failed_look_ups", "Times that the name of an upstream could not be resolved."
    ),
    "debts_paid": Row("sidecar_store_debts_paid", "Exchanges of an outage that were added to the counters after it."),
    "store_losses": Row("sidecar_store_losses", "Times that a Redis was found to have come back empty."),
    "debts_lost": Row("sidecar_store_debts_lost", "Exchanges of an outage that no counter will ever include."),
    "outage_files_damaged": Row(
        "sidecar_outage_files_damaged", "Outage files whose lines could not be read: shares count as used up."
    ),
    "drift": Row(
        "sidecar_counter_drift_units", "Units by which counters may differ from the records, up or down.", ("limit",)
    ),
    "drifted": Row(
        "sidecar_counter_drift_exchanges", "Exchanges whose settlement was abandoned: repeated, it might count twice."
    ),
    "exchange_faults": Row(
        "sidecar_exchange_faults", "Internal exceptions in an exchange, each of which ended only that exchange."
    ),
    "refused": Row(
        "sidecar_refusals",
        "Requests answered by the sidecar before an upstream saw them, by problem type.",
        ("reason",),
    ),
    "usage_answers": Row("sidecar_usage_answers", "Times that a client was shown what is left, at usage_path."),
    "accept_pauses": Row(
        "sidecar_accept_pauses",
        "Times that a worker accepted no more connections: http.max_connections are open, or no descriptor is left.",
        ("reason",),
    ),
    "accept_paused_us": Row(
        "sidecar_accept_paused_seconds", "Time in which new connections had to wait for such a worker.", ("reason",), US
    ),
    "idle_closed": Row(
        "sidecar_idle_connections_closed", "Idle connections that were closed because others had to wait."
    ),
    "tls_refused": Row("sidecar_tls_handshakes_refused", "TLS handshakes of clients that were refused.", ("reason",)),
    "keys_stale": Row(
        "sidecar_keys_stale", "Identities taken from the cache after their expiry: the key store did not answer."
    ),
    "keys_subscriptions_lost": Row(
        "sidecar_keys_subscriptions_lost",
        "Times that a worker lost the channel of changed keys, or could not subscribe.",
    ),
}
GAUGES = {
    "keys_unsubscribed": Row(
        "sidecar_keys_unsubscribed",
        "Workers without notice of changed keys: a revocation takes up to keys.cache_ttl.",
    ),
    "wallets_unread": Row("sidecar_wallets_unread", "Wallets with postings that may not be in the journal yet."),
    "connections": Row("sidecar_open_connections", "Open connections of clients, also in their TLS handshake."),
    "connections_max": Row("sidecar_max_connections", "Connections of clients that the workers may have open."),
    "exchanges": Row("sidecar_open_exchanges", "Exchanges in progress."),
    "upstream_open": Row(
        "sidecar_upstream_open_connections",
        "Connections to an upstream: being opened, busy, idle or being closed.",
        ("upstream",),
    ),
    "upstream_idle": Row("sidecar_upstream_idle_connections", "Connections that can carry a request.", ("upstream",)),
    "journal_backlog_bytes": Row("sidecar_journal_backlog_bytes", "Bytes in the journal that are not shipped yet."),
    "journals_unreadable": Row(
        "sidecar_journals_unreadable", "Workers whose journal the shipper cannot read; the others continue."
    ),
    "journal_full": Row("sidecar_journal_full", "Journals that refuse or no longer record: disk or cap is full."),
    "denials_waiting": Row("sidecar_denials_waiting", "Denials counted in memory, for a summary record to come."),
    "breakers_open": Row("sidecar_store_breakers_open", "Workers whose breaker to the store is open."),
    "leased_units": Row(
        "sidecar_leased_units", "Units reserved in advance by workers: lost to a window if they are killed."
    ),
}
AGES = {
    "state": Row("sidecar_state_age_seconds", "Time since the state of a node without Redis was saved.", (), US),
    "store_lost": Row(
        "sidecar_store_lost_timestamp_seconds", "When a Redis was last found to have come back empty; 0: never.", (), US
    ),
    "store_loss_denying": Row(
        "sidecar_store_loss_denying", "1 while limits with on_store_loss: deny refuse, since a Redis came back empty."
    ),
    "journal_oldest": Row("sidecar_journal_oldest_seconds", "Age of the oldest record not shipped yet.", (), US),
}
POLICY = Row("sidecar_policy_info", "The active policy, always 1.", ("version",))
RELOADED = Row("sidecar_policy_reload_success", "1 when the last reload succeeded, 0 when it was refused.")
RELOAD_TIME = Row("sidecar_policy_loaded_timestamp_seconds", "When the active policy was loaded.", (), US)
RELOAD_FAULTS = Row("sidecar_policy_reload_failures", "Reloads that were refused; the old policy remains active.")
RESTARTS = Row("sidecar_child_restarts", "Times that a child process had to be started again.", ("process",))
READY = Row("sidecar_child_ready", "1 while the child is ready.", ("process",))
CPU = Row("sidecar_child_cpu_seconds", "CPU time of the running child, user and system.", ("process",), US)
RSS = Row("sidecar_child_resident_bytes", "Resident memory of the running child.", ("process",))
EXPIRY = Row(
    "sidecar_certificate_expiry_timestamp_seconds",
    "When a certificate that this node presents expires; of a chain the earliest.",
    ("setting",),
)
STARTED = Row("sidecar_start_timestamp_seconds", "When the supervisor started.", (), US)
BUILD = Row(
    "sidecar_build_info", "The version, and whether the data path is compiled or pure; always 1.", ("version", "form")
)

TYPES: dict[str, tuple[Row, ...]] = {
    "counter": (REQUESTS, DENIALS, *COUNTS.values(), EVENTS, RELOAD_FAULTS, RESTARTS, CPU),
    "gauge": (*GAUGES.values(), *AGES.values(), POLICY, RELOADED, RELOAD_TIME, READY, RSS, EXPIRY, STARTED, BUILD),
    "histogram": (ADDED, STORE),
}

Samples = list[tuple[tuple[str, ...], int]]


def collect(view: NodeView) -> Iterator[Metric]:
    """The metric families of a view of the node."""
    totals = view.totals
    yield _metric(REQUESTS, [(_split(key), value) for key, value in totals.requests.items()])
    yield _metric(DENIALS, [(_split(key), value) for key, value in totals.denials.items()])
    yield _histogram(ADDED, totals.added_us)
    yield _histogram(STORE, totals.store_us)
    for name, row in COUNTS.items():
        yield _metric(row, _samples(name, row, totals.counts))
    others: Samples = [
        ((name,), value) for name, value in totals.counts.items() if name.partition("|")[0] not in COUNTS
    ]
    yield _metric(EVENTS, others)
    yield from _gauges(view)
    yield from _policy(view)
    yield from _children(view)
    yield _metric(EXPIRY, [((name,), expires_s) for name, expires_s in view.certificates.items()])
    yield _metric(STARTED, [((), view.started_us)])
    yield _metric(BUILD, [((view.version, view.form), 1)])


def _gauges(view: NodeView) -> Iterator[Metric]:
    all_stats = [view.own, *(child.stats for child in view.children)]
    sums: dict[str, int] = {}
    for stats in all_stats:
        add_counts(sums, stats.get("gauges", {}))
    for name, row in GAUGES.items():
        yield _metric(row, _samples(name, row, sums))
    for name, row in AGES.items():
        yield _metric(row, [((), max((stats.get("ages_us", {}).get(name, 0) for stats in all_stats), default=0))])


def _samples(name: str, row: Row, figures: Mapping[str, int]) -> Samples:
    """The figure of a name; where the row has a label, those of "name|label"."""
    if not row.labels:
        return [((), figures.get(name, 0))]
    return [((key[len(name) + 1 :],), figure) for key, figure in figures.items() if key.startswith(name + "|")]


def _policy(view: NodeView) -> Iterator[Metric]:
    policy = view.policy
    yield _metric(POLICY, [((policy.version,), 1)])
    yield _metric(RELOADED, [((), int(not policy.faults))])
    yield _metric(RELOAD_TIME, [((), policy.loaded_us)])
    yield _metric(RELOAD_FAULTS, [((), policy.failed_reloads)])


def _children(view: NodeView) -> Iterator[Metric]:
    children = view.children
    yield _metric(RESTARTS, [((child.name,), child.restarts) for child in children])
    yield _metric(READY, [((child.name,), int(child.ready)) for child in children])
    yield _metric(CPU, [((child.name,), child.cpu_us) for child in children])
    yield _metric(RSS, [((child.name,), child.rss_bytes) for child in children])


def _split(key: str) -> tuple[str, ...]:
    left, _, right = key.rpartition("|")
    return left, right


def _metric(row: Row, samples: Samples) -> Metric:
    make: type[CounterMetricFamily | GaugeMetricFamily]
    make = CounterMetricFamily if row in TYPES["counter"] else GaugeMetricFamily
    family = make(row.metric, row.help, labels=row.labels)
    for labels, value in samples:
        family.add_metric(labels, value / row.divisor if row.divisor != 1 else value)
    return family


def _histogram(row: Row, histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(row.metric, row.help)
    bounds = [*(str(bound / US) for bound in BOUNDS_US), "+Inf"]
    family.add_metric((), list(zip(bounds, accumulate(histogram["buckets"]), strict=True)), histogram["sum_us"] / US)
    return family
