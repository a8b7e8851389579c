# SPDX-License-Identifier: Apache-2.0
"""Probability distributions on the byte values 0..255."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from qr_sampler.settings import BYTE_MEAN

__all__ = ["tilted_byte_law"]

_VALUES: Final = np.arange(256, dtype=np.float64)

_STEEPEST_TILT: Final = 750.0
"""Beyond it exp(-tilt) is zero in float64, so no mean in (0, 255) needs a steeper one."""

_BISECTIONS: Final = 200
"""Enough to shrink the bracket from 1500 to below any float64 spacing that moves the mean."""


def tilted_byte_law(mean: float) -> npt.NDArray[np.float64]:
    """Returns the distribution on 0..255 of this mean that is otherwise as uniform as possible.

    It is ``p(k) = exp(t*k) / sum_j exp(t*j)`` with the tilt ``t`` solved for the mean: of all
    distributions with that mean, the one of largest entropy and the closest to uniform in
    Kullback-Leibler divergence (Jaynes 1957; Csiszar 1975). ``mean=127.5`` gives ``t = 0``, exactly
    1/256 each.

    Args:
        mean: Expected byte value, in the open interval (0, 255).

    Returns:
        Shape ``(256,)``, float64, sums to 1 up to rounding.

    Raises:
        ValueError: When *mean* lies outside the interval.

    Examples:
        >>> law = tilted_byte_law(130.0)
        >>> round(float(law @ range(256)), 9)
        130.0
    """
    if not 0.0 < mean < 255.0:
        raise ValueError(f"mean={mean!r} must lie strictly between 0 and 255")
    if mean == BYTE_MEAN:
        return np.full(256, 1 / 256)
    low, high = -_STEEPEST_TILT, _STEEPEST_TILT
    for _ in range(_BISECTIONS):
        tilt = (low + high) / 2
        if float(_law(tilt) @ _VALUES) < mean:
            low = tilt
        else:
            high = tilt
    return _law((low + high) / 2)


def _law(tilt: float) -> npt.NDArray[np.float64]:
    exponents = tilt * _VALUES
    weights = np.exp(exponents - exponents.max())
    law: npt.NDArray[np.float64] = weights / weights.sum()
    return law
