# SPDX-License-Identifier: Apache-2.0
"""Whether the cost of a step grows in proportion to the vocabulary and to the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.contenders import FIXED_1, Batch, PluginStep
from benchmarks.logit_sets import logit_set
from benchmarks.sources import PreparedSource
from benchmarks.timing import Budget, Contender, compare

__all__ = ["Line", "draw", "measure_batches", "measure_vocabularies"]

VOCABULARIES: Final = (8_192, 16_384, 32_768, 65_536, 131_072, 262_144)
BATCH: Final = 4
BATCHES: Final = (1, 2, 4, 8, 16, 32, 64)
VOCAB_SIZE: Final = 32_768
VARIANTS: Final = 64
"""Rows that a point is measured on, at least."""


@dataclass(frozen=True, slots=True)
class Line:
    """Durations along one axis, and the straight line through them."""

    label: str
    """What varies."""
    unit: tuple[int, str]
    """How much more of it the slope is stated for, and what that is called."""
    sizes: Sequence[int]
    """Where it was measured."""
    microseconds: Sequence[float]
    """Duration of a step at each of the sizes."""

    @property
    def fit(self) -> tuple[float, float]:
        """Intercept and slope in microseconds; the squares of the relative errors are least."""
        times, sizes = np.array(self.microseconds), np.array(self.sizes, dtype=np.float64)
        terms = np.stack([1.0 / times, sizes / times], axis=1)
        intercept, slope = np.linalg.lstsq(terms, np.ones(times.size), rcond=None)[0].tolist()
        return intercept, slope

    @property
    def largest_deviation(self) -> float:
        """The largest distance from the line, relative to the line."""
        intercept, slope = self.fit
        line = intercept + slope * np.array(self.sizes)
        return float(np.abs(np.array(self.microseconds) / line - 1.0).max())


def measure_vocabularies(budget: Budget) -> Line:
    """Returns the durations of steps of a few rows over the size of the vocabulary."""
    contenders = [_contender(str(size), size, BATCH) for size in VOCABULARIES]
    times = _times(contenders, budget)
    return Line(f"vocabulary, {BATCH} rows", (1_000, "1,000 tokens"), VOCABULARIES, times)


def measure_batches(budget: Budget) -> Line:
    """Returns the durations of steps over the number of rows."""
    contenders = [_contender(str(size), VOCAB_SIZE, size) for size in BATCHES]
    times = _times(contenders, budget)
    return Line(f"rows, vocabulary of {VOCAB_SIZE:,}", (1, "row"), BATCHES, times)


def draw(lines: Sequence[Line], path: Path) -> None:
    """Writes the plot of *lines* as an SVG file that depends on nothing but them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"svg.hashsalt": "qr-sampler", "svg.fonttype": "none"}):
        figure, panels = pyplot.subplots(1, len(lines), figsize=(9.0, 3.6), layout="constrained")
        for panel, line in zip(panels, lines, strict=True):
            intercept, slope = line.fit
            ends = np.linspace(0.0, line.sizes[-1])
            panel.plot(ends, (intercept + slope * ends) / 1e3, color="0.6", label="linear fit")
            milliseconds = np.array(line.microseconds) / 1e3
            panel.plot(line.sizes, milliseconds, "o", color="tab:blue", label="measured")
            panel.set(xlabel=line.label, ylabel="ms per step", xlim=(0, None), ylim=(0, None))
            panel.legend()
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)


def _contender(name: str, vocab_size: int, size: int) -> Contender:
    rows = logit_set("typical", "float32", max(VARIANTS, size), vocab_size).rows
    return Batch(rows, size).contender(name, PluginStep(FIXED_1, size, PreparedSource()))


def _times(contenders: Sequence[Contender], budget: Budget) -> list[float]:
    timings = compare(contenders, budget)
    return [timings.microseconds(each.name) for each in contenders]
