# SPDX-License-Identifier: Apache-2.0
"""M0, the target of a smoke test: a fixed distribution without context."""

from __future__ import annotations

import numpy as np

from qr_sampler_tsd._typing import FloatArray
from qr_sampler_tsd.errors import TargetError

__all__ = ["CategoricalTarget", "checked_size", "entropy", "make_p", "make_p_zipf"]


def make_p(vocab_size: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Returns p and log p of a distribution from the prior Dirichlet(1), by PCG64.

    Args:
        vocab_size: V.
        seed: Any integer from 0.

    Raises:
        TargetError: When *vocab_size* is below 1.
    """
    p = np.random.default_rng(seed).dirichlet(np.ones(checked_size(vocab_size)))
    return p, _log(p)


def make_p_zipf(
    vocab_size: int, alpha: float = 1.1, seed: int | None = None
) -> tuple[FloatArray, FloatArray]:
    """Returns p and log p of Zipf's law, p of rank r in proportion to r**-alpha.

    Args:
        vocab_size: V.
        alpha: Exponent, above 0.
        seed: Permutes the tokens by PCG64; without it token i has the rank i + 1.

    Raises:
        TargetError: When a value is out of range.
    """
    if not 0 < alpha < np.inf:
        raise TargetError(f"alpha={alpha} must be a finite number above 0")
    masses = np.arange(1, checked_size(vocab_size) + 1, dtype=np.float64) ** -alpha
    p = masses / masses.sum()
    if seed is not None:
        p = np.random.default_rng(seed).permutation(p)
    return p, _log(p)


def entropy(p: FloatArray) -> float:
    """Returns the entropy of *p* in nats."""
    positive = p[p > 0]
    return float(-(positive * np.log(positive)).sum())


class CategoricalTarget:
    """A distribution that no context changes.

    Args:
        p: Shape ``(V,)``, sum 1.
    """

    contexts = 1

    def __init__(self, p: FloatArray) -> None:
        self._p = p

    @property
    def vocab_size(self) -> int:
        """Number of tokens, V."""
        return self._p.size

    def context_after(self, token: int) -> int:
        """Returns 0, the only context."""
        del token
        return 0

    def row(self, context: int) -> FloatArray:
        """Returns the distribution, whatever the *context*."""
        del context
        return self._p


def checked_size(vocab_size: int) -> int:
    """Returns *vocab_size*.

    Raises:
        TargetError: When it is below 1.
    """
    if vocab_size < 1:
        raise TargetError(f"vocab_size={vocab_size} must be at least 1")
    return vocab_size


def _log(p: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore"):
        logs: FloatArray = np.log(p)
    return logs
