# SPDX-License-Identifier: Apache-2.0
"""The figures of John Walker's program ``ent``, by the same formulas."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from qr_sampler_cli.quality.pieces import byte_counts, pieces
from qr_sampler_cli.quality.tails import chi_square_tail

__all__ = ["EntFigures", "ent_figures"]

_RADIUS: Final = 2.0**24 - 1.0
"""Radius of the circle: a point has three bytes for each coordinate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntFigures:
    """What ``ent`` prints of a file."""

    size: int
    """Bytes of the sample."""
    entropy: float
    """Shannon entropy of the histogram in bits per byte."""
    chi_square: float
    """Of the histogram against the uniform one, with 255 degrees of freedom."""
    chi_square_p: float
    """Probability of a larger one."""
    mean: float
    """Mean byte, 127.5 for uniform ones."""
    pi: float
    """Estimate of pi by points of six bytes; NaN of fewer bytes."""
    serial_correlation: float
    """Of neighbouring bytes, the last and the first included; NaN for constant bytes, where ``ent``
    prints -100000."""


def ent_figures(data: npt.NDArray[np.uint8]) -> EntFigures:
    """Returns the figures of *data*.

    Args:
        data: Bytes, shape ``(n,)`` with n of at least 1.
    """
    counts = byte_counts(data)
    n = len(data)
    shares = counts[counts > 0] / n
    expected = n / 256.0
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    return EntFigures(
        size=n,
        entropy=max(0.0, -float((shares * np.log2(shares)).sum())),
        chi_square=chi_square,
        chi_square_p=chi_square_tail(chi_square, 255),
        mean=float(counts @ np.arange(256)) / n,
        pi=_pi(data),
        serial_correlation=_serial_correlation(data, counts),
    )


def _pi(data: npt.NDArray[np.uint8]) -> float:
    """Returns four times the share of points in the quarter circle."""
    points = len(data) // 6
    if not points:
        return math.nan
    inside = 0
    for piece, _ in pieces(data[: 6 * points]):
        coordinates = piece.reshape(-1, 2, 3).astype(np.float64)
        xy = coordinates @ np.array([65_536.0, 256.0, 1.0])
        # The squares are whole numbers below 2**49 and exact.
        inside += int(np.count_nonzero((xy**2).sum(axis=1) <= _RADIUS**2))
    return 4.0 * inside / points


def _serial_correlation(data: npt.NDArray[np.uint8], counts: npt.NDArray[np.int64]) -> float:
    """Returns the circular coefficient of Knuth, The Art of Computer Programming 2, 3.3.2 K."""
    values = np.arange(256)
    n, total, squares = len(data), int(counts @ values), int(counts @ values**2)
    products = int(data[-1]) * int(data[0])
    for _, piece in pieces(data, ahead=1):
        wide = piece.astype(np.int64)
        products += int(wide[:-1] @ wide[1:])
    spread = n * squares - total * total
    return (n * products - total * total) / spread if spread else math.nan
