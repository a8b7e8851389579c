# SPDX-License-Identifier: Apache-2.0
"""P-values adjusted for how many there are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.results import checked_numbers

__all__ = ["benjamini_hochberg", "holm"]


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Returns p-values adjusted by Holm's step-down rule, valid under any dependence.

    Rejecting what is at most alpha has a probability of at most alpha of any false rejection (A
    simple sequentially rejective multiple test procedure, 1979).

    Args:
        p_values: Shape ``(K,)``.

    Raises:
        ConfigError: When one is not a probability.

    Examples:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    values, order = _ascending(p_values)
    steps = values[order] * np.arange(values.size, 0, -1)
    return _in_place(np.maximum.accumulate(steps), order)


def benjamini_hochberg(p_values: ArrayLike) -> NDArray[np.float64]:
    """Returns p-values adjusted for the false discovery rate.

    Rejecting what is at most q keeps the expected share of false ones among them below q, for
    independent or positively dependent tests (Benjamini and Hochberg, Controlling the false
    discovery rate, 1995).

    Args:
        p_values: Shape ``(K,)``.

    Raises:
        ConfigError: When one is not a probability.

    Examples:
        >>> benjamini_hochberg([0.01, 0.04, 0.03]).round(3).tolist()
        [0.03, 0.04, 0.04]
    """
    values, order = _ascending(p_values)
    steps = values[order] * values.size / np.arange(1, values.size + 1)
    return _in_place(np.minimum.accumulate(steps[::-1])[::-1], order)


def _ascending(p_values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    values = checked_numbers(p_values, name="p_values")
    if values.size and not (values.min() >= 0.0 and values.max() <= 1.0):
        raise ConfigError(f"p-values from {values.min()} to {values.max()}: give probabilities")
    return values, np.argsort(values, kind="stable")


def _in_place(adjusted: NDArray[np.float64], order: NDArray[np.intp]) -> NDArray[np.float64]:
    values = np.empty_like(adjusted)
    values[order] = np.minimum(adjusted, 1.0)
    return values
