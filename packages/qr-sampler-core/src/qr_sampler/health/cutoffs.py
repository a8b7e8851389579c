# SPDX-License-Identifier: Apache-2.0
"""From which value on a health test contradicts what a source is assumed to deliver.

Every cut-off is the smallest value that a source which meets its assumption reaches with a
probability of at most ``2**-alpha_bits``. Tails of the binomial distribution are summed term by
term, since SciPy's inverse is wrong that far out (``binom.isf`` at 2**-60 returns its last value).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

__all__ = [
    "WINDOW",
    "binomial_tail",
    "most_frequent_cutoff",
    "proportion_cutoff",
    "repetition_cutoff",
]

WINDOW: Final = 512
"""Window of the adaptive proportion test for samples of more than one bit (section 4.4.2)."""


def repetition_cutoff(min_entropy: float, alpha_bits: int) -> int:
    """Returns how many equal samples in a row are too many: 1 + ceil(a / H).

    NIST SP 800-90B, section 4.4.1.

    Args:
        min_entropy: Assumed min-entropy H of one sample, in bits, greater than 0.
        alpha_bits: False-alarm probability per sample, as a = -log2 of it.

    Raises:
        ValueError: When *min_entropy* is not greater than 0.

    Examples:
        >>> [repetition_cutoff(8.0, bits) for bits in (20, 30, 40, 60)]
        [4, 5, 6, 9]
    """
    return 1 + math.ceil(alpha_bits / _positive(min_entropy))


@lru_cache(maxsize=256)
def proportion_cutoff(min_entropy: float, alpha_bits: int, window: int = WINDOW) -> int:
    """Returns how often a window may not repeat its own first sample, that one included.

    NIST SP 800-90B, section 4.4.2, with the first sample counted as the hit that it always is:
    2 + min{k : P(Bin(W - 1, 2**-H) > k) <= 2**-a}.

    Args:
        min_entropy: Assumed min-entropy H of one sample, in bits, greater than 0.
        alpha_bits: False-alarm probability per window, as a = -log2 of it.
        window: Number W of samples in a window.

    Raises:
        ValueError: When no window can reach the cut-off: the test could never fail.

    Examples:
        >>> [proportion_cutoff(8.0, bits) for bits in (20, 30, 40, 60)]
        [14, 17, 20, 26]
    """
    count = 1 + _first_rare(window - 1, 2.0 ** -_positive(min_entropy), 2.0**-alpha_bits)
    if count > window:
        raise ValueError(
            f"min_entropy={min_entropy} rules nothing out in a window of {window} samples at "
            f"2**-{alpha_bits}: the adaptive proportion test could never fail"
        )
    return count


@lru_cache(maxsize=256)
def most_frequent_cutoff(n: int, min_entropy: float, alpha_bits: int, values: int = 256) -> int:
    """Returns how often the most frequent of several values may not occur.

    By the union bound: min{k : values * P(Bin(n, 2**-H) >= k) <= 2**-a}.

    Args:
        n: Number of samples.
        min_entropy: Assumed min-entropy H of one sample, in bits, greater than 0.
        alpha_bits: False-alarm probability of the *n* samples, as a = -log2 of it.
        values: Number of values that a sample can have.

    Raises:
        ValueError: When *min_entropy* is not greater than 0.
    """
    return _first_rare(n, 2.0 ** -_positive(min_entropy), 2.0**-alpha_bits / values)


def binomial_tail(k: int, n: int, p: float) -> float:
    """Returns P(Bin(n, p) >= k) for *k* of at least n * p, to twelve digits.

    The terms decrease from there on, and their sum ends where they no longer change it.
    """
    total = 0.0
    for hits in range(k, n + 1):
        term = math.exp(
            math.lgamma(n + 1)
            - math.lgamma(hits + 1)
            - math.lgamma(n - hits + 1)
            + hits * math.log(p)
            + (n - hits) * math.log1p(-p)
        )
        total += term
        if term <= 1e-18 * total:
            break
    return total


def _first_rare(n: int, p: float, alpha: float) -> int:
    """Returns the smallest k above n * p with P(Bin(n, p) >= k) <= *alpha*; n + 1 if none is."""
    low, high = math.floor(n * p) + 1, n + 1
    while low < high:
        middle = (low + high) // 2
        if binomial_tail(middle, n, p) <= alpha:
            high = middle
        else:
            low = middle + 1
    return low


def _positive(min_entropy: float) -> float:
    if not min_entropy > 0:
        raise ValueError(f"min_entropy={min_entropy} must be greater than 0")
    return min_entropy
