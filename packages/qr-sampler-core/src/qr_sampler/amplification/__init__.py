# SPDX-License-Identifier: Apache-2.0
"""Signal amplifiers: from a block of bytes to one uniform number."""

from __future__ import annotations

from qr_sampler.amplification.base import U_MAX, U_MIN, AmplificationResult, SignalAmplifier
from qr_sampler.amplification.zscore import ZScoreMeanAmplifier

__all__ = ["U_MAX", "U_MIN", "AmplificationResult", "SignalAmplifier", "ZScoreMeanAmplifier"]
