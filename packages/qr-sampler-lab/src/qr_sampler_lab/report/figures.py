# SPDX-License-Identifier: Apache-2.0
"""The figures of a report, as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from qr_sampler_lab.analysis import fixed_boundary, ville_boundary
from qr_sampler_lab.report.adding.arm import LATENCY_EDGES_MS, Arm
from qr_sampler_lab.report.adding.arms import ArmKey
from qr_sampler_lab.report.adding.paths import SumPath
from qr_sampler_lab.report.adding.scores import Contrast
from qr_sampler_lab.report.analysis import Options
from qr_sampler_lab.report.content import Figure, Series
from qr_sampler_lab.report.judging import suited

__all__ = ["figures_of", "running_z"]

MOST_LINES: Final = 8
"""Largest number of arms of a figure; the first in the alphabet are shown."""

_CURVE: Final = 200
_FIRST: Final = 10
"""Number of scores from which on limits are drawn; before, they are far away."""

_Arms = Sequence[tuple[str, Arm]]


def figures_of(
    arms: _Arms,
    names: Mapping[ArmKey, str],
    contrasts: Mapping[tuple[ArmKey, ArmKey], Contrast],
    options: Options,
) -> list[Figure]:
    """Returns all figures of which there are numbers."""
    shown = arms[:MOST_LINES]
    pairs = [
        (f"{names[arm]} against {names[control]}", contrast.path)
        for (arm, control), contrast in list(contrasts.items())[:MOST_LINES]
        if contrast.path.n
    ]
    figures = []
    if pairs:
        figures.append(
            running_z(
                pairs,
                options,
                name="contrast",
                title="Arms against each other, as the tokens came",
                what="paired scores",
            )
        )
    ideal = [(name, arm) for name, arm in shown if not (arm.key.baseline or arm.key.drafted)]
    if ideal:
        figures.append(
            running_z(
                [(name, arm.path) for name, arm in ideal],
                options,
                name="running_z",
                title="Every arm against ideal bytes, as the tokens came",
                what="scores",
            )
        )
        figures.append(_distances(ideal))
    figures.append(_effects(shown))
    figures += [
        figure for figure in (_block_means(shown), _funnel(shown), _latency(shown)) if figure
    ]
    return figures


def running_z(
    paths: Sequence[tuple[str, SumPath]], options: Options, *, name: str, title: str, what: str
) -> Figure:
    """Returns z of the mean after every number of tokens, with the limits of looking once and ever.

    Args:
        paths: Sums of scores, each with its name.
        options: Has tau and alpha.
        name: Of the figure's file.
        title: Of the figure.
        what: What the sums are of.
    """
    series = []
    longest = 2 * _FIRST
    for label, path in paths:
        n, sums = path.points()
        longest = max(longest, path.n)
        series.append(Series(name=label, columns={"x": n, "y": sums / np.sqrt(n)}))
    n = np.unique(np.logspace(math.log10(_FIRST), math.log10(longest), _CURVE).astype(np.int64))
    root = np.sqrt(n)
    ever = ville_boundary(n, tau=options.tau, alpha=options.alpha) / root
    once = fixed_boundary(n, alpha=options.alpha) / root
    percent = f"{100 * options.alpha:g} %"
    series += [
        Series(
            name=f"left ever with at most {percent} (e-process)",
            columns={"x": n, "low": -ever, "high": ever},
            style="boundary",
        ),
        Series(
            name=f"left at one look with {percent}",
            columns={"x": n, "low": -once, "high": once},
            style="envelope",
        ),
    ]
    return Figure(
        name=name,
        title=title,
        caption=(
            "z of the mean so far. Whoever looks all the time may call a path remarkable when it "
            "leaves the dashed limits; the dotted ones hold for one look that was fixed before."
        ),
        x=f"number of {what}",
        y="z",
        series=tuple(series),
        log_x=True,
    )


def _effects(arms: _Arms) -> Figure:
    effects, lows, highs = [], [], []
    for _, arm in arms:
        (found,) = (suited(result, arm) for result in arm.of_u.location())
        interval = found.interval
        effects.append(found.effect)
        lows.append(interval.low if interval is not None else math.nan)
        highs.append(interval.high if interval is not None else math.nan)
    columns = {
        "x": np.array(effects),
        "y": np.arange(len(arms)),
        "low": np.array(lows),
        "high": np.array(highs),
    }
    return Figure(
        name="effects",
        title="Mean of u",
        caption="Distance of the mean of u from 1/2, with its interval of 95 % where its law is "
        "known.",
        x="mean of u - 1/2",
        y="",
        series=(Series(name="arms", columns=columns, style="bars"),),
        labels=tuple(name for name, _ in arms),
    )


def _distances(arms: _Arms) -> Figure:
    x = np.linspace(0.0, 1.0, 129)
    series = []
    most = 1
    for name, arm in arms:
        if not arm.tokens:
            continue
        most = max(most, arm.tokens)
        below = np.array([arm.of_u.ecdf.share_below(float(each)) for each in x[1:-1]])
        distance = np.concatenate([[0.0], below - x[1:-1], [0.0]])
        series.append(Series(name=name, columns={"x": x, "y": distance * math.sqrt(arm.tokens)}))
    limit = np.full(2, 1.3581)
    series.append(
        Series(
            name="left anywhere with 5 %",
            columns={"x": np.array([0.0, 1.0]), "low": -limit, "high": limit},
            style="boundary",
        )
    )
    return Figure(
        name="distribution",
        title="Law of u",
        caption=(
            "Empirical distribution function minus the uniform one, times the root of the number "
            "of tokens. Counts on a lattice are spread over their step."
        ),
        x="u",
        y="√N (F(u) - u)",
        series=tuple(series),
    )


def _block_means(arms: _Arms) -> Figure | None:
    series = []
    tokens = 0
    for name, arm in arms:
        means = arm.of_u.block_means
        tokens = means.tokens
        if len(means.means) > 1:
            z = (means.means - 0.5) * math.sqrt(12.0 * tokens)
            every = math.ceil(len(z) / 2000)
            x = np.arange(1, len(z) + 1) * tokens
            series.append(
                Series(name=name, columns={"x": x[::every], "y": z[::every]}, style="points")
            )
    if not series:
        return None
    return Figure(
        name="blocks",
        title="Through time",
        caption=f"z of the mean of u of {tokens:,} tokens each; of very many, every k-th.",
        x="tokens of the arm",
        y="z",
        series=tuple(series),
    )


def _funnel(arms: _Arms) -> Figure | None:
    series: list[Series] = []
    largest = 0.0
    for name, arm in arms:
        sessions = arm.sessions.sessions(name)
        if len(sessions) > 2:
            errors = np.array([session.error for session in sessions])
            largest = max(largest, float(errors.max()))
            effects = np.array([session.effect for session in sessions])
            columns: dict[str, Any] = {"x": effects, "y": 1.0 / errors**2}
            series.append(Series(name=name, columns=columns, style="points"))
    if not series:
        return None
    errors = np.linspace(largest, largest / 20, 100)
    series.append(
        Series(
            name="95 % of ideal sessions",
            columns={"y": 1.0 / errors**2, "low": -1.96 * errors, "high": 1.96 * errors},
            style="funnel",
        )
    )
    return Figure(
        name="funnel",
        title="Sessions",
        caption="Mean score of every session against its number of tokens. A gap on one side of "
        "the small ones is what sessions that nobody reports leave.",
        x="mean score",
        y="tokens",
        series=tuple(series),
    )


def _latency(arms: _Arms) -> Figure | None:
    middles = np.sqrt(LATENCY_EDGES_MS[1:] * LATENCY_EDGES_MS[:-1])
    series = []
    for name, arm in arms:
        inner = arm.latencies[1:-1]
        if inner.any():
            share = np.cumsum(inner) / inner.sum()
            inside = (share > 0.0) & (share < 1.0)
            around = _dilated(inside)
            series.append(Series(name=name, columns={"x": middles[around], "y": share[around]}))
    if not series:
        return None
    return Figure(
        name="latency",
        title="Latency of draws",
        caption="Share of the draws that took at most as long. Arms whose curves differ can be "
        "told apart by their latency alone.",
        x="milliseconds from request to answer",
        y="share of draws",
        series=tuple(series),
        log_x=True,
    )


def _dilated(mask: Any) -> Any:
    """Returns *mask* with the neighbours of what is true."""
    wide = mask.copy()
    wide[1:] |= mask[:-1]
    wide[:-1] |= mask[1:]
    return wide if wide.any() else np.ones_like(mask)
