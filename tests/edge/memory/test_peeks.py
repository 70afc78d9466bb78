from sidecar.core.limits import checks_for
from sidecar.edge.memory.counters import MemoryCounters
from sidecar.edge.memory.peeks import MemoryPeeks
from tests.edge.counters_suite import DAY_US, START_US, WHO, SetClock, five


def test_what_is_left_is_answered_at_once_in_the_window_of_now():
    # Fails if a question reserves, or is answered in a window that has passed.
    clock = SetClock()
    counters = MemoryCounters(clock)
    counters.reserve(b"01" + b"A" * 24, checks_for((five,), (2,), WHO, START_US), lambda _decision: None)
    answers = []
    for asked_us in (START_US, START_US - 40 * DAY_US):
        MemoryPeeks(counters, clock).peek(checks_for((five,), (0,), WHO, asked_us), answers.append)
    assert [answer.remaining for answer in answers] == [(3,), (3,)]
