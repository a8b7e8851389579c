# SPDX-License-Identifier: Apache-2.0
"""Rewrites logits so that whatever chooses from them chooses a certain token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from qr_sampler_local.loop.arrays import is_mlx, is_torch

__all__ = ["force_tokens"]


def force_tokens(logits: Any, token_ids: Sequence[int]) -> Any:
    """Returns *logits* with each row 0 at its token and -inf elsewhere.

    Every way of choosing takes that token then: the most probable one, or a draw from the
    distribution, at any temperature and behind any filter that keeps a token.

    Args:
        logits: Shape ``(B, V)``, a NumPy array or a torch tensor, modified in place, or an MLX
            array.
        token_ids: One for each row; rows of a negative one are left as they are.

    Returns:
        *logits*, or another MLX array.
    """
    lines = [line for line, token_id in enumerate(token_ids) if token_id >= 0]
    chosen = [token_ids[line] for line in lines]
    if is_mlx(logits):
        return _forced_mlx(logits, lines, chosen)
    if is_torch(logits) and logits.device.type != "cpu":
        import torch

        rows = torch.as_tensor(lines, device=logits.device)
        logits[rows] = -math.inf
        logits[rows, torch.as_tensor(chosen, device=logits.device)] = 0.0
        return logits
    for line, token_id in zip(lines, chosen, strict=True):
        logits[line] = -math.inf
        logits[line, token_id] = 0.0
    return logits


def _forced_mlx(logits: Any, lines: list[int], token_ids: list[int]) -> Any:
    import mlx.core as mx

    rows, vocab_size = logits.shape
    forced = np.zeros((rows, 1), dtype=bool)
    forced[lines] = True
    wanted = np.full((rows, 1), -1, dtype=np.int32)
    wanted[lines, 0] = token_ids
    here = mx.arange(vocab_size).reshape(1, -1) == mx.array(wanted)
    alone = mx.where(here, mx.array(0.0, logits.dtype), mx.array(-math.inf, logits.dtype))
    return mx.where(mx.array(forced), alone, logits)
