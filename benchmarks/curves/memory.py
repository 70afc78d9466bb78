"""What a worker holds: idle, and for each connection that is open and rests."""

from __future__ import annotations

from benchmarks.curves.point import Figures, hold
from benchmarks.curves.site import Site
from benchmarks.peers import start_upstream
from benchmarks.stage import LOAD_CORE, Stage

CONNECTIONS = 10_000


def memory() -> Figures:
    """`idle_…`: KiB of a worker with leases that has answered its first 200s and rests. `connection_…`: bytes that each
    of CONNECTIONS adds once it has had its answer; the kernel's buffers are not in it."""
    with Stage() as stage:
        running = Site().start(stage, start_upstream(stage, 1024, LOAD_CORE))
        running.settle()
        idle = running.memory_kib()
        hold(stage, running.port, CONNECTIONS)
        running.settle()
        held = running.memory_kib()
    added = {name: (held[name] - idle[name]) * 1024 // CONNECTIONS for name in idle}
    return {
        "idle_rss_kib": idle["rss_kib"],
        "idle_pss_kib": idle["pss_kib"],
        "connection_bytes": added["rss_kib"],
        "connection_pss_bytes": added["pss_kib"],
    }
