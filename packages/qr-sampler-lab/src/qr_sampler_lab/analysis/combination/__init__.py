# SPDX-License-Identifier: Apache-2.0
"""Many sessions, sources, tests and selections: what they say together, and how firmly."""

from __future__ import annotations

from qr_sampler_lab.analysis.combination.discards import discards_test
from qr_sampler_lab.analysis.combination.funnel import FunnelData, Session, funnel
from qr_sampler_lab.analysis.combination.multiplicity import benjamini_hochberg, holm
from qr_sampler_lab.analysis.combination.network import NetworkVariance
from qr_sampler_lab.analysis.combination.sensitivity import Sensitivity
from qr_sampler_lab.analysis.combination.stouffer import stouffer

__all__ = [
    "FunnelData",
    "NetworkVariance",
    "Sensitivity",
    "Session",
    "benjamini_hochberg",
    "discards_test",
    "funnel",
    "holm",
    "stouffer",
]
