# SPDX-License-Identifier: Apache-2.0
"""Sampling for the loops of MLX-LM.

:class:`MLXSampler` chooses the tokens of ``generate``, ``stream_generate``, ``generate_step`` and
``BatchGenerator``; :class:`MLXSequence` is one text of theirs.
"""

from __future__ import annotations

from qr_sampler_local.mlx.sampler import MLXSampler
from qr_sampler_local.mlx.sequence import MLXSequence

__all__ = ["MLXSampler", "MLXSequence"]
