from sidecar.app.stats import store_latency
from sidecar.control.stats import BOUNDS_US
from sidecar.edge.redis.wire import LATENCY_BOUNDS_US, WireStats


def test_every_bound_of_the_wire_is_one_of_the_metrics():
    # Fails if either list is edited alone: a reply would move to another bound between wire and metrics.
    assert set(LATENCY_BOUNDS_US) <= set(BOUNDS_US)


def test_replies_keep_their_bound_and_their_sum():
    stats = WireStats()
    for latency_us in (LATENCY_BOUNDS_US[0], LATENCY_BOUNDS_US[0] + 1, LATENCY_BOUNDS_US[-1] + 1):
        stats.observe(2, latency_us)
    shown = store_latency(stats)
    assert shown["buckets"][BOUNDS_US.index(LATENCY_BOUNDS_US[0])] == 2
    assert shown["buckets"][BOUNDS_US.index(LATENCY_BOUNDS_US[1])] == 2
    assert shown["buckets"][-1] == 2  # beyond the wire's last bound nothing is known, so no bound is claimed
    assert sum(shown["buckets"]) == 6
    assert shown["sum_us"] == stats.latency_sum_us
