# SPDX-License-Identifier: Apache-2.0
"""How proposers learn from a model: distillation, fine-tuning for acceptance, evaluation."""

from __future__ import annotations

from qr_sampler_tsd.train.acceptance import fine_tune_acceptance, rejection
from qr_sampler_tsd.train.distillation import BigramDistiller, cross_entropy, distil_head
from qr_sampler_tsd.train.evaluation import Evaluation, evaluate, overlap_mass
from qr_sampler_tsd.train.examples import Examples
from qr_sampler_tsd.train.fitting import FitSettings, fit_head, head_gradients

__all__ = [
    "BigramDistiller",
    "Evaluation",
    "Examples",
    "FitSettings",
    "cross_entropy",
    "distil_head",
    "evaluate",
    "fine_tune_acceptance",
    "fit_head",
    "head_gradients",
    "overlap_mass",
    "rejection",
]
