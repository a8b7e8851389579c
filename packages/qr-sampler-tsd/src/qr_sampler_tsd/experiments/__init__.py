# SPDX-License-Identifier: Apache-2.0
"""The milestones as experiments: does the text follow the target, and how fast.

:func:`run_m0` and :func:`run_m1` run one, :func:`sweep` runs a grid of them.
"""

from __future__ import annotations

from qr_sampler_tsd.experiments.evidence import ChiSquare, context_chi_square
from qr_sampler_tsd.experiments.m0 import M0Settings, run_m0
from qr_sampler_tsd.experiments.m1 import M1Settings, run_m1
from qr_sampler_tsd.experiments.results import ExperimentResult
from qr_sampler_tsd.experiments.runner import Equipment
from qr_sampler_tsd.experiments.settings import ExperimentSettings, Verifier
from qr_sampler_tsd.experiments.sweep import sweep

__all__ = [
    "ChiSquare",
    "Equipment",
    "ExperimentResult",
    "ExperimentSettings",
    "M0Settings",
    "M1Settings",
    "Verifier",
    "context_chi_square",
    "run_m0",
    "run_m1",
    "sweep",
]
