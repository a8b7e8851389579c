# SPDX-License-Identifier: Apache-2.0
"""Tests of one draw by itself, defined here as section 4.5 of NIST SP 800-90B allows."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["SHORTEST_DRAW", "bit_plane_shares", "most_frequent_difference", "plane_tolerance"]

SHORTEST_DRAW: Final = 512
"""Draws of fewer bytes are not tested one by one."""

PLANE_SLACK: Final = 0.03
"""How far a share of ones may be off for good: a hundred times what an experiment looks for."""

_BITS: Final = np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1).astype(np.int64)
"""The bits of every byte, the highest first; shape (256, 8)."""


def bit_plane_shares(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Returns the share of ones at each of the eight places of a byte, the highest first.

    Args:
        data: Bytes of one draw, shape ``(n,)`` with n of at least 1.
    """
    return np.bincount(data, minlength=256) @ _BITS / len(data)


def plane_tolerance(n: int, standard_errors: float) -> float:
    """Returns how far a share of ones among *n* bits may be off: 0.03 + z / (2 sqrt(n)).

    Beyond it, by Hoeffding's inequality, a plane of independent bits is off with a probability of
    at most 2 exp(-2 n t**2) < 2 exp(-z**2 / 2).
    """
    return PLANE_SLACK + standard_errors / (2.0 * float(np.sqrt(n)))


def most_frequent_difference(data: npt.NDArray[np.uint8]) -> int:
    """Returns how often the most frequent difference of neighbours, modulo 256, occurs.

    A counter and a ramp have one difference only. The differences of independent uniform bytes are
    independent and uniform themselves.

    Args:
        data: Bytes of one draw, shape ``(n,)`` with n of at least 2.
    """
    return int(np.bincount(data[1:] - data[:-1]).max())
