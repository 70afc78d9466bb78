"""The figures of the page, drawn by matplotlib from the harness's own environment, which is no part of the project.

`drawing` is the program that draws; here is what. It is what the tables say: medians, with min … max.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import sidecars, toolbox
from benchmarks.curves.catalogue import CURVES
from benchmarks.goals import Evidence, results_of
from benchmarks.peers import Peer
from benchmarks.report import FIGURES

FOLDER = Path(__file__).with_name("plots")
PROGRAM = Path(__file__).with_name("drawing.py")
LABELS = {"to_nginx": "CPU per request, nginx = 1"}  # where a column's title would not do without its table
Drawing = dict[str, Any]


def draw(evidence: Evidence, forms: Iterable[Peer], folder: Path = FOLDER, kind: str = "svg") -> list[str]:
    """Write cpu and curves into `folder`; what could not be drawn, and why."""
    wanted = {"cpu": _bars(evidence, forms), "curves": _panels(evidence)}
    told = json.dumps({name: drawing for name, drawing in wanted.items() if drawing})
    try:
        argv = [str(toolbox.matplotlib()), str(PROGRAM), str(folder), kind]
        subprocess.run(argv, input=told, text=True, check=True, timeout=120, capture_output=True)
    except subprocess.CalledProcessError as error:
        return [f"no plots: {(error.stderr.strip() or str(error)).splitlines()[-1]}"]
    except (OSError, subprocess.SubprocessError) as error:
        return [f"no plots: {error}"]
    return [f"no plot of {name}: nothing of it was measured" for name, drawing in wanted.items() if not drawing]


def _middle(values: list[float]) -> list[float]:
    """Median, least, greatest."""
    return [statistics.median(values), min(values), max(values)]


def _bars(evidence: Evidence, forms: Iterable[Peer]) -> list[Drawing]:
    """A bar a form that had nginx's own traffic: its ratio to nginx, and its µs."""
    ours = {form.name for form in sidecars.FORMS}
    bars = []
    for form in forms:
        name = form.name
        if form.traffic != "same" or name not in evidence.cpu or not (ratios := evidence.ratio(name)):
            continue
        us = statistics.median(results_of(evidence.cpu[name].data).cpu_ns(name)) / 1000
        bars.append({"title": form.title, "ours": name in ours, "us": us, "ratio": _middle(ratios)})
    return bars


def _panels(evidence: Evidence) -> list[Drawing]:
    """A panel a curve: what it draws, by x."""
    panels = []
    for curve in CURVES:
        if (found := evidence.curve(curve.name)) is None:
            continue
        relative = curve.of == "cpu_ns"
        points = {x: found.ratios(x) if relative else found.values(x, curve.of) for x in sorted(found.figures)}
        drawn = [[x, *_middle(values)] for x, values in points.items() if values]
        label = f"CPU per request, {curve.unit:,} = 1" if relative else LABELS.get(curve.of, FIGURES[curve.of][0])
        panels.append(
            {
                "title": curve.title,
                "x": curve.axis,
                "y": label,
                "points": drawn,
                "name": curve.name,
                "relative": relative,
            }
        )
    return panels
