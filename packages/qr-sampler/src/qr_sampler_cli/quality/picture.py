# SPDX-License-Identifier: Apache-2.0
"""A picture of the bytes: their histogram, the places of their bits, and their spectrum."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import numpy as np

from qr_sampler.errors import ConfigError
from qr_sampler_cli.failures import import_package
from qr_sampler_cli.quality.pieces import byte_counts
from qr_sampler_cli.quality.report import QualityReport
from qr_sampler_cli.quality.spectrum import power_spectrum
from qr_sampler_cli.terminal.consoles import printable

__all__ = ["FORMATS", "draw_picture"]

FORMATS: Final = (".pdf", ".png", ".svg")
"""How the name of a picture may end."""

_BLUE: Final = "#0072b2"
_ORANGE: Final = "#d55e00"
"""Told apart by people who see fewer colours, too (Okabe and Ito, 2008)."""

_LOOKS: Final = {
    "text.parse_math": False,
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_LINES: Final = 1_000
"""Columns of the spectrum; each shows the largest line in it."""

_ERRORS: Final = 4.4


def draw_picture(report: QualityReport, path: Path) -> None:
    """Draws a report into a new file.

    Args:
        report: The report.
        path: The file, whose ending says in which format.

    Raises:
        ConfigError: When the file exists or cannot be written, or its ending is not known.
        MissingPackageError: When matplotlib is not installed.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path}: the name of a picture ends with {', '.join(FORMATS)}")
    remedy = "install it with: pip install matplotlib"
    matplotlib: Any = import_package("matplotlib", needed_for="--picture", remedy=remedy)
    figures: Any = import_package("matplotlib.figure", needed_for="--picture", remedy=remedy)
    with matplotlib.rc_context(_LOOKS):
        canvas = figures.Figure(figsize=(10.0, 6.4), layout="constrained")
        grid = canvas.add_gridspec(2, 2, width_ratios=(2.2, 1.0))
        _histogram(canvas.add_subplot(grid[0, 0]), report)
        _planes(canvas.add_subplot(grid[0, 1]), report)
        _spectrum(canvas.add_subplot(grid[1, :]), report)
        canvas.suptitle(
            f"{len(report.sample.data):,} bytes from {printable(report.sample.origin)[:80]}"
        )
        try:
            with path.open("xb") as file:
                canvas.savefig(file, format=path.suffix[1:])
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error}; choose a new file") from error


def _histogram(axes: Any, report: QualityReport) -> None:
    counts = byte_counts(report.sample.array)
    expected = len(report.sample.data) / 256.0
    z = (counts - expected) / math.sqrt(expected * 255.0 / 256.0)
    axes.vlines(np.arange(256), 0.0, z, colors=_BLUE, linewidth=1.6)
    _band(axes)
    axes.set(title="Histogram", xlabel="byte", ylabel="standard errors off", xlim=(-2, 257))


def _planes(axes: Any, report: QualityReport) -> None:
    places = np.arange(7, -1, -1)
    z = (np.array(report.bit_planes) - 0.5) * 2.0 * math.sqrt(len(report.sample.data))
    axes.bar(places, z, color=_BLUE, width=0.6)
    _band(axes)
    axes.set(title="Ones of each bit", xlabel="bit", ylabel="standard errors off")
    axes.set_xticks(places)
    axes.invert_xaxis()


def _band(axes: Any) -> None:
    axes.axhline(0.0, color="black", linewidth=0.8)
    for bound in (-_ERRORS, _ERRORS):
        axes.axhline(bound, color=_ORANGE, linewidth=1.0, linestyle="--")


def _spectrum(axes: Any, report: QualityReport) -> None:
    power = power_spectrum(report.sample.array)
    width = max(1, len(power) // _LINES)
    shown = power[: len(power) // width * width].reshape(-1, width).max(axis=1)
    frequency = (np.arange(len(shown)) + 0.5) * width / (2.0 * (len(power) + 1))
    axes.plot(frequency, shown, color=_BLUE, linewidth=0.8)
    # What the largest of all lines exceeds once in a thousand samples.
    bound = math.log(len(power) / 1e-3)
    axes.axhline(bound, color=_ORANGE, linewidth=1.0, linestyle="--")
    axes.set(
        title="Spectrum, the largest line in each column",
        xlabel="frequency in cycles per byte",
        ylabel="power, relative to uniform bytes",
        xlim=(0.0, 0.5),
        yscale="log",
    )
    # Not as formulas, which the looks above leave as text.
    for formatted in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        formatted(lambda value, _: f"{value:g}")
