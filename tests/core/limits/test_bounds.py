import pytest

from sidecar.core.limits import COUNT_MAX, Limit, bounds_fault, left_at
from sidecar.core.price import Price
from tests.core.limits.examples import EXAMPLES

DAY_US = 86_400_000_000


@pytest.mark.parametrize(
    "limit",
    [
        *EXAMPLES.values(),
        Limit("fast", "rate", 1_400_000, per=700_000, period_us=1_000_000),
        Limit("tpm", "rate", 100_000_000, per=100_000_000, period_us=60_000_000),
        Limit("odd", "rate", 10, per=3, period_us=1_000_000),
        Limit("day", "window", 10_000_000, period_us=DAY_US),
    ],
)
def test_what_people_write_is_within_bounds(limit):
    assert bounds_fault(limit) is None


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        (Limit("x", "quota", 0, calendar="day"), "amount 0 must be from 1"),
        (Limit("x", "quota", COUNT_MAX + 1, calendar="day"), "must be from 1 to"),
        (Limit("x", "rate", 1_000_003, per=999_983, period_us=30 * DAY_US), "too fine to count exactly"),
        (Limit("x", "rate", 5, per=0, period_us=1), "at least 1 unit"),
        (Limit("x", "window", 10**9, period_us=DAY_US), "use fixed"),
        (Limit("x", "window", 10, period_us=1_500), "whole milliseconds"),
        (Limit("x", "concurrency", 10, period_us=999_999), "a second or more"),
        (Limit("x", "balance", 0, period_us=600_000_000), "needs a unit"),
        (Limit("x", "balance", 5, unit="usd", period_us=600_000_000), "has no amount"),
        (Limit("x", "balance", 0, unit="usd"), "from a second to a day"),
        (Limit("x", "balance", 0, unit="usd", period_us=600_000_000, offline=-1), "offline -1"),
        (Limit("x", "priced", 0, calendar="month", unit="usd"), "needs a price"),
        (Limit("x", "priced", 0, calendar="day", price=Price("package", COUNT_MAX + 1)), "more than a balance holds"),
    ],
)
def test_what_a_double_cannot_hold_is_refused_on_load(limit, says):
    assert says in (bounds_fault(limit) or "")


def test_a_threshold_is_passed_where_at_most_the_rest_is_left():  # Fails if it rounds up: told a unit too early.
    assert left_at(1_000, 80) == 200
    assert left_at(3, 50) == 1
