# SPDX-License-Identifier: Apache-2.0
"""What configures a deployment, and where the values come from."""

from __future__ import annotations

from qr_sampler.settings.environment import EnvironmentSettings
from qr_sampler.settings.models import (
    BYTE_MEAN,
    BYTE_STD,
    END_REQUEST,
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    RAISE_ERROR,
    SamplingParameters,
    Settings,
    describe_validation_error,
    public_name,
)

__all__ = [
    "BYTE_MEAN",
    "BYTE_STD",
    "END_REQUEST",
    "MAX_TEMPERATURE",
    "MIN_TEMPERATURE",
    "RAISE_ERROR",
    "EnvironmentSettings",
    "SamplingParameters",
    "Settings",
    "describe_validation_error",
    "public_name",
]
