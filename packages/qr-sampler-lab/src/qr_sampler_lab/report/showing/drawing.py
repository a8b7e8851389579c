# SPDX-License-Identifier: Apache-2.0
"""Draws the figures of a report as SVG."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.figure import Figure as Canvas

from qr_sampler_cli.terminal.consoles import printable
from qr_sampler_lab.report.content import Figure, Series

__all__ = ["drawn"]

COLOURS: Final = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#5c3d9e",
    "#6b6b6b",
)
"""Of arms, told apart by people who see fewer colours, too (Okabe and Ito, 2008)."""

_LONGEST_NAME: Final = 60
_SIZE_INCHES: Final = (5.6, 3.7)
_LOOKS: Final = {
    # Labels come from clients: nothing in them is a formula.
    "text.parse_math": False,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def drawn(figure: Figure) -> str:
    """Returns a figure as an SVG element, whose text a browser sets in its own font."""
    looks: Any = {**_LOOKS, "svg.hashsalt": figure.name}
    with matplotlib.rc_context(looks), warnings.catch_warnings():
        # Browsers have the characters that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        rows = max(len(figure.labels), 1)
        width, height = _SIZE_INCHES
        if figure.labels:
            height = 1.1 + 0.34 * rows
        canvas = Canvas(figsize=(width, height), layout="constrained")
        axes = canvas.add_subplot()
        entries = _draw_all(axes, figure)
        axes.set_xlabel(figure.x)
        axes.set_ylabel(figure.y)
        if figure.log_x:
            axes.set_xscale("log")
            # Not as formulas, which browsers do not set.
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.9g}")
            axes.xaxis.set_minor_formatter(lambda value, _: "")
        if figure.labels:
            _name_rows(axes, figure.labels)
        elif entries:
            handles, names = zip(*entries, strict=True)
            canvas.legend(handles, names, loc="outside lower left", ncols=1)
            canvas.set_figheight(height + 0.2 * len(entries))
        return _element(canvas, figure)


def _draw_all(axes: Any, figure: Figure) -> list[tuple[Any, str]]:
    colours = iter(COLOURS * (1 + len(figure.series) // len(COLOURS)))
    entries = []
    for series in figure.series:
        handle = _draw(axes, series, colours)
        if handle is not None:
            entries.append((handle, _shown(series.name)))
    return entries


def _draw(axes: Any, series: Series, colours: Any) -> Any:
    """Draws a series and returns what the legend shows of it."""
    told = series.columns
    if series.style in ("boundary", "envelope", "funnel"):
        dotted = series.style == "envelope"
        along = (told["low"], told["high"])
        line = None
        for limit in along:
            x, y = (limit, told["y"]) if series.style == "funnel" else (told["x"], limit)
            (line,) = axes.plot(
                x, y, color="#222222", linewidth=0.9, linestyle=":" if dotted else "--"
            )
        return line
    colour = next(colours)
    if series.style == "bars":
        width = np.array([told["x"] - told["low"], told["high"] - told["x"]])
        axes.axvline(0.0, color="#222222", linewidth=0.8)
        axes.errorbar(
            told["x"], told["y"], xerr=np.nan_to_num(width), fmt="o", color=colour, capsize=3
        )
        return None
    if series.style == "points":
        return axes.plot(told["x"], told["y"], ".", markersize=3.5, color=colour)[0]
    return axes.plot(told["x"], told["y"], linewidth=1.3, color=colour)[0]


def _name_rows(axes: Any, labels: tuple[str, ...]) -> None:
    axes.set_yticks(range(len(labels)), [_shown(label) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)


def _shown(name: str) -> str:
    """Returns a name as a figure can show it: short, on one line, without control characters."""
    text = " ".join(printable(name).split()) or " "
    if len(text) > _LONGEST_NAME:
        text = text[: _LONGEST_NAME - 1] + "…"
    # Legends leave out what begins with an underscore.
    return " " + text if text.startswith("_") else text


def _element(canvas: Canvas, figure: Figure) -> str:
    file = io.StringIO()
    canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    element = text[text.index("<svg") :]
    # Several figures stand in one page, where an id may be there once only.
    element = re.sub(r'\bid="([^"]+)"', rf'id="{figure.name}-\1"', element)
    element = re.sub(r'(href="#|url\(#)', rf"\1{figure.name}-", element)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", element, count=1).replace(
        "<svg", '<svg role="img"', 1
    )
