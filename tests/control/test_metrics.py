import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.control.listener import scrape
from sidecar.control.metrics import COUNTS, TYPES
from sidecar.control.stats import ChildView, NodeView, PolicyView, Totals
from tests.control.test_stats import observed

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def view():
    totals = Totals(
        requests={"chat|2xx": 7, "a|b|4xx": 1},
        denials={"burst|enforce": 2, "trial|shadow": 3},
        counts={
            "records": 9,
            "degraded_us": 1_500_000,
            "odd": 4,
            "tls_refused|other": 1,
            "refused|key-unknown": 1,
            "accept_pauses|descriptors": 1,
            "accept_paused_us|descriptors": 1,
            "drift|monthly": 6,
            "drifted": 2,
        },
        added_us=observed(60, 2_000_000),
    )
    gauges = {"connections": 3, "upstream_open|api": 5, "upstream_idle|api": 4, "upstream_open|llm": 1}
    worker = ChildView("worker-0", 1, True, [], {}, 2, {"gauges": gauges}, "", 2_500_000, 4096)
    more = ChildView("worker-1", 3, True, [], {}, 0, {"gauges": {"upstream_open|api": 2}})
    shipper = ChildView("shipper", 2, False, ["starting"], {}, 0)
    own = {"gauges": {"journal_backlog_bytes": 8_192}, "ages_us": {"journal_oldest": 250_000}}
    policy = PolicyView("p7", 3_000_000, 4_000_000, 1, ["x"])
    return NodeView("1.0", 1_000_000, False, [worker, more, shipper], policy, totals, "pure", own=own)


@pytest.fixture(scope="module")
def samples():
    text = scrape(view(), "")[0].decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("sample", "value"),
    [
        (("sidecar_requests_total", "chat", "2xx"), 7),
        (("sidecar_requests_total", "a|b", "4xx"), 1),
        (("sidecar_denials_total", "burst", "enforce"), 2),
        (("sidecar_denials_total", "trial", "shadow"), 3),
        (("sidecar_records_total",), 9),
        (("sidecar_unrecorded_total",), 0),
        (("sidecar_degraded_seconds_total",), 1.5),
        (("sidecar_events_total", "odd"), 4),
        (("sidecar_open_connections",), 3),
        (("sidecar_upstream_open_connections", "api"), 7),
        (("sidecar_upstream_open_connections", "llm"), 1),
        (("sidecar_upstream_idle_connections", "api"), 4),
        (("sidecar_journal_oldest_seconds",), 0.25),
        (("sidecar_journal_backlog_bytes",), 8_192),
        (("sidecar_added_seconds_bucket", "5e-05"), 0),
        (("sidecar_added_seconds_bucket", "0.0001"), 1),
        (("sidecar_added_seconds_bucket", "1.0"), 1),
        (("sidecar_added_seconds_bucket", "+Inf"), 2),
        (("sidecar_added_seconds_sum",), 2.00006),
        (("sidecar_policy_info", "p7"), 1),
        (("sidecar_policy_reload_success",), 0),
        (("sidecar_policy_loaded_timestamp_seconds",), 3),
        (("sidecar_policy_reload_failures_total",), 1),
        (("sidecar_child_restarts_total", "worker-0"), 2),
        (("sidecar_child_ready", "shipper"), 0),
        (("sidecar_child_cpu_seconds_total", "worker-0"), 2.5),
        (("sidecar_child_resident_bytes", "worker-0"), 4096),
        (("sidecar_build_info", "pure", "1.0"), 1),
    ],
)
def test_a_scrape_shows(samples, sample, value):
    assert samples[sample] == value


def test_every_count_of_the_table_is_shown_from_the_start(samples):
    # An alarm on a counter that does not exist yet never fires.
    assert {name for (name, *_) in samples} >= {f"{row.metric}_total" for row in COUNTS.values()}


def test_names_end_in_their_unit_and_say_total_where_they_only_grow(samples):
    names = {name for (name, *_) in samples}
    counters = {f"{row.metric}_total" for row in TYPES["counter"]}
    assert counters <= names
    assert {name for name in names if name.endswith("_total")} == counters
    assert not [name for name in names if re.search("_(us|ms|kb)(_|$)", name)]


def test_a_scraper_that_asks_for_openmetrics_gets_it():
    body, content_type = scrape(view(), "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def rows_of_the_page():
    line = re.compile(r"^\| `(?P<name>[a-z_]+)` \| (?P<type>\w+) \| (?P<labels>[^|]*) \| (?P<help>[^|]+) \|")
    return {
        match["name"]: (match["type"], tuple(re.findall(r"`(\w+)`", match["labels"])), match["help"])
        for match in map(line.match, PAGE.read_text().splitlines())
        if match
    }


def test_the_page_and_the_table_say_the_same():
    # Fails if a metric, a type, a label or a meaning is changed on one side only.
    table = {
        f"{row.metric}_total" if kind == "counter" else row.metric: (kind, row.labels, row.help)
        for kind, rows in TYPES.items()
        for row in rows
    }
    assert rows_of_the_page() == table


def test_every_alarm_on_the_page_is_on_a_metric_that_exists():
    alarms = PAGE.read_text().partition("## Alarms")[2]
    suffixes = ("", "_total", "_bucket", "_sum", "_count")
    known = {row.metric + suffix for rows in TYPES.values() for row in rows for suffix in suffixes}
    assert set(re.findall(r"sidecar_[a-z_]+", alarms)) <= known
