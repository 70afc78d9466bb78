from sidecar.control.probe import Figures
from sidecar.control.stats import BOUNDS_US


def test_answers_are_counted_by_route_and_class_and_their_time_by_bucket():
    # Fails if the class is the whole status, or a value goes to the bucket below its bound.
    figures = Figures()
    figures.answered("chat", 200, BOUNDS_US[0])
    figures.answered("chat", 204, BOUNDS_US[0] + 1)
    figures.answered("chat", 429, BOUNDS_US[-1] + 1)
    assert figures.requests == {("chat", 2): 2, ("chat", 4): 1}
    assert [n for n in figures.added_us["buckets"] if n] == [1, 1, 1]
    assert figures.added_us["buckets"][0] == figures.added_us["buckets"][1] == figures.added_us["buckets"][-1] == 1
    assert figures.added_us["sum_us"] == 2 * BOUNDS_US[0] + 2 + BOUNDS_US[-1]


def test_denials_tell_shadow_from_enforced():
    figures = Figures()
    figures.denied("monthly", shadow=False)
    figures.denied("monthly", shadow=True)
    figures.denied("monthly", shadow=True)
    assert figures.denials == {("monthly", False): 1, ("monthly", True): 2}


def test_events_are_counted_by_name():
    figures = Figures()
    figures.count("keys_stale")
    figures.count("keys_stale")
    assert figures.counts == {"keys_stale": 2}
