# SPDX-License-Identifier: Apache-2.0
"""Entropy-based dynamic temperature as its authors published it."""

from __future__ import annotations

import math
from typing import ClassVar, Final

import numpy as np

from qr_sampler.arrays import FloatArray
from qr_sampler.rows import Rows
from qr_sampler.settings.temperature_parameters import MAX_TEMPERATURE, MIN_TEMPERATURE
from qr_sampler.temperature.base import LogitStatistics, TemperatureStrategy

__all__ = ["EDTPaperTemperatureStrategy"]

_LOWEST_EXPONENT: Final = math.log(MIN_TEMPERATURE / MAX_TEMPERATURE) - 1.0
"""exp of this takes every permitted temperature below the lowest one."""


class EDTPaperTemperatureStrategy(TemperatureStrategy):
    """Raises the temperature where the model is undecided, towards a bound.

    T = clip(T0 * N ** (theta / H), edt_min_temp, edt_max_temp), where T0, N and theta are the
    settings ``edt_paper_base_temp``, ``edt_paper_n`` and ``edt_paper_theta``, and H is the Shannon
    entropy in nats, not normalised by the vocabulary. Before clipping, T grows with H from 0
    towards T0. At H = 0 the limit is taken: 0, or T0 if N = 1 or theta = 0.

    Source: Zhang, Bao and Huang (2024), "EDT: Improving Large Language Models' Generation by
    Entropy-based Dynamic Temperature Sampling", arXiv:2403.14541, where N = 0.8; the range is ours.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"entropy_nats"})

    def temperatures(self, statistics: LogitStatistics, rows: Rows) -> FloatArray:
        """Returns the entropy-dependent temperatures. Shape ``(B,)``."""
        theta, logarithm = rows.column("edt_paper_theta"), np.log(rows.column("edt_paper_n"))
        # Of the factors, since their product can be rounded to 0.
        limit = np.where((theta > 0.0) & (logarithm < 0.0), _LOWEST_EXPONENT, 0.0)
        exponent = _quotient(theta * logarithm, statistics.entropy_nats, limit)
        raw = rows.column("edt_paper_base_temp") * np.exp(exponent)
        temperatures: FloatArray = np.clip(
            raw, rows.column("edt_min_temp"), rows.column("edt_max_temp")
        )
        return temperatures


def _quotient(decay: FloatArray, entropy: FloatArray, limit: FloatArray) -> FloatArray:
    """Returns decay / entropy where it is above ``_LOWEST_EXPONENT``, and *limit* elsewhere.

    Other quotients are never computed, so a tiny entropy cannot overflow.
    """
    above = decay > _LOWEST_EXPONENT * entropy
    quotient: FloatArray = np.divide(decay, entropy, out=limit, where=above)
    return quotient
