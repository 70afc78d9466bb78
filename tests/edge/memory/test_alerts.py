import pytest

from sidecar.edge.memory import alerts as memory_alerts
from sidecar.edge.memory.alerts import MemoryAlerts
from sidecar.testing import HandClock
from tests.edge.alerts_suite import MINUTE, AlertsSuite, decision, look, pass_a_minute, tell


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def alerts(clock):
    return MemoryAlerts(clock)


class TestMemoryAlerts(AlertsSuite):
    pass


def test_a_counter_that_is_far_from_its_first_threshold_is_not_remembered(clock, alerts):
    # Memory is for those that have passed one. Mutation: a watch is made for each counter that is looked at.
    look(alerts, decision(clock, 4_999))
    assert alerts._watches == {}


def test_a_flood_of_counters_costs_no_memory(clock, alerts, monkeypatch):
    # Mutation: without the cap.
    monkeypatch.setattr(memory_alerts, "CAP", 10)
    for _ in range(30):
        tell(alerts, decision(clock, 9, MINUTE))
        pass_a_minute(clock, alerts)
    assert len(alerts._watches) == 10


def test_what_was_written_waits_for_nothing(clock, alerts):
    tell(alerts, decision(clock, 10_000))
    pass_a_minute(clock, alerts)
    assert not alerts._pending
