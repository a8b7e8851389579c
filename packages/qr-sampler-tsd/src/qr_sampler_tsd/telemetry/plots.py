# SPDX-License-Identifier: Apache-2.0
"""Pictures of a run: acceptance, cross-entropy gap and latency; needs the extra ``plots``."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np

from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.errors import ExperimentError, MissingExtraError
from qr_sampler_tsd.telemetry.writer import EVENTS_FILE

__all__ = ["FORMATS", "plot_run", "require_matplotlib"]

FORMATS: Final = ("png", "svg")


def plot_run(directory: Path, file_format: str = "svg") -> list[Path]:
    """Draws three pictures beside the events of a run.

    Args:
        directory: Of the run.
        file_format: ``png`` or ``svg``.

    Returns:
        The files: acceptance, cross-entropy gap, latency.

    Raises:
        MissingExtraError: When matplotlib is not installed.
        ExperimentError: When the format is unknown, or the run has no events.
    """
    if file_format not in FORMATS:
        raise ExperimentError(f"plots are {' or '.join(FORMATS)}, not {file_format!r}")
    figures = require_matplotlib()
    columns = _columns(directory / EVENTS_FILE)
    drawn = []
    for name, draw in _PICTURES.items():
        figure = figures.Figure(figsize=(7, 4), layout="constrained")
        draw(figure.add_subplot(), columns)
        path = directory / f"{name}.{file_format}"
        figure.savefig(path)
        drawn.append(path)
    return drawn


def require_matplotlib() -> Any:
    """Returns the part of matplotlib that draws.

    Raises:
        MissingExtraError: When it is not installed.
    """
    try:
        return import_module("matplotlib.figure")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "plots need matplotlib, which is not installed; install it with: pip install matplotlib"
        ) from error


def _columns(path: Path) -> dict[str, FloatArray]:
    """Returns the numeric fields that the pictures show, ``null`` as NaN."""
    names = (
        "L",
        "accepted_prefix",
        "overlap_mass",
        "ce_gap_nats",
        "tsu_latency_ms",
        "verifier_latency_ms",
    )
    try:
        with path.open(encoding="utf-8") as file:
            events = [json.loads(line) for line in file]
    except OSError as error:
        raise ExperimentError(f"the events of the run cannot be read: {error}") from error
    if not events:
        raise ExperimentError(f"{path} holds no event; there is nothing to draw")
    return {name: np.array([event[name] for event in events], dtype=np.float64) for name in names}


def _running_mean(values: FloatArray) -> FloatArray:
    means: FloatArray = np.cumsum(values) / np.arange(1, values.size + 1)
    return means


def _acceptance(axes: Any, columns: dict[str, FloatArray]) -> None:
    first = columns["accepted_prefix"] > 0
    axes.plot(_running_mean(first.astype(np.float64)), label="first draft accepted")
    axes.plot(_running_mean(columns["overlap_mass"]), "--", label="overlap mass, predicted")
    axes.set(xlabel="event", ylabel="running mean", title="Acceptance", ylim=(0, 1.02))
    axes.legend()


def _ce_gap(axes: Any, columns: dict[str, FloatArray]) -> None:
    gaps = columns["ce_gap_nats"]
    finite = gaps[np.isfinite(gaps)]
    axes.hist(finite, bins=50)
    missing = gaps.size - finite.size
    note = f", {missing} infinite left out" if missing else ""
    axes.set(xlabel="nats", ylabel="events", title=f"Cross-entropy gap{note}")


def _latency(axes: Any, columns: dict[str, FloatArray]) -> None:
    for name, label in (("tsu_latency_ms", "unit"), ("verifier_latency_ms", "verifier")):
        times = np.sort(columns[name]) * 1000
        axes.plot(times, np.arange(1, times.size + 1) / times.size, label=label)
    axes.set(xlabel="microseconds", ylabel="share of events", title="Latency", xscale="log")
    axes.legend()


_PICTURES: Final[dict[str, Callable[[Any, dict[str, FloatArray]], None]]] = {
    "acceptance": _acceptance,
    "cross_entropy_gap": _ce_gap,
    "latency": _latency,
}
