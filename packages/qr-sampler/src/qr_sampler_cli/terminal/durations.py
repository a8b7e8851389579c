# SPDX-License-Identifier: Apache-2.0
"""Human-readable lengths of time."""

from __future__ import annotations

import math

__all__ = ["duration"]


def duration(seconds: float) -> str:
    """Returns *seconds* in its two largest nonzero units, rounded up.

    Examples:
        >>> duration(0.2), duration(61), duration(5400), duration(90_000)
        ('1 s', '1 min 1 s', '1 h 30 min', '1 d 1 h')
    """
    left = max(1, math.ceil(seconds))
    parts = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])
