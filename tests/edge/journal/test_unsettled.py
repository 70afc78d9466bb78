"""Mirrors sidecar/edge/journal/unsettled.py. That they are sent, and once, is shown by tests/e2e/test_settles.py."""

from sidecar.core.decision import Decision
from sidecar.core.policy import Limit
from sidecar.edge.journal import Ended
from sidecar.edge.journal.unsettled import unsettled
from tests.gateway.scene import SLOTS, Scene
from tests.stage import quota

EGRESS = Limit("egress", "quota", 1_000_000, meter="egress_bytes", calendar="month", reserve=500)


def ended(scene, size, mode="exact"):
    if mode != "exact":
        scene.counters.try_local = lambda _id, checks: Decision(checks, 0, [9] * len(checks.costs), [0], 0, mode)
    scene.ask()
    scene.call.connect().respond(200, b"x" * size)
    opened, closed = scene.journal.of("open")[-1], scene.journal.of("records")[-1]
    return Ended(closed.id, opened.body, closed.body)


def test_a_settle_that_changes_something_is_sent_again():
    scene = Scene(quota(10), EGRESS)
    each = ended(scene, 7)
    [found] = unsettled([each], scene.context.policies.policy)
    assert (found.id, found.actual, found.closed_us) == (each.id, (1, 7), scene.clock.now_us())


# Fails if each record of a busy worker is sent again: most changed nothing.
def test_what_a_settle_would_not_change_is_not_sent():
    scene = Scene(quota(10), EGRESS)
    assert unsettled([ended(scene, 500)], scene.context.policies.policy) == []
    slots = Scene(quota(10), SLOTS)
    assert len(unsettled([ended(slots, 1)], slots.context.policies.policy)) == 1


# Fails if what was used less is sent: it was told in a sum with others, and would be given back twice.
def test_of_what_was_leased_only_more_is_sent_again():
    scene = Scene(EGRESS)
    assert unsettled([ended(scene, 7, "leased")], scene.context.policies.policy) == []
    [found] = unsettled([ended(scene, 507, "leased")], scene.context.policies.policy)
    assert (found.actual, found.checks.costs) == ((7,), (0,))


# Fails if it is charged here: whoever kept the debt has charged it, or will, perhaps in a sum with others.
def test_what_was_let_through_alone_is_settled_like_the_rest():
    scene = Scene(quota(10))
    assert unsettled([ended(scene, 7, "degraded")], scene.context.policies.policy) == []
    scene = Scene(EGRESS)
    [found] = unsettled([ended(scene, 7, "degraded")], scene.context.policies.policy)
    assert (found.mode, found.checks.costs, found.actual) == ("degraded", (500,), (7,))


def test_damage_is_told_and_costs_no_other(caplog):
    scene = Scene(EGRESS)
    whole = ended(scene, 7)
    found = unsettled([whole._replace(opened=b"{"), whole._replace(closed=b"[]"), whole], scene.context.policies.policy)
    assert [each.id for each in found] == [whole.id]
    assert caplog.text.count("cannot be settled again") == 2
