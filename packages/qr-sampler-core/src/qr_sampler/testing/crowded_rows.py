# SPDX-License-Identifier: Apache-2.0
"""Rows whose tokens crowd: what selectors that narrow a row down step by step find hardest."""

from __future__ import annotations

from typing import Final

import numpy as np

from qr_sampler.arrays import Logits

__all__ = ["CROWDED_KINDS", "crowded_row"]

CROWDED_KINDS: Final = (
    "all but one masked",
    "all equal",
    "denormal",
    "half tied",
    "nested clusters",
    "periodic",
    "signed zeros",
    "small spread",
    "small spread, bfloat16",
    "two narrow plateaus",
    "two plateaus",
    "within one ulp",
)
"""What :func:`crowded_row` can make."""

_SMALLEST: Final = float(np.finfo(np.float32).smallest_subnormal)


def crowded_row(rng: np.random.Generator, kind: str, vocab_size: int) -> Logits:
    """Returns one row of logits with a finite maximum.

    Args:
        rng: Where the randomness comes from.
        kind: One of :data:`CROWDED_KINDS`.
        vocab_size: Number of tokens V.

    Returns:
        Shape ``(V,)``, float32.
    """
    shape, level = vocab_size, rng.normal()
    if kind == "all but one masked":
        row = np.full(shape, -np.inf)
        row[rng.integers(shape)] = level
    elif kind == "all equal":
        row = np.full(shape, level)
    elif kind == "denormal":
        row = _SMALLEST * rng.integers(-1_000, 1_000, shape)
    elif kind == "half tied":
        row = np.where(rng.random(shape) < 0.5, 0.0, rng.normal(-3.0, 1.0, shape))
    elif kind == "nested clusters":
        # Each cluster is 1,000 times as narrow as the one around it, down to denormal numbers.
        row = 10.0 ** -(3.0 * rng.integers(1, 15, shape)) * rng.normal(size=shape)
    elif kind == "periodic":
        row = -1e-3 * (np.arange(shape) % int(rng.integers(2, 600)))
    elif kind == "signed zeros":
        row = np.where(rng.random(shape) < 0.5, 0.0, -0.0)
    elif kind.startswith("small spread"):
        row = rng.normal(level if rng.random() < 0.5 else 0.0, 1e-5, shape)
    elif kind == "two narrow plateaus":
        row = np.where(rng.random(shape) < 0.5, 0.0, -4.0) + rng.normal(0.0, 1e-6, shape)
    elif kind == "two plateaus":
        row = np.where(rng.random(shape) < 0.5, 0.0, -4.0)
    else:
        one = np.float32(1.0 + rng.random())
        row = np.where(rng.random(shape) < 0.5, one, np.nextafter(one, np.float32(9.0)))
    logits: Logits = row.astype(np.float32)
    if kind.endswith("bfloat16"):
        logits = (logits.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return logits
