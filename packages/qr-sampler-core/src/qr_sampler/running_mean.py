# SPDX-License-Identifier: Apache-2.0
"""What a request remembers of the entropy of its tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["RunningMean"]


@dataclass(slots=True)
class RunningMean:
    """An exponentially weighted mean: m <- m + rate * (x - m), and m = x for the first value.

    A value that was observed n values ago has the weight rate * (1 - rate) ** n, the first one
    (1 - rate) ** n. The mean of the same values in the same order is the same to the last bit.

    Source: Roberts (1959), "Control chart tests based on geometric moving averages",
    Technometrics 1(3), started at the first observation.

    Examples:
        >>> mean = RunningMean(rate=0.5)
        >>> for entropy_nats in (2.0, 1.0, 1.0):
        ...     mean.observe(entropy_nats)
        >>> mean.value
        1.25
    """

    rate: float
    """Weight of the newest value, in (0, 1]."""
    value: float = math.nan
    """The mean of the values so far; NaN before the first."""

    def observe(self, x: float) -> None:
        """Takes in the next value, which must be finite."""
        self.value = x if math.isnan(self.value) else self.value + self.rate * (x - self.value)
