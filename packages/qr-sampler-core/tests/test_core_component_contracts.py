# SPDX-License-Identifier: Apache-2.0
"""Our amplifiers and strategies fulfil the contracts that those of other projects have to."""

from __future__ import annotations

import pytest

from qr_sampler import (
    AMPLIFIERS,
    TEMPERATURE_STRATEGIES,
    Settings,
    SignalAmplifier,
    TemperatureStrategy,
)
from qr_sampler.testing import AmplifierContract, TemperatureStrategyContract


class TestAmplifiers(AmplifierContract):
    @pytest.fixture(
        params=["bit_zscore", "exact_bits", "exact_sum", "random_walk", "uniform53", "zscore_mean"]
    )
    def amplifier(self, request: pytest.FixtureRequest) -> SignalAmplifier:
        return AMPLIFIERS.load(request.param).from_settings(Settings.load())


class TestServerAmplifier(AmplifierContract):
    block_bytes = 8

    @pytest.fixture
    def amplifier(self) -> SignalAmplifier:
        return AMPLIFIERS.load("server")()


class TestStrategies(TemperatureStrategyContract):
    @pytest.fixture(params=["dynatemp", "edt", "edt_paper", "fixed", "varentropy"])
    def strategy(self, request: pytest.FixtureRequest) -> TemperatureStrategy:
        return TEMPERATURE_STRATEGIES.load(request.param)()
