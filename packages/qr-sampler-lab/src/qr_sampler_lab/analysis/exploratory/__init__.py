# SPDX-License-Identifier: Apache-2.0
"""What suggests hypotheses and tests none: every result here is labelled exploratory."""

from __future__ import annotations

from qr_sampler_lab.analysis.exploratory.change_of_evidence import (
    ChangeOfEvidence,
    change_of_evidence,
)
from qr_sampler_lab.analysis.exploratory.splits import SplitMeans
from qr_sampler_lab.analysis.exploratory.windows import WindowSensitivity, window_sensitivity

__all__ = [
    "ChangeOfEvidence",
    "SplitMeans",
    "WindowSensitivity",
    "change_of_evidence",
    "window_sensitivity",
]
