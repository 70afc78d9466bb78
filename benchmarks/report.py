"""How results are shown: a table on the terminal, JSON for programs, Markdown for RESULTS.md. Every figure comes with
its spread (min … max over the rounds), and what was left out is said in the same place.
"""

from __future__ import annotations

import platform
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.curves.catalogue import Curve
from benchmarks.curves.rounds import Measured
from benchmarks.latency import QUANTILES, UPSTREAM, Latencies
from benchmarks.measure import Results
from benchmarks.stage import LOAD_CORE, PROXY_CORE

COLUMNS = ("form", "CPU per request", "nginx = 1", "requests/s", "shipper", "Redis", "Redis calls", "Kafka")
NOTHING = "-"


def machine() -> str:
    """The processor, its cores, memory and kernel, and where the parts were pinned."""
    names = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory_kib = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    virtual = " (virtual)" if any("hypervisor" in line for line in _lines("/proc/cpuinfo")) else ""
    return (
        f"{len(names)} x {names[0] if names else platform.machine()}{virtual}, {memory_kib // 1024 // 1024} GiB, "
        f"{platform.system()} {platform.release()}; proxy on core {PROXY_CORE}, "
        f"load, upstream and Redis on core {LOAD_CORE}"
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def spread(values: Sequence[float], unit: float, digits: int, suffix: str = "") -> str:
    """The median and, where there were several rounds, min … max."""
    if not values:
        return NOTHING
    scaled = [v / unit for v in values]
    middle = f"{statistics.median(scaled):,.{digits}f}{suffix}"
    return f"{middle} ({min(scaled):,.{digits}f} … {max(scaled):,.{digits}f})" if len(scaled) > 1 else middle


def rows(results: Results, names: Iterable[str] | None = None) -> list[tuple[str, ...]]:
    """One row a form that was measured, in the columns of COLUMNS; of `names` alone where some are named."""
    found: list[tuple[str, ...]] = []
    for name, title in results.titles.items():
        if name not in results.samples or (names is not None and name not in names):
            continue
        calls = results.facts(name).get("redis_calls_per_1000_requests")
        found.append(
            (
                title,
                spread(results.cpu_ns(name), 1000, 1, " µs"),
                spread(results.ratios(name), 1, 2),
                f"{statistics.median(results.rates(name)):,.0f}",
                spread(results.cpu_ns(name, "shipper"), 1000, 1, " µs"),
                spread(results.cpu_ns(name, "redis"), 1000, 1, " µs"),
                NOTHING if calls is None else f"{calls / 1000:.3f}",
                spread(results.cpu_ns(name, "kafka"), 1000, 1, " µs"),
            )
        )
    return found


def left_out(results: Results) -> list[str]:
    return [f"{results.titles[name]}: {why}" for name, why in results.left_out.items()]


LATENCY_COLUMNS = ("form", "p50", "p99", "p99.9", "adds at p50", "adds at p99", "adds at p99.9")


def latency_rows(found: Latencies, names: Iterable[str] | None = None) -> list[tuple[str, ...]]:
    """One row a form: its quantiles, and what it adds to the upstream of the same round at each."""
    lines: list[tuple[str, ...]] = []
    for name, title in found.titles.items():
        if name in found.rounds_us and (names is None or name in names):
            compared = name != UPSTREAM and UPSTREAM in found.rounds_us
            own = [spread(found.at(name, q), 1, 0, " µs") for q in QUANTILES]
            added = [spread(found.added(name, q), 1, 0, " µs") if compared else NOTHING for q in QUANTILES]
            lines.append((title, *own, *added))
    return lines


# figure of a point: its column, what it is divided by, digits, unit
FIGURES = {
    "cpu_ns": ("CPU per request", 1000, 1, " µs"),
    "redis_ns": ("Redis", 1000, 1, " µs"),
    "calls": ("Redis calls a request", 1, 4, ""),
    "rss_kib": ("workers, resident", 1024, 1, " MiB"),
    "pss_kib": ("workers, proportional", 1024, 1, " MiB"),
    "start_ms": ("start", 1000, 1, " s"),
    "rate": ("requests/s", 1, 0, ""),
    "nginx_cpu_ns": ("nginx", 1000, 1, " µs"),
    "to_nginx": ("nginx = 1", 1, 2, ""),
}


def curve_columns(curve: Curve) -> tuple[str, ...]:
    """What grows, CPU, its ratio to the unit of the curve, and what else the curve shows."""
    return (curve.axis, FIGURES["cpu_ns"][0], f"{curve.unit:,} = 1", *(FIGURES[name][0] for name in curve.shown))


def curve_rows(curve: Curve, measured: Measured) -> list[tuple[str, ...]]:
    """One row a point that was measured."""
    lines = []
    for x in sorted(measured.figures):
        cpu, *others = [spread(measured.values(x, name), *FIGURES[name][1:]) for name in ("cpu_ns", *curve.shown)]
        lines.append((f"{x:,}", cpu, spread(measured.ratios(x), 1, 2), *others))
    return lines


def curve_left_out(measured: Measured) -> list[str]:
    return [f"{f'{int(x):,}' if x else 'all of it'}: {why}" for x, why in measured.left_out.items()]


def table(title: str, columns: Iterable[str], lines: Iterable[tuple[str, ...]]) -> Table:
    made = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left", min_width=0 if number else 24)
    for line in lines:
        made.add_row(*line)
    return made


def markdown_table(columns: Sequence[str], lines: Iterable[tuple[str, ...]]) -> str:
    head = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    return "\n".join(head + ["| " + " | ".join(line) + " |" for line in lines])


def as_json(results: Results) -> dict[str, Any]:
    """Raw samples and medians; CPU in ns per request."""
    return {
        "shape": vars(results.shape),
        "forms": {
            name: {
                "title": results.titles[name],
                "cpu_ns_per_request": {
                    part: results.cpu_ns(name, part) for part in next(iter(samples.values())).cpu_us
                },
                "median_cpu_ns_per_request": statistics.median(results.cpu_ns(name)),
                "ratio_to_nginx": results.ratios(name),
                "median_ratio_to_nginx": statistics.median(results.ratios(name)) if results.ratios(name) else None,
                "requests_per_second": results.rates(name),
                "facts": results.facts(name),
            }
            for name, samples in results.samples.items()
        },
        "left_out": results.left_out,
    }
