"""The page of results, made of what is kept: goals first, then each table with when and how it was measured.

What was not measured is not on it, or is named. Prose about what is left stands in left.md, and is taken in as it is.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import load, report
from benchmarks.curves.catalogue import CURVES, Curve
from benchmarks.goals import GOALS, Evidence, latencies_of, results_of
from benchmarks.kept import Sitting
from benchmarks.latency import UPSTREAM

LEFT = Path(__file__).with_name("left.md")

_HEAD = """# Results

Composed on {day} from what was measured last of each part; every part says when, and by which command.
[docs/benchmarks.md](../docs/benchmarks.md) says what is measured and how to repeat it.

- Machine: {machine}
- Versions: {versions}

## Goals

{goals}

A ratio compares runs of the same round; figures are medians of the rounds (min … max).
"""
_CPU_NOTE = """The ratio is to the nginx of the same round. Shipper and Redis are apart; the supervisor and the control
listener are in the first figure.
"""
_LATENCY_NOTE = """Open loop: a latency counts from the moment the request was due. What a form adds is taken within its
round; p99.9 stands on a handful of requests in a round: read it with its spread.
"""
_CURVES_HEAD = """## As things grow

CPU of the sidecar per request on one core: key, two leased limits, record journaled, answers of 1 KiB, unless said
otherwise; the median (min … max) of interleaved rounds.
"""
MEMORY_COLUMNS = ("a worker", "memory")
_MEMORY = (
    ("idle, resident", "idle_rss_kib", 1024, 1, " MiB"),
    ("idle, proportional", "idle_pss_kib", 1024, 1, " MiB"),
    ("an open idle connection more, resident", "connection_bytes", 1, 0, " bytes"),
    ("the same, proportional", "connection_pss_bytes", 1, 0, " bytes"),
)
MEMORY_FIGURES = tuple(name for _, name, *_ in _MEMORY)


def compose(evidence: Evidence) -> str:
    """The whole page, as Markdown."""
    parts = [_head(evidence), *_cpu(evidence), *_latency(evidence), *_curves(evidence), *_memory(evidence)]
    parts += _shipping(evidence)
    if LEFT.exists():
        parts.append(LEFT.read_text())
    return "\n".join(part.rstrip("\n") + "\n" for part in parts if part)


def goal_rows(evidence: Evidence) -> list[tuple[str, ...]]:
    """One row a goal."""
    return [goal.row(evidence) for goal in GOALS]


GOAL_COLUMNS = ("goal", "is", "measured", "reached")


def _head(evidence: Evidence) -> str:
    sittings = [
        one for kind in (evidence.cpu, evidence.latency, evidence.curves, evidence.memory) for one in kind.values()
    ]
    return _HEAD.format(
        day=dt.datetime.now(dt.UTC).date(),  # noqa: TID251 - the date of a report, not a clock
        machine="; ".join(dict.fromkeys(one.machine for one in sittings)),
        versions=", ".join(dict.fromkeys(said for one in sittings for said in one.data.get("versions", ()))),
        goals=report.markdown_table(GOAL_COLUMNS, goal_rows(evidence)),
    )


def _apart(found: dict[str, Sitting]) -> list[tuple[Sitting, set[str]]]:
    """Each sitting with the names that it is the newest of, the one with the most first."""
    sittings: dict[int, tuple[Sitting, set[str]]] = {}
    for name, one in found.items():
        sittings.setdefault(id(one), (one, set()))[1].add(name)
    return sorted(sittings.values(), key=lambda pair: -len(pair[1]))


def _measured(one: Sitting) -> str:
    return f"Measured on {one.when} UTC at {one.state} by `{one.command}`"


def _listed(title: str, lines: Iterable[str]) -> str:
    found = [f"- {line.splitlines()[0]}" for line in lines if line]
    return "\n".join([title, "", *found]) + "\n" if found else ""


def _cpu(evidence: Evidence) -> list[str]:
    parts = ["## CPU per request\n"] if evidence.cpu else []
    for sitting, names in _apart(evidence.cpu):
        results = results_of(sitting.data)
        shape = results.shape
        how = (
            f"{shape.rounds} interleaved rounds of {shape.seconds} s after {shape.warmup} s of warm-up, "
            f"{load.CONNECTIONS} keep-alive connections, answers of {shape.answer_bytes} bytes"
        )
        lacking = replace(results, left_out=_without(results.left_out, evidence.cpu))
        parts += [
            f"{_measured(sitting)}: {how}.\n",
            report.markdown_table(report.COLUMNS, report.rows(results, names)) + "\n",
            _listed("Left out:", report.left_out(lacking)),
        ]
    return [*parts, _CPU_NOTE] if parts else []


def _without(left_out: dict[str, str], measured: dict[str, Sitting]) -> dict[str, str]:
    """What was left out then and was not measured at another time either."""
    return {name: why for name, why in left_out.items() if name not in measured}


def _latency(evidence: Evidence) -> list[str]:
    parts = ["## Latency\n"] if evidence.latency else []
    for sitting, names in _apart(evidence.latency):
        timing = latencies_of(sitting.data)
        lacking = _without(timing.left_out, evidence.latency)
        parts += [
            f"{_measured(sitting)}, at {timing.rate} requests/s.\n",
            report.markdown_table(report.LATENCY_COLUMNS, report.latency_rows(timing, {UPSTREAM, *names})) + "\n",
            _listed("Left out:", (f"{timing.titles[n]}: {why}" for n, why in lacking.items())),
        ]
    return [*parts, _LATENCY_NOTE] if parts else []


def _curves(evidence: Evidence) -> list[str]:
    parts = [_CURVES_HEAD] if evidence.curves else []
    for curve in CURVES:
        if (measured := evidence.curve(curve.name)) is not None:
            parts += [
                f"### {curve.title}\n",
                f"{curve.note} {_measured(evidence.curves[curve.name])}.\n".lstrip(),
                _table_of(curve, report.curve_rows(curve, measured)),
                _listed("Left out:", report.curve_left_out(measured)),
            ]
    return parts


def _table_of(curve: Curve, rows: Sequence[tuple[str, ...]]) -> str:
    return report.markdown_table(report.curve_columns(curve), rows) + "\n" if rows else ""


def memory_rows(rounds: Sequence[dict[str, float]]) -> list[tuple[str, ...]]:
    """One row a figure of a worker's memory."""
    return [(title, report.spread([one[name] for one in rounds], *how)) for title, name, *how in _MEMORY]


def _memory(evidence: Evidence) -> list[str]:
    if (sitting := evidence.memory.get("memory")) is None:
        return []
    said = (
        f"{_measured(sitting)}: one worker, leases, {sitting.data['connections']:,} connections with one answer each.\n"
    )
    return ["## Memory\n", said, report.markdown_table(MEMORY_COLUMNS, memory_rows(sitting.data["rounds"])) + "\n"]


SHIPPING_COLUMNS = ("to", "records/s and core", "CPU a record", "records/s", "MB/s", "lag p50", "p99", "greatest")
_SHIPPING = (
    ("records_per_core_second", 1, 0, ""),
    ("cpu_ns_per_record", 1000, 2, " µs"),
    ("records_per_second", 1, 0, ""),
    ("bytes_per_second", 1_000_000, 0, ""),
)


def _shipping(evidence: Evidence) -> list[str]:
    """What `benchmarks.shipping` wrote down."""
    told = evidence.shipping
    targets = [name for name, one in told.items() if isinstance(one, dict) and "rounds" in one]
    if not targets:
        return []
    rows = []
    for name in targets:
        figures = [report.spread(evidence.shipped(name, figure), *how) for figure, *how in _SHIPPING]
        lags = [report.spread(evidence.lag_ms(name, figure), 1, 0, " ms") for figure in ("p50_us", "p99_us", "max_us")]
        rows.append((name, *figures, *lags))
    said = (
        f"Measured on {told['when']} UTC by `python -m benchmarks.shipping` ({told['form']}): {told['records']:,} "
        f"records a round; the lag at a steady feed for {told['seconds']} s. The broker's CPU is not in it.\n"
    )
    return ["## Shipping\n", said, report.markdown_table(SHIPPING_COLUMNS, rows) + "\n"]
