# SPDX-License-Identifier: Apache-2.0
"""Is the mean where it ought to be, and where the mean of another arm is?"""

from __future__ import annotations

from qr_sampler_lab.analysis.location.means import (
    UNIFORM_DEVIATION,
    UNIFORM_MEAN,
    difference_test,
    mean_test,
    uniform_mean_test,
)
from qr_sampler_lab.analysis.location.moments import Moments

__all__ = [
    "UNIFORM_DEVIATION",
    "UNIFORM_MEAN",
    "Moments",
    "difference_test",
    "mean_test",
    "uniform_mean_test",
]
