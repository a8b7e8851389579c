# SPDX-License-Identifier: Apache-2.0
"""Logits like those of language models, seeded: typical, peaked and flat rows.

A typical or peaked row is a Gaussian bulk and, above it, a head that falls off as a power of the
rank. The exponent is solved for, so that the row has the entropy that was asked for.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["KINDS", "VOCAB_SIZE", "LogitSet", "entropy_range", "logit_set"]

VOCAB_SIZE: Final = 151_936
"""Vocabulary of the Qwen 2 and Qwen 3 models."""

KINDS: Final[dict[str, tuple[float, float] | None]] = {
    "typical": (2.2, 2.5),
    "peaked": (0.5, 0.9),
    "flat": None,
}
"""Range of the entropy at temperature 1, in nats; ``None`` for standard normal logits."""

SEED: Final = 20_261
HEAD_TOKENS: Final = 1_024
TOP: Final = 20.0
"""The largest logit of a head; its bulk has the standard deviation BULK_DEVIATION around 0."""
BULK_DEVIATION: Final = 2.0
JITTER: Final = 0.3
"""Standard deviation that is added to the logarithm of each rank."""
STEEPNESS: Final = (0.2, 12.0)
BISECTIONS: Final = 40


@dataclass(frozen=True, slots=True)
class LogitSet:
    """Rows of one kind."""

    name: str
    """Kind and precision."""
    rows: Any
    """Tensor of shape ``(N, V)``, float32 on the CPU."""


def logit_set(kind: str, precision: str, count: int, vocab_size: int = VOCAB_SIZE) -> LogitSet:
    """Returns *count* rows, the same ones for the same arguments.

    Args:
        kind: One of KINDS.
        precision: ``"float32"``, or ``"bfloat16"`` for rows that were rounded to it, as those of
            most models are. vLLM hands them to its sampler as float32 either way.
        count: Number of rows.
        vocab_size: Number of tokens, more than HEAD_TOKENS.
    """
    rng = np.random.default_rng([SEED, zlib.crc32(kind.encode()), vocab_size])
    rows = torch.from_numpy(np.stack([_row(KINDS[kind], vocab_size, rng) for _ in range(count)]))
    if precision == "bfloat16":
        rows = rows.to(torch.bfloat16).to(torch.float32)
    return LogitSet(f"{kind}, {precision}", rows)


def entropy_range(rows: Any) -> tuple[float, float]:
    """Returns the smallest and the largest entropy of *rows* at temperature 1, in nats."""
    entropies = [_entropy(row.numpy().astype(np.float64)) for row in rows]
    return min(entropies), max(entropies)


def _row(
    entropies: tuple[float, float] | None, vocab_size: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    if entropies is None:
        return rng.standard_normal(vocab_size, dtype=np.float32)
    bulk = BULK_DEVIATION * rng.standard_normal(vocab_size - HEAD_TOKENS)
    ranks = np.log(np.arange(1, HEAD_TOKENS + 1))
    ranks[1:] += JITTER * rng.standard_normal(HEAD_TOKENS - 1)
    steepness = _steepness(bulk, ranks, rng.uniform(*entropies))
    row = np.concatenate([TOP - steepness * ranks, bulk]).astype(np.float32)
    rng.shuffle(row)
    return row


def _steepness(bulk: NDArray[np.float64], ranks: NDArray[np.float64], entropy_nats: float) -> float:
    """Returns the exponent that gives a row its entropy; a steeper head has less of it."""
    masses = np.exp(bulk - TOP)
    bulk_total, bulk_product = masses.sum(), masses @ (bulk - TOP)
    low, high = STEEPNESS
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        exponents = -middle * ranks
        head = np.exp(exponents)
        total = bulk_total + head.sum()
        product = bulk_product + head @ exponents
        if np.log(total) - product / total > entropy_nats:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _entropy(row: NDArray[np.float64]) -> float:
    """H = ln S - A / S with S = sum(exp(d)), A = sum(d exp(d)) and d the distance to the top."""
    exponents = row - row.max()
    weights = np.exp(exponents)
    total = weights.sum()
    return float(np.log(total) - weights @ exponents / total)
