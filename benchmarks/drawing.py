"""Draws the page's figures: FOLDER KIND, and JSON on the standard input. A program of its own, for the interpreter that
has matplotlib: it imports nothing of the harness, and `plots` says what is to be drawn.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl  # type: ignore[import-not-found]
import matplotlib.pyplot as plt  # type: ignore[import-not-found]

# Okabe and Ito: told apart by every kind of colour vision, and in grey.
OURS, THEIRS, GREY = "#0072B2", "#E69F00", "#666666"
Drawing = dict[str, Any]


def _main() -> None:
    mpl.use("Agg")
    mpl.rcParams.update(
        {"svg.hashsalt": "sidecar", "svg.fonttype": "path", "font.size": 9, "axes.spines.top": False}
        | {"axes.spines.right": False, "axes.titlesize": 9.5, "axes.titleweight": "bold", "axes.titlelocation": "left"}
    )
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    folder.mkdir(parents=True, exist_ok=True)
    for name, told in json.load(sys.stdin).items():
        figure = {"cpu": _draw_bars, "curves": _draw_panels}[name](told)
        figure.savefig(folder / f"{name}.{kind}", metadata={"Date": None} if kind == "svg" else {}, dpi=110)


CLIP = 6.0  # bars end here: one that is longer says so, and leaves room to tell the others apart


def _draw_bars(bars: list[Drawing]) -> Any:
    figure, axes = plt.subplots(figsize=(9.5, 0.9 + 0.36 * len(bars)), layout="constrained")
    for place, bar in enumerate(reversed(bars)):
        middle, low, high = bar["ratio"]
        axes.barh(place, min(middle, CLIP), color=OURS if bar["ours"] else THEIRS, height=0.66)
        if middle < CLIP:
            ends = [[middle - low], [min(high, CLIP) - middle]]
            axes.errorbar(middle, place, xerr=ends, color="black", linewidth=1, capsize=2.5)
        text = (
            f"{middle:.2f}  ({bar['us']:,.0f} µs)"
            if middle < CLIP
            else f"goes on to {middle:.1f}  ({bar['us']:,.0f} µs)"
        )
        axes.text(min(high if middle < CLIP else CLIP, CLIP) + 0.07, place, text, va="center", fontsize=8.5)
    axes.axvline(1, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(bars)), [bar["title"] for bar in reversed(bars)])
    axes.set_xlim(0, CLIP * 1.32)
    axes.set_xticks(range(int(CLIP) + 1))
    axes.set_xlabel("CPU per request, nginx of the same round = 1 (median; line: min … max)")
    axes.set_title("CPU per request, one core, the same requests for all")
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in (OURS, THEIRS)]
    axes.legend(handles, ["sidecar", "others"], loc="lower right", frameon=False)
    return figure


def _draw_panels(panels: list[Drawing]) -> Any:
    columns = 2
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(9.5, 2.35 * rows), layout="constrained", squeeze=False)
    places = list(grid.flat)
    for axes, panel in zip(places, panels, strict=False):
        _draw_panel(axes, panel)
    for axes in places[len(panels) :]:
        axes.set_visible(False)
    return figure


def _draw_panel(axes: Any, panel: Drawing) -> None:
    """Points stand side by side at even distances, with what they are beneath: they grow by leaps."""
    points = panel["points"]
    at = range(len(points))
    middles, lows, highs = zip(*(point[1:] for point in points), strict=True)
    axes.fill_between(at, lows, highs, color=OURS, alpha=0.18, linewidth=0)
    axes.plot(at, middles, color=OURS, marker="o", markersize=4, linewidth=1.6)
    axes.set_xticks(at, [_short(point[0]) for point in points])
    axes.set_ylim(0, max(*highs, 1e-9) * 1.25)
    axes.set_title(panel["title"])
    axes.set_xlabel(panel["x"])
    axes.set_ylabel(panel["y"], fontsize=8)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.margins(x=0.08)
    if panel["relative"]:
        axes.axhline(1, color=GREY, linewidth=0.8, linestyle=":")
    last = f"{middles[-1]:.2f}" if middles[-1] >= 0.1 else f"{middles[-1]:.2g}"
    axes.annotate(last, (at[-1], middles[-1]), textcoords="offset points", xytext=(0, 7), ha="center")
    if panel["name"] == "calls":
        axes.axhline(0.03, color=THEIRS, linewidth=1, linestyle="--")
        axes.text(0, 0.03, "goal 0.03", color="black", fontsize=8, va="bottom")


def _short(x: int) -> str:
    """1,000 → 1k, 1,048,576 → 1Mi: what a tick has room for."""
    for size, letter in ((1 << 20, "Mi"), (1 << 10, "Ki")):
        if x and x % size == 0:
            return f"{x // size}{letter}"
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if x >= size and x % size == 0:
            return f"{x // size}{letter}"
    return str(x)


if __name__ == "__main__":
    _main()
