# SPDX-License-Identifier: Apache-2.0
"""Tests of bytes against the law of uniform and independent ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from qr_sampler.amplification.baseline import plane_shares
from qr_sampler_cli.quality.ent_figures import EntFigures
from qr_sampler_cli.quality.pieces import bit_counts, byte_counts, pieces
from qr_sampler_cli.quality.spectrum import largest_line
from qr_sampler_cli.quality.tails import binomial_tail, chi_square_tail, normal_tails

__all__ = ["FEWEST_BYTES", "ByteTest", "autocorrelation", "byte_tests"]

FEWEST_BYTES: Final = 4_096
"""Bytes from which on the laws in large samples hold: 16 expected in each of 256 cells."""

BYTE_DEVIATION: Final = math.sqrt((256**2 - 1) / 12)
"""Standard deviation of uniform bytes, 73.9003."""

LAGS: Final = 16
"""Lags, in bytes, over which correlation is looked for."""

_WORD_BYTES: Final = 8
_ONE_IN_WORDS: Final = 2.0**-64


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteTest:
    """One test and what it found."""

    name: str
    """What was tested, in words."""
    statistic: float
    """What it measured."""
    p_value: float
    """Probability of something at least as extreme, of uniform and independent bytes."""
    words: str = ""
    """The statistic, in words."""


def byte_tests(data: npt.NDArray[np.uint8], ent: EntFigures) -> list[ByteTest]:
    """Returns the tests of *data*.

    Their laws are those of large samples; only repeated words have an exact one.

    Args:
        data: Bytes, shape ``(n,)`` with n of at least :data:`FEWEST_BYTES`.
        ent: The figures of the same bytes.
    """
    return [
        _histogram(ent),
        _mean(ent),
        _planes(data),
        _bit_changes(data),
        _correlation(data),
        _spectrum(data),
        _repeated_words(data),
    ]


def two_sided(p_value: float) -> float:
    """Returns the p-value of something that may be too large or too small."""
    return min(1.0, 2.0 * min(p_value, 1.0 - p_value))


def _histogram(ent: EntFigures) -> ByteTest:
    return ByteTest(
        name="byte histogram",
        statistic=ent.chi_square,
        p_value=two_sided(ent.chi_square_p),
        words=f"chi-square {ent.chi_square:.2f} of 255 degrees",
    )


def _mean(ent: EntFigures) -> ByteTest:
    z = (ent.mean - 127.5) * math.sqrt(ent.size) / BYTE_DEVIATION
    return ByteTest(
        name="byte mean", statistic=z, p_value=normal_tails(z), words=f"{ent.mean:.4f}, z {z:+.2f}"
    )


def _planes(data: npt.NDArray[np.uint8]) -> ByteTest:
    """Tests the eight planes together: their z are independent, so the squares add up."""
    shares = plane_shares(byte_counts(data).tolist())
    z = (shares - 0.5) * 2.0 * math.sqrt(len(data))
    worst = int(np.argmax(np.abs(z)))
    statistic = float((z**2).sum())
    return ByteTest(
        name="bit planes",
        statistic=statistic,
        p_value=chi_square_tail(statistic, 8),
        words=f"chi-square {statistic:.2f} of 8 degrees, ones of bit {7 - worst}: "
        f"{shares[worst]:.5f}",
    )


def _bit_changes(data: npt.NDArray[np.uint8]) -> ByteTest:
    """Tests how often a bit differs from the one before it; each change has probability 1/2."""
    counts = bit_counts(data)
    pairs = counts.bits - 1
    share = counts.changes / pairs
    z = (share - 0.5) * 2.0 * math.sqrt(pairs)
    return ByteTest(
        name="bit changes",
        statistic=z,
        p_value=normal_tails(z),
        words=f"{share:.6f} of neighbours differ, z {z:+.2f}",
    )


def autocorrelation(data: npt.NDArray[np.uint8], lags: int) -> npt.NDArray[np.float64]:
    """Returns the correlation of bytes 1 to *lags* apart, around the known mean and variance.

    Args:
        data: Bytes, shape ``(n,)`` with n above *lags*.
        lags: Number of lags.
    """
    sums = np.zeros(lags)
    for piece, more in pieces(data, ahead=lags):
        off = (more.astype(np.float64) - 127.5) / BYTE_DEVIATION
        for lag in range(1, lags + 1):
            later = off[lag : lag + len(piece)]
            sums[lag - 1] += off[: len(later)] @ later
    return sums / len(data)


def _correlation(data: npt.NDArray[np.uint8]) -> ByteTest:
    """Tests lags 1 to 16 together, after Box and Pierce (J. Am. Stat. Ass. 65, 1970).

    With the known mean and variance the coefficients are uncorrelated, and that at lag k has the
    variance (n - k) / n**2 exactly.
    """
    n = len(data)
    found = autocorrelation(data, LAGS)
    statistic = float((found**2 * n**2 / (n - np.arange(1, LAGS + 1))).sum())
    return ByteTest(
        name="serial correlation",
        statistic=statistic,
        p_value=chi_square_tail(statistic, LAGS),
        words=f"chi-square {statistic:.2f} of {LAGS} lags, {found[0]:+.6f} at lag 1",
    )


def _spectrum(data: npt.NDArray[np.uint8]) -> ByteTest:
    line = largest_line(data)
    return ByteTest(
        name="spectrum",
        statistic=line.power,
        p_value=line.p_value,
        words=f"largest line {line.power:.1f} times the mean, a period of {line.period:.5g} bytes",
    )


def _repeated_words(data: npt.NDArray[np.uint8]) -> ByteTest:
    """Tests how many words of eight bytes are equal to an earlier one.

    Of m words the number of equal pairs is binomial in all but name: m (m - 1) / 2 pairs, which are
    pairwise independent, of probability 2**-64 each.
    """
    words = np.sort(data[: len(data) // _WORD_BYTES * _WORD_BYTES].view("<u8"))
    repeated = int(np.count_nonzero(words[1:] == words[:-1]))
    pairs = len(words) * (len(words) - 1) // 2
    return ByteTest(
        name="repeated words",
        statistic=float(repeated),
        p_value=binomial_tail(repeated, pairs, _ONE_IN_WORDS),
        words=f"{repeated:,} of {len(words):,} words of 8 bytes came before",
    )
