# SPDX-License-Identifier: Apache-2.0
"""Entropy-based dynamic temperature."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from qr_sampler.arrays import FloatArray
from qr_sampler.rows import Rows
from qr_sampler.temperature.base import LogitStatistics, TemperatureStrategy

__all__ = ["EDTTemperatureStrategy"]


class EDTTemperatureStrategy(TemperatureStrategy):
    """Raises the temperature where the model is undecided.

    T = clip(edt_base_temp * (H / ln V) ** edt_exponent, edt_min_temp, edt_max_temp), where H is the
    Shannon entropy in nats and V the vocabulary size. With V = 1 the normalised entropy is 0, and
    0 ** 0 is 1: an exponent of 0 switches the dependence on entropy off.

    The name comes from Zhang et al. (2024), whose own formula is the strategy ``edt_paper``.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"entropy_nats"})

    def temperatures(self, statistics: LogitStatistics, rows: Rows) -> FloatArray:
        """Returns the entropy-dependent temperatures. Shape ``(B,)``."""
        flatness = statistics.normalised_entropy ** rows.column("edt_exponent")
        raw = rows.column("edt_base_temp") * flatness
        temperatures: FloatArray = np.clip(
            raw, rows.column("edt_min_temp"), rows.column("edt_max_temp")
        )
        return temperatures
