# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning for what counts: the probability that a draft token is accepted, sum of min(p, q).

A proposer that is too small to match the target has to choose which errors to make. Cross entropy
punishes most what it calls improbable and should not; acceptance asks only how much mass is shared.
The loss is the total variation distance, 1 - sum min(p, q), which Zhou et al. 2024 (DistillSpec,
arXiv 2310.08461) distil with, and which Samarin et al. 2026 (arXiv 2602.23881) compare with others
that act on acceptance. Its derivative vanishes where p and q share nothing, so it is for a head
that cross entropy has brought near.
"""

from __future__ import annotations

import numpy as np

from qr_sampler_tsd._typing import SingleArray
from qr_sampler_tsd.proposers.head import HeadWeights, softmax
from qr_sampler_tsd.train.examples import Examples
from qr_sampler_tsd.train.fitting import FitSettings, Progress, fit_head

__all__ = ["fine_tune_acceptance", "rejection"]


def rejection(logits: SingleArray, targets: SingleArray) -> tuple[SingleArray, SingleArray]:
    """Returns ``1 - sum min(p, q)`` with q = softmax(logits), and a subgradient.

    With A the tokens where q < p, the derivative by logit j is ``q_j (sum of q over A - [j in A])``
    where no p equals its q.

    Args:
        logits: Shape ``(B, V)``, natural-log units.
        targets: Shape ``(B, V)``: p.
    """
    q = softmax(logits)
    short = q < targets
    shared: SingleArray = np.minimum(q, targets).sum(axis=1)
    held = np.sum(q * short, axis=1, keepdims=True)
    return 1 - shared, q * (held - short)


def fine_tune_acceptance(
    weights: HeadWeights,
    examples: Examples,
    *,
    settings: FitSettings,
    progress: Progress | None = None,
) -> HeadWeights:
    """Returns weights with a higher mean acceptance on *examples*.

    It is that of the head's own distribution q; a payload keeps K tokens of it and evens out the
    others.

    Args:
        weights: Of a distilled head.
        examples: What to learn from.
        settings: How long and how fast; a rate below that of the distillation is usual.
        progress: Told the mean probability of rejection of every step.

    Raises:
        ProposerError: When examples and weights do not fit.
    """
    return fit_head(weights, examples, rejection, settings, progress)
