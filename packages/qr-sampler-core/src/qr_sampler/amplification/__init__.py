# SPDX-License-Identifier: Apache-2.0
"""Signal amplifiers: from a block of bytes to one uniform number."""

from __future__ import annotations

from qr_sampler.amplification.base import U_MAX, U_MIN, AmplificationResult, SignalAmplifier
from qr_sampler.amplification.baseline import Baseline
from qr_sampler.amplification.baseline.measurement import BaselineMeasurement, measure_baseline
from qr_sampler.amplification.bits import BitZScoreAmplifier
from qr_sampler.amplification.byte_sums import BlockCounts
from qr_sampler.amplification.control import Uniform53Amplifier
from qr_sampler.amplification.ecdf import ECDFAmplifier
from qr_sampler.amplification.exact import ExactBitsAmplifier, ExactSumAmplifier
from qr_sampler.amplification.resolution import Resolution
from qr_sampler.amplification.walk import RandomWalkAmplifier
from qr_sampler.amplification.zscore import ZScoreMeanAmplifier

__all__ = [
    "U_MAX",
    "U_MIN",
    "AmplificationResult",
    "Baseline",
    "BaselineMeasurement",
    "BitZScoreAmplifier",
    "BlockCounts",
    "ECDFAmplifier",
    "ExactBitsAmplifier",
    "ExactSumAmplifier",
    "RandomWalkAmplifier",
    "Resolution",
    "SignalAmplifier",
    "Uniform53Amplifier",
    "ZScoreMeanAmplifier",
    "measure_baseline",
]
