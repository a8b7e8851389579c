# SPDX-License-Identifier: Apache-2.0
"""How the evidence wanders: its peak, the area under it and its spectrum, against permutations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.anytime import log_e_values
from qr_sampler_lab.analysis.results import TestResult, checked_numbers

__all__ = ["ChangeOfEvidence", "change_of_evidence"]

_MOST_POINTS = 2_000
_PIECE = 2**20
"""Scores that are permuted at a time, 8 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeOfEvidence:
    """Three figures of the path of log E, each against permutations of the same scores."""

    peak: TestResult
    """Largest log E."""
    area: TestResult
    """Mean of log E over time."""
    spectrum: TestResult
    """Sum of the amplitudes of log E's Fourier transform without the constant."""
    points: int
    """Points of the path: tokens, or blocks of them where there are more than 2,000."""

    @property
    def results(self) -> tuple[TestResult, ...]:
        """All three."""
        return self.peak, self.area, self.spectrum


def change_of_evidence(
    scores: ArrayLike,
    *,
    tau: float,
    permutations: int = 10_000,
    rng: np.random.Generator | int = 0,
) -> ChangeOfEvidence:
    """Returns peak, area and spectrum of the evidence over time, with permutation p-values.

    (The change-of-evidence analysis of Maier, Dechamps and Pflitsch, Intentional observer effects
    on quantum randomness: a Bayesian analysis reveals evidence against micropsychokinesis, 2018,
    on the e-process instead of their sequential Bayes factor.) Permutations keep the scores and
    destroy their order, so the sum, and the e-value at the end, are the same in all: only the order
    is tested. ``p = (1 + permutations at least as large) / (1 + permutations)`` (Phipson and Smyth,
    Permutation p-values should never be zero, 2010).

    Args:
        scores: In order of time. Shape ``(B,)``. More than 2,000 are first averaged to blocks of
            equal length, scaled to variance 1.
        tau: As in :class:`~qr_sampler_lab.analysis.anytime.EProcess`, per score.
        permutations: Their number.
        rng: Generator or seed.

    Raises:
        ConfigError: When there are fewer than ten scores or no permutations.
    """
    points, scale = _condensed(checked_numbers(scores, name="scores"))
    if points.size < 10 or permutations < 1:
        raise ConfigError(
            f"{points.size} scores, {permutations} permutations: use ten scores and one "
            "permutation at least"
        )
    # A shift of tau per score is one of tau * sqrt(length) per block.
    block_tau = tau * scale
    observed = _figures(points[np.newaxis], block_tau)[:, 0]
    larger = np.zeros(3)
    generator, rows = np.random.default_rng(rng), max(1, _PIECE // points.size)
    for start in range(0, permutations, rows):
        count = min(rows, permutations - start)
        shuffled = generator.permuted(np.tile(points, (count, 1)), axis=1)
        # Sums in another order differ in their last digits.
        limit = observed - 1e-9 * (1.0 + np.abs(observed))
        larger += (_figures(shuffled, block_tau) >= limit[:, np.newaxis]).sum(axis=1)
    p_values = (1.0 + larger) / (1.0 + permutations)
    names = ("evidence_peak", "evidence_area", "evidence_spectrum")
    peak, area, spectrum = (
        TestResult(
            name=name,
            about="statistic",
            statistic=float(figure),
            p_value=float(p_value),
            n=points.size,
            alternative="greater",
            exploratory=True,
            notes=(f"Against {permutations:,} permutations of {points.size:,} points.",),
        )
        for name, figure, p_value in zip(names, observed, p_values, strict=True)
    )
    return ChangeOfEvidence(peak=peak, area=area, spectrum=spectrum, points=points.size)


def _condensed(scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Returns at most 2,000 scores of variance 1, and the root of how many each stands for.

    Up to one block of scores at the end is left out.
    """
    length = math.ceil(scores.size / _MOST_POINTS)
    if length <= 1:
        return scores, 1.0
    whole = scores[: scores.size // length * length].reshape(-1, length)
    return whole.sum(axis=1) / math.sqrt(length), math.sqrt(length)


def _figures(paths: NDArray[np.float64], tau: float) -> NDArray[np.float64]:
    """Returns peak, area and spectrum of every path. Shape ``(3, P)``."""
    n = np.arange(1, paths.shape[1] + 1)
    log_e = log_e_values(n, np.cumsum(paths, axis=1), tau=tau)
    spectrum = np.abs(np.fft.rfft(log_e, axis=1))[:, 1:].sum(axis=1)
    return np.stack([log_e.max(axis=1), log_e.mean(axis=1), spectrum])
