# SPDX-License-Identifier: Apache-2.0
"""Sampling for whatever loop computes logits.

* :class:`LocalSampler` chooses the tokens of a step and keeps their records.
* :class:`LocalSequence` is one text in the making.
* :func:`force_tokens` rewrites logits for an engine that insists on choosing itself.
"""

from __future__ import annotations

from qr_sampler_local.loop.forcing import force_tokens
from qr_sampler_local.loop.sampler import LocalSampler
from qr_sampler_local.loop.sequence import LEFT_TO_CALLER, LocalSequence

__all__ = ["LEFT_TO_CALLER", "LocalSampler", "LocalSequence", "force_tokens"]
