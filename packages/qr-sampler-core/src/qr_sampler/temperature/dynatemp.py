# SPDX-License-Identifier: Apache-2.0
"""Dynamic temperature as local inference engines know it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from qr_sampler.arrays import FloatArray
from qr_sampler.rows import Rows
from qr_sampler.temperature.base import LogitStatistics, TemperatureStrategy

__all__ = ["DynatempTemperatureStrategy"]


class DynatempTemperatureStrategy(TemperatureStrategy):
    """Maps the normalised entropy onto a range of temperatures.

    T = min + (max - min) * (H / ln V) ** exponent, where min, max and exponent are the settings
    ``dynatemp_*``, H is the Shannon entropy in nats and V the vocabulary size. With V = 1 the
    normalised entropy is 0.

    Source: dynamic temperature of KoboldCpp and llama.cpp (``llama_sampler_init_temp_ext``). They
    divide by ln of the number of candidates that earlier filters have left; here the entropy is
    that of the whole distribution, and so is the divisor. Equal settings agree where no filter
    precedes theirs. Their ``dynatemp_range`` r around a temperature t is min = t - r, max = t + r.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"entropy_nats"})

    def temperatures(self, statistics: LogitStatistics, rows: Rows) -> FloatArray:
        """Returns the entropy-dependent temperatures. Shape ``(B,)``."""
        low, high = rows.column("dynatemp_min_temp"), rows.column("dynatemp_max_temp")
        flatness = statistics.normalised_entropy ** rows.column("dynatemp_exponent")
        # The sum may be rounded to just above its largest value.
        temperatures: FloatArray = np.minimum(low + (high - low) * flatness, high)
        return temperatures
