# SPDX-License-Identifier: Apache-2.0
"""Rows and parameters that are hard to select from, for tests of :class:`Selector` classes."""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np

from qr_sampler.arrays import FloatArray, Logits
from qr_sampler.settings import SamplingParameters

__all__ = ["LOGIT_KINDS", "random_logits", "random_parameters", "random_temperatures"]

T = TypeVar("T")

LOGIT_KINDS: Final = (
    "adjacent",
    "bfloat16",
    "denormal",
    "flat",
    "huge",
    "language model",
    "masked",
    "near the grid",
    "normal",
    "one survivor",
    "peaked",
    "signed zeros",
    "ties",
    "uniform",
)
"""What :func:`random_logits` can make."""

_GRID_EDGES: Final = (0.0, -24.26, -24.95, -24.9533, -24.96, -8.3177, -8.32)
"""exp() of them lies around 2**-36, where a mass becomes zero, and around 2**-12 and 2**-35."""

_DENORMAL_EDGES: Final = (0.0, -87.0, -87.4, -100.0, -103.9, -104.1, -700.0, -1e3, -1e30)
"""exp() of them lies around the smallest normal and the smallest denormal float32."""


def random_logits(rng: np.random.Generator, kind: str, vocab_size: int) -> Logits:
    """Returns one row of logits with a finite maximum.

    Args:
        rng: Where the randomness comes from.
        kind: One of :data:`LOGIT_KINDS`.
        vocab_size: Number of tokens V.

    Returns:
        Shape ``(V,)``, float32.
    """
    if kind in ("masked", "one survivor"):
        return _masked(rng, vocab_size, 0.7 if kind == "masked" else 1.0)
    row = _values(rng, kind, vocab_size).astype(np.float32)
    if kind in ("bfloat16", "language model") and rng.random() < 0.7:
        # A bfloat16 is the upper half of a float32.
        row = (row.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return row


def _values(rng: np.random.Generator, kind: str, vocab_size: int) -> FloatArray:
    normal: FloatArray = rng.normal(0.0, rng.choice([1.0, 4.0]), vocab_size)
    if kind == "adjacent":
        return _adjacent(rng, vocab_size)
    if kind == "flat":
        return normal * 1e-6
    if kind == "huge":
        return rng.choice([3e38, -3e38, 1e30, 0.0, -1e30], vocab_size)
    if kind == "language model":
        return _zipf(rng, vocab_size)
    if kind == "peaked":
        normal[rng.integers(vocab_size)] += rng.choice([10.0, 24.0, 25.0, 200.0])
    if kind == "ties":
        return rng.integers(-2, 3, vocab_size).astype(np.float64)
    if kind == "uniform":
        return np.full(vocab_size, rng.normal())
    edges = {
        "denormal": _DENORMAL_EDGES,
        "near the grid": _GRID_EDGES,
        "signed zeros": (0.0, -0.0, -1.0),
    }
    return rng.choice(np.array(edges[kind]), vocab_size) if kind in edges else normal


def _adjacent(rng: np.random.Generator, vocab_size: int) -> FloatArray:
    """Returns two neighbouring float32 numbers in random order."""
    pair = np.array([1.0, np.nextafter(np.float32(1.0), np.float32(2.0))])
    return rng.choice(pair, vocab_size)


def _zipf(rng: np.random.Generator, vocab_size: int) -> FloatArray:
    """Returns logits that fall with the logarithm of a rank, with noise, in random order."""
    ranks = rng.permutation(vocab_size) + rng.uniform(1.0, 4.0)
    logits: FloatArray = 20.0 - rng.uniform(1.0, 2.5) * np.log(ranks)
    return logits + rng.normal(0.0, 0.3, vocab_size)


def _masked(rng: np.random.Generator, vocab_size: int, share: float) -> Logits:
    row: Logits = rng.normal(0.0, 4.0, vocab_size).astype(np.float32)
    row[rng.random(vocab_size) < share] = -np.inf
    row[rng.integers(vocab_size)] = 0.5
    return row


def random_parameters(rng: np.random.Generator, vocab_size: int) -> SamplingParameters:
    """Returns a random combination of filters, each of them off in half of the cases or more.

    Args:
        rng: Where the randomness comes from.
        vocab_size: Number of tokens V.
    """

    def maybe(value: T, off: T, chance: float = 0.5) -> T:
        return value if rng.random() < chance else off

    few, many = int(rng.integers(1, 61)), int(rng.integers(1, 2 * vocab_size + 1))
    sigmas = [3.0 * rng.random(), 1.0, 1e-6, 1e6]
    ratios = [rng.random(), rng.random() ** 8, 1.0, 1e-12, 0.5]
    shares = [1.0 - rng.random(), 1e-300, 0.5, 1.0 - 2**-53]
    filters = {
        "top_n_sigma": maybe(float(rng.choice(sigmas)), 0.0, 0.3),
        "top_k": maybe(maybe(few, many), maybe(0, -1)),
        "min_p": maybe(float(rng.choice(ratios)), 0.0),
        "top_p": maybe(float(rng.choice(shares)), 1.0),
        "typical_p": maybe(float(rng.choice(shares)), 1.0, 0.25),
        "truncate_first": bool(rng.random() < 0.5),
    }
    return SamplingParameters.model_validate(filters)


def random_temperatures(rng: np.random.Generator, count: int) -> FloatArray:
    """Returns temperatures from 0.001 to 1000, usual and extreme ones among them.

    Args:
        rng: Where the randomness comes from.
        count: How many.

    Returns:
        Shape ``(count,)``.
    """
    spread = 10.0 ** np.where(
        rng.random(count) < 0.5, rng.uniform(-3.0, 3.0, count), rng.uniform(-0.5, 0.5, count)
    )
    usual = rng.choice([1e-3, 0.7, 1.0, 1.0, 2.0, 1e3], count)
    return np.where(rng.random(count) < 0.4, usual, spread)
