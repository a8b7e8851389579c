# SPDX-License-Identifier: Apache-2.0
"""Temperature strategies: how flat the distribution of one token is made."""

from __future__ import annotations

from qr_sampler.running_mean import RunningMean
from qr_sampler.temperature.base import (
    STATISTICS_STEP,
    LogitStatistics,
    TemperatureResult,
    TemperatureStrategy,
    rounded,
)
from qr_sampler.temperature.dynatemp import DynatempTemperatureStrategy
from qr_sampler.temperature.edt import EDTTemperatureStrategy
from qr_sampler.temperature.edt_paper import EDTPaperTemperatureStrategy
from qr_sampler.temperature.fixed import FixedTemperatureStrategy
from qr_sampler.temperature.varentropy import VarentropyTemperatureStrategy

__all__ = [
    "STATISTICS_STEP",
    "DynatempTemperatureStrategy",
    "EDTPaperTemperatureStrategy",
    "EDTTemperatureStrategy",
    "FixedTemperatureStrategy",
    "LogitStatistics",
    "RunningMean",
    "TemperatureResult",
    "TemperatureStrategy",
    "VarentropyTemperatureStrategy",
    "rounded",
]
