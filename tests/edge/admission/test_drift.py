"""Mirrors sidecar/edge/admission/drift.py."""

from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.edge.admission import drift
from sidecar.edge.admission.drift import Drift
from sidecar.testing import HandClock

QUOTA = Limit("quota", "quota", 1000, calendar="month")
RATE = Limit("rate", "rate", 10, per=5, period_us=1_000_000)
SLOTS = Limit("slots", "concurrency", 4, period_us=60_000_000)
ID = b"01JD3QWERT0000000000000001"


def checks(*limits, costs):
    return checks_for(limits, costs, Identity("k", "s", "cust-7", "p"), 1_790_000_000_000_000)


# Fails if the direction counts: an exchange may be missing from a counter, or be in it twice.
def test_what_was_given_up_is_counted_by_limit_and_named_with_its_customer(caplog):
    found = Drift(HandClock())
    asked = checks(QUOTA, RATE, SLOTS, costs=(100, 5, 1))
    found.count(ID, asked, (120, 5, 0))
    found.count(ID, asked, (80, 1, 0))
    assert (found.exchanges, found.units) == (2, {"quota": 40, "rate": 9})
    assert "cust-7" in caplog.text
    assert ID.decode() == caplog.records[0].request


def test_a_flood_is_counted_whole_and_logged_in_part(caplog):
    clock = HandClock()
    found = Drift(clock)
    for _ in range(2):
        for _ in range(100):
            found.count(ID, checks(QUOTA, costs=(1,)), (3,))
        clock.turn(1_000_000)
    assert (found.exchanges, found.units["quota"], len(caplog.records)) == (200, 400, 2 * drift.LINES_A_SECOND)


def test_limits_beyond_the_bound_are_counted_together(monkeypatch):
    monkeypatch.setattr(drift, "LIMITS", 1)
    found = Drift(HandClock())
    found.count(ID, checks(QUOTA, RATE, costs=(1, 1)), (2, 3))
    found.count(ID, checks(QUOTA, RATE, costs=(1, 1)), (2, 3))
    assert found.units == {"quota": 2, drift.OTHERS: 4}
