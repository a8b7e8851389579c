# SPDX-License-Identifier: Apache-2.0
"""What a device does when nothing is asked of it: measured, and frozen in a file."""

from __future__ import annotations

from qr_sampler.amplification.baseline.baseline import (
    Baseline,
    calibration_error,
    configured_baseline,
)
from qr_sampler.amplification.baseline.measurement import (
    BaselineMeasurement,
    measure_baseline,
)

__all__ = [
    "Baseline",
    "BaselineMeasurement",
    "calibration_error",
    "configured_baseline",
    "measure_baseline",
]
