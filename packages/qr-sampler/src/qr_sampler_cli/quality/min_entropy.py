# SPDX-License-Identifier: Apache-2.0
"""Min-entropy by two estimators of NIST SP 800-90B (January 2018), which names ten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from qr_sampler_cli.quality.pieces import bit_counts

__all__ = [
    "MarkovChain",
    "markov_chain_of",
    "markov_min_entropy",
    "most_common_value_min_entropy",
]

_Z_99: Final = 2.5758293035489008
"""Phi**-1(0.995), which the document gives as 2.576 and NIST's program as here."""

PATH: Final = 128
"""Length of the most probable string of bits that the Markov estimate looks for."""


def most_common_value_min_entropy(counts: Sequence[int]) -> float:
    """Returns the min-entropy of a sample in bits by its most common value: section 6.3.1.

    p_u = min(1, p + z sqrt(p (1 - p) / (L - 1))) bounds the probability of the most common value of
    L samples with 99 % confidence; the result is -log2(p_u).

    Args:
        counts: How often each value came, at least 2 in all.
    """
    total = sum(counts)
    p = max(counts) / total
    bound = min(1.0, p + _Z_99 * math.sqrt(p * (1.0 - p) / (total - 1)))
    return max(0.0, -math.log2(bound))


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkovChain:
    """A chain of first order over bits."""

    zero: float
    """Probability P_0 of a zero."""
    zero_zero: float
    """Probability P_00 of a zero after a zero; unused where :attr:`has_zero` is false."""
    one_zero: float
    """Probability P_10 of a zero after a one; unused where :attr:`has_one` is false."""
    has_zero: bool = True
    """Whether anything came after a zero."""
    has_one: bool = True
    """Whether anything came after a one."""

    def transitions(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Returns ((P_00, P_01), (P_10, P_11)), zeros where nothing is known."""
        after_zero = (self.zero_zero, 1.0 - self.zero_zero) if self.has_zero else (0.0, 0.0)
        after_one = (self.one_zero, 1.0 - self.one_zero) if self.has_one else (0.0, 0.0)
        return after_zero, after_one


def markov_chain_of(data: npt.NDArray[np.uint8]) -> MarkovChain:
    """Returns the chain that the bits of *data* follow, the highest bit of a byte first.

    Args:
        data: Bytes, shape ``(n,)`` with n of at least 1.
    """
    counts = bit_counts(data)
    ones, one_after_one = counts.ones, counts.one_after_one
    ones_before = ones - int(data[-1] & 1)
    zeros_before = counts.bits - 1 - ones_before
    ones_after_zero = ones - int(data[0] >> 7) - one_after_one
    return MarkovChain(
        zero=1.0 - ones / counts.bits,
        zero_zero=1.0 - ones_after_zero / zeros_before if zeros_before else 0.0,
        one_zero=1.0 - one_after_one / ones_before if ones_before else 0.0,
        has_zero=zeros_before > 0,
        has_one=ones_before > 0,
    )


def markov_min_entropy(chain: MarkovChain) -> float:
    """Returns the min-entropy of a bit by the most probable string of 128 of them: section 6.3.3.

    Of the six strings of table 1 there (all equal, alternating, and a first bit unlike the rest),
    the most probable one has the probability p_max; the result is min(-log2(p_max) / 128, 1). One
    that alternates and ends otherwise may be more probable, by which the estimate is too high by
    less than 0.006 bits.

    Args:
        chain: The chain of the bits.
    """
    after = chain.transitions()
    first = (chain.zero, 1.0 - chain.zero)
    half = PATH // 2
    strings = []
    for bit in (0, 1):
        other = 1 - bit
        strings += [
            _log2(first[bit], (after[bit][bit], PATH - 1)),
            _log2(first[bit], (after[bit][other], half), (after[other][bit], half - 1)),
            _log2(first[bit], (after[bit][other], 1), (after[other][other], PATH - 2)),
        ]
    return min(1.0, max(0.0, -max(strings) / PATH))


def _log2(first: float, *steps: tuple[float, int]) -> float:
    """Returns the binary logarithm of first times the powers of the steps."""
    if first <= 0.0 or any(p <= 0.0 for p, _ in steps):
        return -math.inf
    return math.log2(first) + sum(count * math.log2(p) for p, count in steps)
