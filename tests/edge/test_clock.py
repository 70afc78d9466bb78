import time

from sidecar.edge.clock import SystemClock


def test_the_wall_clock_dates_records_in_microseconds():
    # Fails if milliseconds or nanoseconds are passed off as µs (Kong #14995).
    before = time.time_ns()
    now_us = SystemClock().now_us()
    assert before // 1000 <= now_us <= time.time_ns() // 1000


def test_durations_come_from_a_clock_that_never_steps():
    clock = SystemClock()
    times = [clock.mono_us() for _ in range(1000)]
    assert times == sorted(times)
    before = time.perf_counter_ns()
    assert before // 1000 <= clock.mono_us() <= time.perf_counter_ns() // 1000
