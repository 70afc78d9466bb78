"""What a settle leaves is what the next decision says, where nobody else asked in between."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.decision import settled
from sidecar.core.policy import Limit
from tests.core.decision.test_wallet_charges import PRICES, World, calls, credit, purchase, tokens

ALERTS = (50, 80)
monthly = Limit("monthly", "quota", 1_000, meter="tokens", calendar="month", over="allow", alerts=ALERTS)
minute = Limit("minute", "window", 1_000, meter="tokens", period_us=60_000_000, over="allow", alerts=ALERTS)
quiet = Limit("quiet", "quota", 1_000, meter="tokens", calendar="month")
balance = replace(credit, over="allow", alerts=ALERTS)
UNITS = st.integers(0, 40)


# Fails if a balance is charged by the units and not by the total, or one of two prices is left out.
@given(st.tuples(PRICES, PRICES), UNITS, UNITS, UNITS, UNITS, UNITS)
def test_what_is_left_is_what_the_next_decision_says(prices, before, held, of_calls, used, calls_used):
    world = World(purchase(200))
    priced = [replace(each, price=price) for each, price in zip((tokens, calls), prices, strict=True)]
    limits = (monthly, minute, *priced, balance)
    world.ask(*limits, costs=(before, before, before, of_calls, 0))
    id_ = world.mint()
    said = world.ask(*limits, costs=(held, held, held, of_calls, 0), id_=id_)
    actual = (used, used, used, calls_used, 0)
    found = settled(said, actual)
    world.settle(id_, said.checks, *actual)
    after = world.ask(*limits, costs=(0,) * 5)
    alerting = [index for index, _ in said.checks.alerting]
    assert alerting == [0, 1, 4]
    told = [(found or said).remaining[index] for index in alerting]
    assert told == [min(after.remaining[index], said.remaining[index]) for index in alerting]
    assert (found is None) == all(after.remaining[index] >= said.remaining[index] for index in alerting)


@pytest.mark.parametrize("actual", [(9, 9), (10, 500)], ids=["less than was held", "more without alerts"])
def test_what_can_bring_no_alert_tells_nothing_new(actual):
    assert settled(World().ask(monthly, quiet, costs=(10, 10)), actual) is None


def test_the_rest_of_the_decision_stays_as_it_was():
    said = World().ask(monthly, quiet, costs=(10, 10))
    said.mode, said.verdict = "leased", 64 << 1
    found = settled(said, (510, 510))
    assert (found.remaining, found.allowed, found.mode, found.shadowed) == ([490, 990], True, "leased", (1,))
    assert (found.checks, found.now_us, said.remaining[0]) == (said.checks, said.now_us, 990)
