import time

from sidecar.edge.clock import SystemClock


def test_now_is_the_wall_clock_in_microseconds():
    before = time.time_ns() // 1000
    now_us = SystemClock().now_us()
    assert before <= now_us <= time.time_ns() // 1000


# I11. Fails if durations are taken from the wall clock, which may step back.
def test_durations_never_run_backwards():
    clock = SystemClock()
    seen = [clock.mono_us() for _ in range(10_000)]
    assert seen == sorted(seen)
    assert abs(clock.mono_us() - time.perf_counter_ns() // 1000) < 1_000_000


def test_both_are_integers():
    assert (type(SystemClock().now_us()), type(SystemClock().mono_us())) == (int, int)
