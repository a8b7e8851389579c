# SPDX-License-Identifier: Apache-2.0
"""What a device does when nothing is asked of it: measured, and frozen in a file."""

from __future__ import annotations

from qr_sampler.amplification.baseline.baseline import (
    Baseline,
    calibration_error,
    configured_baseline,
)
from qr_sampler.amplification.baseline.fingerprint import (
    AUTOCORRELATION_LAGS,
    LATENCY_SHARES,
    BaselineFingerprint,
    block_sum_autocorrelation,
    latency_quantiles_ms,
    plane_shares,
)
from qr_sampler.amplification.baseline.measurement import (
    BaselineMeasurement,
    measure_baseline,
)

__all__ = [
    "AUTOCORRELATION_LAGS",
    "LATENCY_SHARES",
    "Baseline",
    "BaselineFingerprint",
    "BaselineMeasurement",
    "block_sum_autocorrelation",
    "calibration_error",
    "configured_baseline",
    "latency_quantiles_ms",
    "measure_baseline",
    "plane_shares",
]
