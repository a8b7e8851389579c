# SPDX-License-Identifier: Apache-2.0
"""Pictures of a run: acceptance, cross-entropy gap and latency; needs the extra ``plots``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
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
    events = _events(directory / EVENTS_FILE)
    columns, what = _columns(events), _what(events[0])
    drawn = []
    for name, draw in _PICTURES.items():
        figure = figures.Figure(figsize=(7, 4), layout="constrained")
        figure.suptitle(what, fontsize="small")
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


def _events(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            events = [json.loads(line) for line in file]
    except OSError as error:
        raise ExperimentError(f"the events of the run cannot be read: {error}") from error
    if not events:
        raise ExperimentError(f"{path} holds no event; there is nothing to draw")
    return events


def _columns(events: Sequence[Mapping[str, Any]]) -> dict[str, FloatArray]:
    """Returns the numeric fields that the pictures show, ``null`` as NaN."""
    names = (
        "accepted_prefix",
        "predicted_acceptance",
        "ce_gap_nats",
        "tsu_latency_ms",
        "verifier_latency_ms",
    )
    return {name: np.array([event[name] for event in events], dtype=np.float64) for name in names}


def _what(event: Mapping[str, Any]) -> str:
    """Returns in words which run the pictures are of."""
    return (
        f"{event['mode']}, V = {event['vocab_size']:,}, K = {event['K']}, L = {event['L']}, "
        f"B = {event['B']}, verifier {event['verifier']}, unit {event['unit']}, "
        f"source {event['source']}, seed {event['seed']}"
    )


def _running_mean(values: FloatArray) -> FloatArray:
    means: FloatArray = np.cumsum(values) / np.arange(1, values.size + 1)
    return means


def _acceptance(axes: Any, columns: Mapping[str, FloatArray]) -> None:
    found = _running_mean((columns["accepted_prefix"] > 0).astype(np.float64))
    predicted = _running_mean(columns["predicted_acceptance"])
    events = np.arange(1, found.size + 1)
    # 3.29 standard deviations of a share of as many tests: 99.9 %.
    spread = 3.29 * np.sqrt(predicted * (1 - predicted) / events)
    axes.fill_between(
        events, predicted - spread, predicted + spread, alpha=0.2, color="C1", label="99.9 %"
    )
    axes.plot(events, predicted, "--", color="C1", label="predicted")
    axes.plot(events, found, color="C0", label="first draft accepted")
    half = 1.2 * max(float(np.abs(found - predicted)[_settled(found) :].max()), float(spread[-1]))
    centre = float(predicted[-1])
    axes.set(
        xlabel="event",
        ylabel="running mean",
        title="Acceptance",
        xscale="log",
        ylim=(centre - 2 * half, centre + 2 * half),
    )
    axes.legend()


def _settled(values: FloatArray) -> int:
    """Returns the event from which on a running mean is worth the room that it takes."""
    return min(values.size - 1, values.size // 20)


def _ce_gap(axes: Any, columns: Mapping[str, FloatArray]) -> None:
    gaps = columns["ce_gap_nats"]
    finite = gaps[np.isfinite(gaps)]
    missing = gaps.size - finite.size
    note = f", {missing:,} infinite left out" if missing else ""
    axes.set(title=f"Cross-entropy gap{note}", xlabel="nats")
    if finite.size and float(np.ptp(finite)) <= 1e-9 * abs(float(finite[0])):
        axes.text(
            0.5, 0.5, f"{finite[0]:.4f} nats in every event", ha="center", transform=axes.transAxes
        )
        axes.set(xlabel="", xticks=(), yticks=())
        return
    axes.hist(finite, bins=min(50, max(10, np.unique(finite).size)))
    axes.set(ylabel="events")


def _latency(axes: Any, columns: Mapping[str, FloatArray]) -> None:
    for name, label in (("tsu_latency_ms", "unit"), ("verifier_latency_ms", "verifier")):
        times = np.sort(columns[name]) * 1000
        axes.plot(times, np.arange(1, times.size + 1) / times.size, label=label)
    axes.set(xlabel="microseconds", ylabel="share of events", title="Latency", xscale="log")
    axes.legend(loc="lower right")


_PICTURES: Final[dict[str, Callable[[Any, Mapping[str, FloatArray]], None]]] = {
    "acceptance": _acceptance,
    "cross_entropy_gap": _ce_gap,
    "latency": _latency,
}
