# SPDX-License-Identifier: Apache-2.0
"""Evidence that may be looked at after every token: e-processes and boundaries that hold always."""

from __future__ import annotations

from qr_sampler_lab.analysis.anytime.boundaries import (
    fixed_boundary,
    smallest_tau_width,
    ville_boundary,
)
from qr_sampler_lab.analysis.anytime.e_process import EProcess, EProcessResult, log_e_values
from qr_sampler_lab.analysis.anytime.pairs import PairedStreams

__all__ = [
    "EProcess",
    "EProcessResult",
    "PairedStreams",
    "fixed_boundary",
    "log_e_values",
    "smallest_tau_width",
    "ville_boundary",
]
