# SPDX-License-Identifier: Apache-2.0
"""Scores of two arms, paired in order of time, so that what both share cancels."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.results import checked_numbers

__all__ = ["PairedStreams"]


class PairedStreams:
    """Pairs the k-th score of an arm with the k-th of its control: (arm - control) / sqrt(2).

    The differences have variance 1 when the scores have, and mean 0 when both arms have the same
    mean, whatever it is: a device's bias and the error of a baseline drop out. They feed an
    :class:`~qr_sampler_lab.analysis.anytime.EProcess` on the contrast of two arms.

    A score waits until its partner comes; at the end :attr:`waiting` scores have none.

    Examples:
        >>> streams = PairedStreams()
        >>> streams.add([2.0, 3.0, 0.0], [True, True, False]).round(3).tolist()
        [1.414]
        >>> streams.waiting
        1
    """

    def __init__(self) -> None:
        self._arm = np.empty(0)
        self._control = np.empty(0)

    def add(self, scores: ArrayLike, is_arm: ArrayLike) -> NDArray[np.float64]:
        """Adds scores in order of time and returns the differences that are complete now.

        Args:
            scores: Shape ``(B,)``.
            is_arm: Shape ``(B,)``, whether a score is of the arm rather than of its control.

        Raises:
            ConfigError: When the shapes differ or a score is not finite.
        """
        numbers, mask = checked_numbers(scores, name="scores"), np.asarray(is_arm, dtype=np.bool_)
        if mask.shape != numbers.shape:
            raise ConfigError(f"{numbers.size} scores but {mask.size} arms: give one arm per score")
        arm = np.append(self._arm, numbers[mask])
        control = np.append(self._control, numbers[~mask])
        pairs = min(arm.size, control.size)
        self._arm, self._control = arm[pairs:], control[pairs:]
        differences: NDArray[np.float64] = (arm[:pairs] - control[:pairs]) / math.sqrt(2.0)
        return differences

    @property
    def waiting(self) -> int:
        """Number of scores without a partner so far."""
        return self._arm.size + self._control.size
