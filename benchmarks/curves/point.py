"""One point of a curve: a site, its traffic, and what a request cost there, as plain figures by name.

`cpu_ns` and `redis_ns` are CPU of the sidecar and of Redis per answered request, `rate` requests a second, `rss_kib`
and `pss_kib` memory of the workers after the load, `start_ms` the time from the command to the first 200.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import load
from benchmarks.curves.site import Running, Site
from benchmarks.openloop import __file__ as OPEN_LOOP  # noqa: N812 - a program of its own
from benchmarks.peers import PEERS, requests_seen, start_upstream
from benchmarks.stage import API_KEY, LOAD_CORE, RunFailed, Stage, cpu_by_part

NGINX = next(peer for peer in PEERS if peer.name == "nginx")
Figures = dict[str, float]
IDLE = Path(__file__).with_name("idle.py")

# `seed` runs through 1 … 2^31 - 2, in an order that is the same in each run (Park and Miller, minimal standard).
_DRAW = """
local seed = 4711
local function draw(n)
  seed = (seed * 16807) % 2147483647
  return 1 + math.floor(seed / 2147483647 * n)
end
local function ask(number)
  wrk.headers['X-Api-Key'] = string.format('bench-%07d', number)
  return wrk.format()
end
"""


def over_keys(used: int, registered: int) -> str:
    """Each request with one of `used` keys, drawn evenly; they are spread over all that are registered."""
    return _DRAW + f"request = function() return ask(1 + (draw({used}) - 1) * {registered // used}) end\n"


def hot_and_tail(tail: int) -> str:
    """Every other request is customer 1's; the rest are drawn evenly from `tail` others."""
    if not tail:
        return _DRAW + "request = function() return ask(1) end\n"
    return _DRAW + (
        "local n = 0\n"
        f"request = function() n = n + 1; if n % 2 == 0 then return ask(1) end return ask(1 + draw({tail})) end\n"
    )


@dataclass(frozen=True)
class Timing:
    """Seconds of a run, and of the warm-up before it that is not counted."""

    seconds: int = 2
    warmup: int = 1


@dataclass(frozen=True)
class Traffic:
    """`lua` for wrk ("": always the same request), on `busy` connections, while `idle` others are held open."""

    lua: str = ""
    busy: int = load.CONNECTIONS
    idle: int = 0


def served(site: Site, traffic: Traffic, timing: Timing, upstream_of: Callable[[Stage], int] | None = None) -> Figures:
    """A closed loop over `site`. RunFailed: no number that could be trusted."""
    with Stage() as stage:
        upstream = upstream_of(stage) if upstream_of else start_upstream(stage, 1024, LOAD_CORE)
        running = site.start(stage, upstream)
        if traffic.idle:
            hold(stage, running.port, traffic.idle)
        running.settle()
        figures, answered = _measured(stage, running, traffic, timing)
        if (seen := requests_seen(upstream)) < answered:
            raise RunFailed(f"{answered} requests were answered; the upstream saw {seen}")
        if site.journal:
            running.killed()
        else:
            running.drained(answered + traffic.idle, 2 * traffic.busy)
    return figures


def _measured(stage: Stage, running: Running, traffic: Traffic, timing: Timing) -> tuple[Figures, int]:
    def loaded(seconds: int) -> load.Served:
        return load.wrk(stage, running.port, seconds, lua=traffic.lua, connections=traffic.busy)

    warm = loaded(timing.warmup) if timing.warmup else load.Served(0, 0)
    parts, calls = running.parts(), running.calls()
    before = cpu_by_part(parts)
    done = loaded(timing.seconds)
    used = {part: us - before[part] for part, us in cpu_by_part(parts).items()}
    if running.parts() != parts:
        raise RunFailed("a process came or went during the run, so its CPU is not known")
    figures: Figures = {
        "cpu_ns": used["proxy"] * 1000 // done.requests,
        "redis_ns": used["redis"] * 1000 // done.requests,
        "calls": (running.calls() - calls) / done.requests,
        "rate": done.requests * 1_000_000 // done.duration_us,
        "start_ms": running.start_ms,
        **running.memory_kib(),
    }
    return figures, warm.requests + done.requests


def bare_ns(timing: Timing, upstream_of: Callable[[Stage], int]) -> int:
    """CPU per request of nginx, which passes the same answers on as it is told by the forms."""
    with Stage() as stage:
        started = NGINX.start(stage, upstream_of(stage))
        if timing.warmup:
            load.wrk(stage, started.port, timing.warmup)
        parts = started.parts()
        before = cpu_by_part(parts)
        done = load.wrk(stage, started.port, timing.seconds)
        return (cpu_by_part(parts)["proxy"] - before["proxy"]) * 1000 // done.requests


def hold(stage: Stage, port: int, count: int) -> None:
    """Have `count` idle connections held open until the stage is left."""
    if (most := resource.getrlimit(resource.RLIMIT_NOFILE)[0]) < count + 1000:
        raise RunFailed(f"{count} connections need as many descriptors; ulimit -n is {most}")
    stage.start("idle", [sys.executable, str(IDLE), str(port), str(count), API_KEY], LOAD_CORE)
    stage.until(f"{count} connections", lambda: f"ready {count}" in stage.log("idle"), 120)


RAMP_SECONDS = 2  # until demand has been weighed, and what is leased follows it


def at_rate(site: Site, rate: int, timing: Timing) -> Figures:
    """An open loop at `rate` requests a second, all of one customer; every one of them is answered with a 200.

    Figures are of `timing.seconds` in the midst of it, in which as many requests were due as the rate says.
    """
    with Stage() as stage:
        running = site.start(stage, start_upstream(stage, 1024, LOAD_CORE))
        running.settle()
        parts = running.parts()
        seconds = timing.seconds + RAMP_SECONDS
        words = [str(word) for word in (running.port, rate, seconds, load.CONNECTIONS)]
        stage.start("load", [sys.executable, OPEN_LOOP, *words, API_KEY], LOAD_CORE)
        time.sleep(RAMP_SECONDS)
        begun_ns, calls, before = time.perf_counter_ns(), running.calls(), cpu_by_part(parts)
        time.sleep(timing.seconds)
        asked = rate * (time.perf_counter_ns() - begun_ns) / 1e9
        used = {part: us - before[part] for part, us in cpu_by_part(parts).items()}
        figures: Figures = {
            "calls": (running.calls() - calls) / asked,
            "cpu_ns": used["proxy"] * 1000 / asked,
            "redis_ns": used["redis"] * 1000 / asked,
            "rate": rate,
        }
        stage.ended("load")
        running.drained(rate * (1 + seconds), 0)  # it warms up for a second
    return figures
