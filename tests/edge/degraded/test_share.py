"""Shares of limits, the bound of all shares together, and what of a rate has leaked."""

from dataclasses import replace

import pytest

from sidecar.core.limits.pace import NOTICE_US, OutageTime
from sidecar.core.policy import Limit
from sidecar.edge.degraded.share import over_admission_bound, share_of

QUOTA = Limit("monthly", "quota", 100, calendar="month", scope="customer")
STRICT = replace(QUOTA, id="strict", on_store_failure="deny")
BURST = Limit("burst", "rate", 10, per=5, period_us=1_000_000)
SPENT = Limit("credit.requests", "priced", 0, calendar="month", scope="customer", unit="usd")
CREDIT = Limit("credit", "balance", 0, scope="customer", unit="usd", period_us=600_000_000)
LENDING = replace(CREDIT, offline=100)


@pytest.mark.parametrize(
    ("limit", "workers", "bound"),
    [
        (QUOTA, 1, 100),
        (QUOTA, 8, 96),
        (QUOTA, 1000, 1000),  # one each: the least that "allow" can mean
        (replace(QUOTA, amount=0), 4, 4),
        (BURST, 1, 10 + 5),
        (BURST, 3, 2 * 9 + 5),  # twice, and what the rate gives in the second in which workers differ
        (STRICT, 8, 0),
        (replace(QUOTA, over="allow"), 8, 0),
        (replace(QUOTA, stage="shadow"), 8, 0),
        (replace(QUOTA, stage="soft"), 8, 0),
        (SPENT, 8, 0),
        (CREDIT, 8, 0),
        (LENDING, 8, 96),
        (LENDING, 101, 0),
        (replace(LENDING, over="allow"), 8, 0),
    ],
)
def test_the_bound_is_the_workers_shares_together(limit, workers, bound):
    assert over_admission_bound(limit, workers) == bound


# Fails if a share, or what it has let through, leaks at the whole rate.
def test_a_rates_share_fills_more_slowly_by_the_number_of_workers():
    assert share_of(BURST, 3) == replace(BURST, amount=3, period_us=3_000_000)
    assert OutageTime(BURST, 3).span_us(5) == 3_000_000


# Fails if it counts as if the store's bucket had been empty at the outage's start, or if NOTICE_US is left out.
def test_what_has_not_leaked_is_what_the_example_says():
    time, now_us = OutageTime(Limit("r", "rate", 40, per=40, period_us=1_000_000), 1), 50_000_000
    leaks_us = 0
    for n in range(440):
        leaks_us = time.after(leaks_us, 1, 40_000_000, 40_000_000 + max(0, n - 40) * 25_000)
    assert time.unleaked(leaks_us, 440, now_us) == 80 + 80
    assert time.unleaked(leaks_us, 1, now_us) == 1
    assert time.unleaked(leaks_us, 440, now_us + 4_000_000) == 0
    assert time.unleaked(leaks_us, 440, now_us + 4_000_000 - NOTICE_US) == 40
