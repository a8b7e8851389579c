# SPDX-License-Identifier: Apache-2.0
"""How much a result about a stretch of time hangs on where the stretch begins and ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.results import checked_numbers

__all__ = ["WindowSensitivity", "window_sensitivity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSensitivity:
    """Z of every window near the declared one."""

    declared: float
    """z of the declared window."""
    z: NDArray[np.float64]
    """z by shift of the beginning (rows) and of the end (columns), NaN for windows that do not
    exist."""
    shifts: NDArray[np.int64]
    """The shifts of both, in blocks."""
    smallest: float
    """Smallest z of all windows."""
    largest: float
    """Largest z of all windows."""
    share_significant: float
    """Share of windows with absolute z above 1.96. A declared window that is significant among
    many that are not hangs on its edges."""
    exploratory: bool = True
    """Only the declared window is a test; the others are chosen afterwards."""


def window_sensitivity(
    block_means: ArrayLike,
    start: int,
    stop: int,
    *,
    block_tokens: int,
    reach: int,
    expected: float = 0.0,
    deviation: float = 1.0,
) -> WindowSensitivity:
    """Returns z of all windows whose beginning and end are shifted by up to *reach* blocks.

    (The question that May and Spottiswoode put to the Global Consciousness Project's result of 11
    September 2001, which half an hour more or less of the window would have undone.)

    Args:
        block_means: Means of consecutive blocks, :attr:`BlockMeans.means`. Shape ``(B,)``.
        start: First block of the declared window.
        stop: Block after its last.
        block_tokens: Tokens of a block.
        reach: Largest shift in blocks, >= 0.
        expected: Mean under the null hypothesis.
        deviation: Standard deviation of one number under the null hypothesis.

    Raises:
        ConfigError: When the window is empty or lies outside of the blocks.
    """
    means = checked_numbers(block_means, name="block_means")
    if not 0 <= start < stop <= means.size or reach < 0:
        raise ConfigError(
            f"window {start}:{stop} of {means.size} blocks, reach {reach}: give a window inside "
            "the blocks and a reach of 0 or more"
        )
    sums = np.append(0.0, np.cumsum(means - expected)) * block_tokens
    shifts = np.arange(-reach, reach + 1)
    begin, end = (start + shifts)[:, np.newaxis], (stop + shifts)[np.newaxis, :]
    exists = (begin >= 0) & (end <= means.size) & (begin < end)
    last = means.size
    total = sums[np.clip(end, 0, last)] - sums[np.clip(begin, 0, last)]
    tokens = np.where(exists, (end - begin) * block_tokens, 1)
    z = np.where(exists, total / (deviation * np.sqrt(tokens)), np.nan)
    return WindowSensitivity(
        declared=float(z[reach, reach]),
        z=z,
        shifts=shifts,
        smallest=float(np.nanmin(z)),
        largest=float(np.nanmax(z)),
        share_significant=float((np.abs(z[exists]) > 1.96).mean()),
    )
