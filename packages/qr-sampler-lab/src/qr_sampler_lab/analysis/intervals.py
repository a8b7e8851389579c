# SPDX-License-Identifier: Apache-2.0
"""Intervals of shares."""

from __future__ import annotations

import math

from scipy import special

from qr_sampler_lab.analysis.results import Interval

__all__ = ["wilson_interval"]


def wilson_interval(hits: int, n: int, level: float = 0.95) -> Interval:
    """Returns Wilson's score interval of a share (Probable inference, 1927).

    Examples:
        >>> interval = wilson_interval(5, 10)
        >>> round(interval.low, 4), round(interval.high, 4)
        (0.2366, 0.7634)
    """
    z = float(special.ndtri(0.5 + level / 2.0))
    share, room = hits / n, z**2 / n
    centre = (share + room / 2.0) / (1.0 + room)
    half = z * math.sqrt(share * (1.0 - share) / n + room / (4.0 * n)) / (1.0 + room)
    # Rounding would leave [0, 1] where no or all trials are hits.
    return Interval(low=max(0.0, centre - half), high=min(1.0, centre + half), level=level)
