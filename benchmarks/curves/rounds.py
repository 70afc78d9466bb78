"""Curves are measured in interleaved rounds: each round takes every point once, and begins with another.

What fails is left out with its reason, and the other points stand; a point that is not compared with the unit of its
own round is not compared.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.curves.catalogue import Curve
from benchmarks.curves.point import Figures, Timing
from benchmarks.stage import FAILURES, twice


@dataclass
class Measured:
    """Figures by x and round. A point that failed has its reason in `left_out`; "" is the curve as a whole."""

    name: str
    unit: int  # the x that the others are compared with
    figures: dict[int, dict[int, Figures]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def values(self, x: int, figure: str) -> list[float]:
        """One a round."""
        return [one[figure] for _, one in sorted(self.figures[x].items()) if figure in one]

    def median(self, x: int, figure: str) -> float:
        """Of the rounds."""
        return statistics.median(self.values(x, figure))

    def ratios(self, x: int, figure: str = "cpu_ns") -> list[float]:
        """To the curve's unit, each in its own round."""
        first, own = self.figures.get(self.unit, {}), self.figures[x]
        return [own[n][figure] / first[n][figure] for n in sorted(own) if n in first and first[n][figure]]


def measure_curve(
    curve: Curve, timing: Timing, rounds: int, say: Callable[[str], None], *, ends: bool = False
) -> Measured:
    """All rounds of one curve; `ends`: of its first and its last point alone."""
    measured = Measured(curve.name, curve.unit)
    with tempfile.TemporaryDirectory(prefix="bench-curve-") as folder:
        say(f"curve {curve.name}: preparing")
        try:
            points = curve.points(Path(folder))
        except FAILURES as failure:
            measured.left_out[""] = str(failure)
            return measured
        order = list(points)[:: len(points) - 1] if ends else list(points)
        for number in range(rounds):
            turn = number % len(order)
            for x in (*order[turn:], *order[:turn]):
                if str(x) in measured.left_out:
                    continue
                say(f"curve {curve.name}, round {number + 1} of {rounds}: {x:,} {curve.axis}")
                try:
                    measured.figures.setdefault(x, {})[number] = twice(partial(points[x], timing), say)
                except FAILURES as failure:
                    measured.left_out[str(x)] = str(failure)
                    measured.figures.pop(x, None)
    return measured


def from_json(told: dict[str, Any]) -> Measured:
    """What `vars` of a Measured was, after JSON, which knows text as names only."""
    figures = {int(x): {int(n): one for n, one in rounds.items()} for x, rounds in told["figures"].items()}
    return Measured(told["name"], told["unit"], figures, told["left_out"])
