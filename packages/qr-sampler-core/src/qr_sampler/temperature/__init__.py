# SPDX-License-Identifier: Apache-2.0
"""Temperature strategies: how flat the distribution of one token is made."""

from __future__ import annotations

from qr_sampler.temperature.base import (
    LogitStatistics,
    TemperatureResult,
    TemperatureStrategy,
    shannon_entropy_nats,
)
from qr_sampler.temperature.edt import EDTTemperatureStrategy
from qr_sampler.temperature.fixed import FixedTemperatureStrategy

__all__ = [
    "EDTTemperatureStrategy",
    "FixedTemperatureStrategy",
    "LogitStatistics",
    "TemperatureResult",
    "TemperatureStrategy",
    "shannon_entropy_nats",
]
