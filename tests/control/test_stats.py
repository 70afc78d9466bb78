from sidecar.control.probe import Figures
from sidecar.control.stats import BOUNDS_US, ChildView, NodeView, PolicyView, Totals


def node(*children, draining=False):
    return NodeView("t", 1, draining, list(children), PolicyView(), Totals())


def observed(*values_us):
    figures = Figures()
    for value_us in values_us:
        figures.answered("chat", 200, value_us)
    return figures.added_us


def test_a_value_falls_into_the_first_bucket_whose_bound_is_not_below_it():
    # Fails if bisect_right is used: Prometheus buckets hold `value <= bound`.
    histogram = observed(0, BOUNDS_US[0], BOUNDS_US[0] + 1, BOUNDS_US[-1] + 1)
    assert histogram["buckets"][:2] == [2, 1]
    assert histogram["buckets"][-1] == 1
    assert histogram["sum_us"] == 2 * BOUNDS_US[0] + 1 + BOUNDS_US[-1] + 1


def test_totals_add_what_the_dead_and_the_living_told_and_stay_as_they_were():
    left = Totals()
    left.add({"requests": {"r|2xx": 2}, "counts": {"records": 5}})
    histogram = observed(30)
    sums = left.plus([{"requests": {"r|2xx": 1, "r|4xx": 1}, "denials": {"burst|enforce": 1}, "added_us": histogram}])
    assert sums.requests == {"r|2xx": 3, "r|4xx": 1}
    assert sums.denials == {"burst|enforce": 1}
    assert sums.counts == {"records": 5}
    assert sums.added_us["buckets"][1] == 1
    assert left.requests == {"r|2xx": 2}
    assert sum(left.added_us["buckets"]) == 0


def test_a_node_is_not_ready_for_every_reason_that_a_child_has():
    good = ChildView("worker-0", 1, ready=True, reasons=[], away={}, restarts=0)
    bad = ChildView("worker-1", 2, ready=False, reasons=["starting", "no redis"], away={}, restarts=0)
    assert node(good).reasons() == []
    assert node(good, bad).reasons() == ["worker-1: starting", "worker-1: no redis"]
    assert node(good, draining=True).reasons() == ["draining"]


def test_a_shipper_that_cannot_ship_is_told_and_does_not_take_the_node_out():
    # Fails if `serves` is not looked at in `reasons`.
    good = ChildView("worker-0", 1, ready=True, reasons=[], away={}, restarts=0)
    away = {"kafka": "refused"}
    stuck = ChildView("shipper", 2, ready=False, reasons=["a", "b"], away=away, restarts=0, serves=False)
    assert node(good, stuck).reasons() == []
    assert node(good, stuck).degraded() == {"shipper": "a; b", "shipper kafka": "refused"}


# Fails if a cause that keeps the shipper from its start is told under two names.
def test_the_same_cause_is_one_entry():
    why = "no connection to kafka.bootstrap_servers (h:1): connection refused"
    reasons = [f"kafka has not answered yet: {why}"]
    shipper = ChildView("shipper", 1, ready=False, reasons=reasons, away={"kafka": why}, restarts=0, serves=False)
    assert node(shipper).degraded() == {"shipper": reasons[0]}
