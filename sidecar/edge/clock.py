"""The system's clocks. The wall clock may step, so it dates records; durations and deadlines use the other one."""

from __future__ import annotations

from time import perf_counter_ns, time_ns


class SystemClock:
    """`ports.Clock`: µs since the Unix epoch, and µs that never step."""

    __slots__ = ()

    def now_us(self) -> int:
        return time_ns() // 1000

    def mono_us(self) -> int:
        return perf_counter_ns() // 1000
