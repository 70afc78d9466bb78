"""Which curves there are: what grows, through which points, and what else than it stays as it is.

A curve makes its points when it is begun, because some of them share what takes long to prepare. Every point of one is
set up anew for each round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import load
from benchmarks.curves.backlog import Backlog, sample
from benchmarks.curves.point import Figures, Timing, Traffic, at_rate, bare_ns, hot_and_tail, over_keys, served
from benchmarks.curves.site import Site
from benchmarks.peers import start_upstream
from benchmarks.stage import LOAD_CORE

Point = Callable[[Timing], Figures]


@dataclass(frozen=True)
class Curve:
    """`axis` names what grows. `points(folder)`: by x; `folder` is the curve's own until it ends. `unit` is the x that
    the others are compared with. `shown` figures are in the table beside CPU."""

    name: str
    title: str
    axis: str
    unit: int
    points: Callable[[Path], dict[int, Point]]
    shown: tuple[str, ...] = ()
    note: str = ""


def _each(values: tuple[int, ...], make: Callable[[int], tuple[Site, Traffic]]) -> Callable[[Path], dict[int, Point]]:
    return lambda _folder: {value: partial(served, *make(value)) for value in values}


def _connections(count: int) -> tuple[Site, Traffic]:
    busy = min(count, load.CONNECTIONS)
    return Site(), Traffic(busy=busy, idle=count - busy)


_USED = 10  # keys that are in use where only what is registered grows: each has demand enough to lease


def _limits(count: int) -> tuple[Site, Traffic]:
    return Site(limits=count), Traffic()


def _keys(count: int) -> tuple[Site, Traffic]:
    return Site(keys=count), Traffic(over_keys(_USED, count))


def _keys_used(count: int) -> tuple[Site, Traffic]:
    return Site(keys=count, leases=False), Traffic(over_keys(count, count))


def _plans(count: int) -> tuple[Site, Traffic]:
    return Site(plans=count, keys=_USED), Traffic(over_keys(_USED, _USED))


def _tail(count: int) -> tuple[Site, Traffic]:
    return Site(keys=count + 1), Traffic(hot_and_tail(count))


def _size(size: int, timing: Timing) -> Figures:
    """The sidecar, and nginx in the same minute: bytes cost everybody something."""
    upstream = partial(start_upstream, answer_bytes=size, core=LOAD_CORE)
    figures = served(Site(), Traffic(), timing, upstream)
    nginx_ns = bare_ns(timing, upstream)
    return figures | {"nginx_cpu_ns": nginx_ns, "to_nginx": figures["cpu_ns"] / nginx_ns}


def _sizes(_folder: Path) -> dict[int, Point]:
    return {size: partial(_size, size) for size in (0, 1 << 10, 16 << 10, 128 << 10, 1 << 20)}


def _backlogs(folder: Path) -> dict[int, Point]:
    counts = (0, 100_000, 1_000_000, 10_000_000)
    left = Backlog(folder, counts[-1], sample())
    left.make()
    sites = {count: Site(journal=left.files(count), cap_gib=left.cap_gib) for count in counts}
    return {count: partial(served, site, Traffic()) for count, site in sites.items()}


def _calls(_folder: Path) -> dict[int, Point]:
    return {rate: partial(at_rate, Site(workers=8), rate) for rate in (500, 1000, 2000, 4000)}


CURVES = (
    Curve(
        "workers",
        "Workers of a node",
        "workers",
        1,
        _each((1, 2, 4), lambda count: (Site(workers=count), Traffic(busy=count * load.CONNECTIONS))),
        shown=("pss_kib",),
        note=(
            f"{load.CONNECTIONS} busy connections for each of them. All workers share the one core of the proxy, so "
            "this shows what a worker more costs, not what it brings."
        ),
    ),
    Curve(
        "connections",
        "Open connections",
        "connections",
        64,
        _each((1, 8, 64, 1_000, 10_000), _connections),
        shown=("pss_kib",),
        note=f"At most {load.CONNECTIONS} of them are busy at a time; the others have had one answer and are kept.",
    ),
    Curve(
        "keys",
        f"Registered keys, {_USED} in use",
        "keys registered",
        10,
        _each((10, 1_000, 100_000, 1_000_000), _keys),
        shown=("pss_kib",),
        note="Keys in Redis, each a customer of its own; those in use are spread over all of them.",
    ),
    Curve(
        "keys-in-use",
        "Registered keys, all in use",
        "keys in use",
        10,
        _each((10, 1_000, 100_000, 1_000_000), _keys_used),
        shown=("pss_kib", "redis_ns"),
        note=(
            "Each request with a key drawn evenly from all, exact limits, beginning with none remembered. A worker "
            "remembers 100,000 keys (`keys.cache_size`) for 30 s; what it does not know it asks Redis for."
        ),
    ),
    Curve("limits", "Limits on a request", "limits", 1, _each((1, 2, 4, 8), _limits), shown=("calls", "redis_ns")),
    Curve(
        "policies",
        "Plans in the policy",
        "plans",
        10,
        _each((10, 100, 1_000, 5_000), _plans),
        shown=("start_ms", "pss_kib"),
        note=f"Two limits in each plan; {_USED} keys in use, each on another plan.",
    ),
    Curve(
        "customers",
        "One hot customer and a long tail",
        "customers in the tail",
        0,
        _each((0, 10, 1_000, 100_000), _tail),
        shown=("calls", "redis_ns", "pss_kib"),
        note=(
            "Every other request is the hot customer's, the rest are drawn evenly from the tail. Callers with too "
            "little traffic for a lease cost one Redis call per request, as with `exact` limits."
        ),
    ),
    Curve(
        "sizes",
        "Bytes of an answer",
        "bytes",
        0,
        _sizes,
        shown=("nginx_cpu_ns", "to_nginx"),
        note=(
            "Bytes cost everybody something, so nginx passes the same answers on, in the same round; with its "
            "defaults, so it lays aside in a file what its buffers do not hold."
        ),
    ),
    Curve(
        "backlog",
        "Records in the journal, not shipped yet",
        "records",
        0,
        _backlogs,
        shown=("start_ms", "pss_kib"),
        note="The shipper is stopped; the worker before had ended cleanly.",
    ),
    Curve(
        "calls",
        "Redis calls per request: eight workers, one customer",
        "requests/s",
        500,
        _calls,
        shown=("calls",),
        note="An open loop at a constant rate.",
    ),
)
BY_NAME = {curve.name: curve for curve in CURVES}
