"""Which open exchanges are extended, on the doubles."""

from sidecar.core.policy import Limit
from sidecar.gateway import exchanges_due
from tests.gateway.scene import SLOTS, Scene
from tests.stage import quota

THIRD_US = SLOTS.period_us // 3


def due(scene, *exchanges, after_us=THIRD_US, passed_us=500_000):
    scene.clock.turn(after_us)
    return exchanges_due(exchanges, scene.clock.mono_us(), passed_us)


# Fails if exchanges without a decision, denied ones, ended ones or leased ones are extended.
def test_an_exchange_is_extended_while_it_is_open_and_no_longer():
    scene = Scene(quota(10), SLOTS)
    first = scene.ask()
    denied = scene.ask()
    assert due(scene, first, denied, after_us=1_000_000) == []
    assert due(scene, first, denied, after_us=THIRD_US - 1_000_000) == [(first.id, first.checks)]
    scene.counters.holding = True
    undecided = scene.ask(key="bob")
    assert due(scene, undecided) == []
    first.on_client_gone()
    assert due(scene, first) == []


def test_what_is_leased_is_settled_under_other_ids_and_not_extended():
    scene = Scene(Limit("q", "quota", 10, calendar="month"))
    exchange = scene.ask()
    exchange.checks.is_leased = True
    assert due(scene, exchange, after_us=60_000_000) == []


# Fails if the wheel's sweep does not reach the counters: repro 22, on paper.
def test_a_slot_is_taken_for_as_long_as_its_exchange():
    scene = Scene(SLOTS)
    exchange = scene.ask()
    for _ in range(200):
        scene.clock.turn(1_000_000)
        scene.counters.extend(exchanges_due([exchange], scene.clock.mono_us(), 1_000_000))
    scene.ask()
    assert scene.client.status == 429
