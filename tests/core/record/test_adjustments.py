"""A void moves the counters and the wallet back to where they were, in the windows of the record."""

from dataclasses import replace
from datetime import datetime

import orjson
import pytest

from sidecar.core.price.wallet import balance
from sidecar.core.record.adjustments import adjustment_of
from sidecar.core.record.changes import History, correction_of, void_of
from tests.core.record.test_settlement import LIMITS, TOKYO, counted, ended, scene
from tests.stage import ANN, policy, quota


def served(who=ANN, ending="ok"):
    made = scene(*(replace(limit, zone="customer", anchored=limit.kind == "quota") for limit in LIMITS))
    made.keys.register("ann", who)
    before = counted(made.counters)
    made.ask()
    ended(made, ending)
    return made, before, orjson.loads(made.journal.of("records")[-1].body)


def period_us(change):
    return int(datetime.fromisoformat(change.period_time).timestamp() * 1_000_000)


def apply(made, change, who=ANN, under=None):
    adjustment = adjustment_of(under or made.context.policies.policy, who, change, period_us(change))
    if adjustment is not None:
        made.counters.settle(change.id, adjustment.checks, adjustment.actual)
    return adjustment


def void(record):
    return void_of(History(record), "test", "ann")


def counts_and_balances(state):
    """Counts by key, without those that are 0; and what is left in wallets. Rates and slots are not given back."""
    counts = {key: value for key, value in state.items() if isinstance(value, int) and value and ":rate" not in key}
    return {key: value for key, value in counts.items() if "r=" not in key}, wallets(state)


def wallets(state):
    return [balance(value) for key, value in sorted(state.items()) if hasattr(value, "grants")]


@pytest.mark.parametrize("ending", ["ok", "5xx", "gone"])
@pytest.mark.parametrize("who", [ANN, TOKYO], ids=["utc", "tokyo"])
def test_a_void_gives_back_every_counted_unit_and_the_charge(who, ending):
    # Fails if units of priced limits are left out, if the balance is not among the checks (nothing is paid back), or if
    # what is not billable is given back to wallets that never paid it.
    made, before, record = served(who, ending)
    assert counts_and_balances(counted(made.counters)) != counts_and_balances(before)
    assert apply(made, void(record), who).skipped == ()
    assert counts_and_balances(counted(made.counters)) == counts_and_balances(before)


def test_what_was_not_billed_is_not_given_back_to_a_wallet_that_never_paid_for_it():
    # Fails if every record is taken for a billable one.
    made, _, record = served()
    record["data"] |= {"billable": False, "billable_reason": "internal"}
    assert set(apply(made, void(record)).units) == {"monthly", "egress", "small", "sliding"}


def test_a_correction_moves_by_its_units_alone():
    made, _, record = served()
    change = correction_of(History(record), {"egress_bytes": -1000}, "a", "twice", "ann")
    assert apply(made, change).units == {"egress": -1000, "small": -1000, "sliding": -1000, "credit.bytes": -1000}
    assert made.counters.state  # 1234 bytes were used
    assert {value for key, value in counted(made.counters).items() if "q=small" in key} == {234}


def test_a_void_is_applied_once():
    made, before, record = served()
    for _ in range(2):
        apply(made, void(record))
    assert counts_and_balances(counted(made.counters)) == counts_and_balances(before)


def test_a_limit_that_counted_it_in_another_window_is_left_alone():
    # Fails if the window of the record is not compared: with an unknown zone another month would be moved.
    made, _, record = served(TOKYO)
    adjustment = apply(made, void(record), ANN)
    assert set(adjustment.skipped) == {"monthly", "egress", "small"}
    assert "sliding" in adjustment.units


def test_what_no_limit_counted_moves_nothing():
    made, _, record = served()
    assert apply(made, void(record), under=policy(replace(quota(10), id="new"))) is None
    del record["data"]["decision"]  # it was open at a crash, or had no limits
    assert apply(made, void(record)) is None
