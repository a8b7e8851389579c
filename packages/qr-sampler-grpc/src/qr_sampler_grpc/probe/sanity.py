# SPDX-License-Identifier: Apache-2.0
"""Whether what a server sent could be uniform: gross faults only, with a known false-alarm rate.

Of perfectly uniform independent bytes all checks together fail with probability below 1e-9. All
but the chi-square bound their probability for every number of bytes; that one is asymptotic, and
is left out where the bytes are too few for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["FALSE_ALARM_RATE", "SanityCheck", "check_bytes", "check_numbers"]

FALSE_ALARM_RATE: Final = 1e-9
"""Of all checks together."""
_SHARE: Final = FALSE_ALARM_RATE / 10
"""Of each bound; there are fewer than ten."""
_FEWEST_BYTES: Final = 64
_MOST_BYTES: Final = 2**22
"""More would show smaller faults, and take memory and time."""
_CHI_SQUARE_BYTES: Final = 256 * 40
"""From here on the chi-square statistic is close enough to its limit."""
_WINDOW_BYTES: Final = 16
_LATTICE: Final = 2.0**64


@dataclass(frozen=True, slots=True, kw_only=True)
class SanityCheck:
    """One check and its outcome."""

    name: str
    """What was checked."""
    passed: bool | None
    """Whether it is as it should be; ``None`` when there is too little to tell."""
    words: str
    """The figure, and what is allowed."""


def check_bytes(answers: Sequence[bytes]) -> list[SanityCheck]:
    """Returns the findings about blocks of bytes that claim to be uniform.

    Args:
        answers: The blocks, one for each draw, in the order of their arrival. Only the first
            4 MiB are looked at.
    """
    sample = np.frombuffer(b"".join(answers), dtype=np.uint8)[:_MOST_BYTES]
    if sample.size < _FEWEST_BYTES:
        words = f"{sample.size} bytes are too few; draw at least {_FEWEST_BYTES}"
        return [SanityCheck(name="bytes", passed=None, words=words)]
    return [
        _chi_square(sample),
        _most_frequent(sample),
        _bit_positions(sample),
        _longest_run(sample),
        _repetition(sample),
    ]


def check_numbers(answers: Sequence[bytes]) -> list[SanityCheck]:
    """Returns the findings about numbers u that claim to be uniform.

    Args:
        answers: Each the eight bytes of floor(u * 2**64), most significant first.
    """
    return list(_numbers([int.from_bytes(answer, "big") / _LATTICE for answer in answers]))


def _chi_square(sample: NDArray[np.uint8]) -> SanityCheck:
    name = "byte frequencies"
    if sample.size < _CHI_SQUARE_BYTES:
        words = f"{sample.size:,} bytes are too few for a chi-square of 256 values"
        return SanityCheck(name=name, passed=None, words=words)
    expected = sample.size / 256
    counts = np.bincount(sample, minlength=256)
    statistic = float(((counts - expected) ** 2).sum() / expected)
    above = _chi_square_survival_255(statistic)
    # Too even is not chance, either: a counter has a chi-square of zero.
    passed = _SHARE <= above <= 1.0 - _SHARE
    words = f"chi-square {statistic:.1f} with 255 degrees of freedom, p = {above:.3g}"
    return SanityCheck(name=name, passed=passed, words=words)


def _chi_square_survival_255(statistic: float) -> float:
    """Returns the probability that a chi-square with 255 degrees of freedom exceeds *statistic*.

    Q(a, x) has a finite sum for a half-integer a: Abramowitz and Stegun 26.4.4.
    """
    x = statistic / 2
    if x <= 0.0:
        return 1.0
    terms = (math.exp((k + 0.5) * math.log(x) - x - math.lgamma(k + 1.5)) for k in range(127))
    return min(1.0, math.erfc(math.sqrt(x)) + math.fsum(terms))


def _most_frequent(sample: NDArray[np.uint8]) -> SanityCheck:
    counts = np.bincount(sample, minlength=256)
    value, count = int(counts.argmax()), int(counts.max())
    # Chernoff's bound for one value, times the number of values.
    bound = 256 * math.exp(-sample.size * _divergence(count / sample.size, 1 / 256))
    words = f"{value:#04x} comes {count:,} times in {sample.size:,} bytes"
    return SanityCheck(name="most frequent byte", passed=bound >= _SHARE, words=words)


def _divergence(p: float, q: float) -> float:
    """Returns the relative entropy of two coins in nats, 0 where *p* does not exceed *q*."""
    if p <= q:
        return 0.0
    rest = 0.0 if p == 1.0 else (1 - p) * math.log((1 - p) / (1 - q))
    return p * math.log(p / q) + rest


def _bit_positions(sample: NDArray[np.uint8]) -> SanityCheck:
    ones = [int(np.count_nonzero(sample & (1 << bit))) for bit in range(8)]
    deviation = max(abs(count - sample.size / 2) for count in ones)
    # Hoeffding's bound, for both sides of eight positions.
    bound = 16 * math.exp(-2 * deviation**2 / sample.size)
    words = f"at most {deviation / sample.size:.4%} away from one half"
    return SanityCheck(name="ones at each bit", passed=bound >= _SHARE, words=words)


def _longest_run(sample: NDArray[np.uint8]) -> SanityCheck:
    changes = np.flatnonzero(np.diff(sample)) + 1
    edges = np.concatenate(([0], changes, [sample.size]))
    longest = int(np.diff(edges).max())
    bound = sample.size * 256.0 ** (1 - longest)
    return SanityCheck(
        name="longest run", passed=bound >= _SHARE, words=f"{longest} equal bytes in a row"
    )


def _repetition(sample: NDArray[np.uint8]) -> SanityCheck:
    windows = np.lib.stride_tricks.sliding_window_view(sample, _WINDOW_BYTES)
    halves = np.ascontiguousarray(windows).view(np.uint64)
    ordered = halves[np.lexsort((halves[:, 0], halves[:, 1]))]
    repeated = int(np.count_nonzero((ordered[1:] == ordered[:-1]).all(axis=1)))
    # Two windows are equal with probability 2**-128, which no number of pairs here makes likely.
    words = f"{repeated:,} stretches of {_WINDOW_BYTES} bytes came before"
    return SanityCheck(name="repetition", passed=repeated == 0, words=words)


def _numbers(numbers: list[float]) -> Iterator[SanityCheck]:
    ordered = sorted(numbers)
    count = len(ordered)
    distance = max(max((rank + 1) / count - u, u - rank / count) for rank, u in enumerate(ordered))
    # Massart's constant in the inequality of Dvoretzky, Kiefer and Wolfowitz.
    bound = 2 * math.exp(-2 * count * distance**2)
    words = f"at most {distance:.3f} away from a uniform distribution of {count} numbers"
    yield SanityCheck(name="uniform numbers", passed=bound >= _SHARE, words=words)
    distinct = len(set(numbers))
    enough = None if count < 10 else 2 * distinct > count
    yield SanityCheck(
        name="repetition", passed=enough, words=f"{distinct} of {count} numbers are distinct"
    )
