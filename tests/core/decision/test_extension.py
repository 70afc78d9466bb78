"""When an open exchange is extended. What an extension does, tests/edge/counters_suite.py asks of every backend."""

import pytest

from sidecar.core.decision.extension import is_due
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit

SECOND_US = 1_000_000
WHO = Identity("k", "s", "c", "free")
QUOTA = Limit("q", "quota", 5, calendar="month")
SLOTS = Limit("s", "concurrency", 5, period_us=30 * SECOND_US)
CREDIT = Limit("b", "balance", 0, scope="customer", unit="usd", period_us=12 * SECOND_US)


def times(checks, tick_us, until_us):
    """The ages at which an exchange is extended that is asked about every `tick_us`."""
    return [age_us for age_us in range(tick_us, until_us, tick_us) if is_due(checks, age_us, tick_us)]


@pytest.mark.parametrize(
    ("limits", "costs", "step_s"),
    [
        ((QUOTA,), (1,), 60),  # a third of a mark's life
        ((QUOTA, SLOTS), (1, 1), 10),
        ((QUOTA, SLOTS), (1, 0), 60),  # takes no slot
        ((QUOTA, SLOTS, CREDIT), (1, 1, 0), 4),
    ],
)
def test_each_third_of_the_shortest_expiry_is_an_extension(limits, costs, step_s):
    checks = checks_for(limits, costs, WHO, 1_790_000_000 * SECOND_US)
    assert times(checks, SECOND_US // 2, 200 * SECOND_US) == [at_s * SECOND_US for at_s in range(step_s, 200, step_s)]


# Fails if the age is compared with a fixed tick: a loop that stood still would skip an extension.
def test_a_late_sweep_extends_what_has_become_due_meanwhile():
    checks = checks_for((SLOTS,), (1,), WHO, 1_790_000_000 * SECOND_US)
    assert is_due(checks, 14 * SECOND_US, 5 * SECOND_US)
    assert not is_due(checks, 19 * SECOND_US, 5 * SECOND_US)
    assert is_due(checks, 95 * SECOND_US, 76 * SECOND_US)
