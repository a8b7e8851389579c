# SPDX-License-Identifier: Apache-2.0
"""Two-sample tests: whether a device is still the one that a baseline describes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np

from qr_sampler.amplification import Baseline
from qr_sampler.amplification.baseline import BaselineFingerprint, plane_shares
from qr_sampler_cli.quality.tails import chi_square_tail, holm, kolmogorov_tail, normal_tails

__all__ = ["ALPHA", "Difference", "Figure", "compared", "described_differences"]

ALPHA: Final = 1e-3
"""A corrected p-value below it says that a figure has changed."""

LATENCIES: Final = ("0.5", "0.95")
"""Shares of the draws whose latency is compared."""

FEWEST_EXPECTED: Final = 5.0
"""Expected count of the rarest byte from which on the histogram is compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure then and now."""

    name: str
    """What was measured."""
    kind: Literal["bytes", "latency"]
    """What it says something about: latencies change with the load of the machine, too."""
    then: float
    """Its value in the baseline; NaN for a comparison that has no single value."""
    now: float
    """Its value in the new measurement, or the distance of the two."""
    p_value: float
    """Probability of so large a difference between two samples of one device."""
    adjusted: float = math.nan
    """The same after Holm's correction for all figures."""

    @property
    def has_changed(self) -> bool:
        """Whether the difference is more than chance."""
        return self.adjusted < ALPHA


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something that is told, not measured, and is not what it was."""

    name: str
    """What it is."""
    then: str
    """What the baseline says."""
    now: str
    """What is said now."""


def compared(then: Baseline, now: Baseline, latencies_ns: Sequence[int]) -> list[Figure]:
    """Returns every figure that both have, with p-values corrected together.

    The laws are those of large samples. Dependence within blocks is taken from the scatter of their
    sums, that between blocks from the autocorrelation in the baseline: what drifts more slowly than
    over ten blocks, or is in one bit alone, makes p-values too small.

    Args:
        then: The baseline.
        now: The new one, of blocks of the same length.
        latencies_ns: Latency of each new draw.
    """
    old, new = then.fingerprint, now.fingerprint
    dependence = _dependence(() if old is None else old.block_sum_autocorrelation)
    figures = [*_moments(then, now, dependence), *_block_sums(then, now, dependence)]
    if old is not None and new is not None:
        independent = _independent(then, now) / dependence.of_means
        figures += _planes(old, new, independent)
        figures += _histogram(old, new, independent)
        variance = dependence.of_squares * (1.0 / then.blocks + 1.0 / now.blocks)
        figures += _autocorrelations(old, new, variance)
        figures += _latencies(old, latencies_ns)
    adjusted = holm([figure.p_value for figure in figures])
    return [
        Figure(
            name=figure.name,
            kind=figure.kind,
            then=figure.then,
            now=figure.now,
            p_value=figure.p_value,
            adjusted=after,
        )
        for figure, after in zip(figures, adjusted, strict=True)
    ]


class _Dependence(NamedTuple):
    """By how much dependence between blocks raises a variance, at least 1."""

    of_means: float
    """That of a mean: 1 + 2 sum r_k (Bartlett, J. Roy. Statist. Soc. Suppl. 8, 1946)."""
    of_squares: float
    """That of a variance and, at lags beyond the dependence, of r_k: 1 + 2 sum r_k**2."""


def _dependence(autocorrelation: Sequence[float]) -> _Dependence:
    r = np.array(autocorrelation, dtype=np.float64)
    return _Dependence(max(1.0, 1.0 + 2.0 * float(r.sum())), 1.0 + 2.0 * float(r @ r))


def described_differences(then: Baseline, now: Baseline) -> list[Difference]:
    """Returns what the source says of itself otherwise than it did."""
    told = [
        ("distribution", then.source_distribution, now.source_distribution),
        ("version", then.source_version, now.source_version),
    ]
    old, new = then.fingerprint, now.fingerprint
    if old is not None and new is not None:
        told.append(("conditioning", old.conditioning, new.conditioning))
        told.append(("device", ", ".join(old.device_ids), ", ".join(new.device_ids)))
        for name in sorted({*old.settings, *new.settings}):
            before, after = (each.settings.get(name, "(none)") for each in (old, new))
            told.append((f"setting {name}", str(before), str(after)))
    return [
        Difference(name=name, then=before, now=after)
        for name, before, after in told
        if before != after
    ]


def _of_bytes(name: str, then: float, now: float, p_value: float) -> Figure:
    return Figure(name=name, kind="bytes", then=then, now=now, p_value=p_value)


def _z(difference: float, variance: float) -> float:
    """Returns the p-value of a difference with that variance; 1 where nothing can differ."""
    return normal_tails(difference / math.sqrt(variance)) if variance > 0.0 else 1.0


def _moments(then: Baseline, now: Baseline, dependence: _Dependence) -> Iterator[Figure]:
    """Yields mean, ones and scatter of block sums.

    The variance of the mean is that of block sums over their number, so that dependence within
    blocks is accounted for. The logarithm of the variance of N normal sums has the variance
    2 / (N - 1).
    """
    sides = (then, now)
    of_sums = [b.byte_std**2 / (b.block_bytes * b.byte_correlation_factor) for b in sides]
    of_ones = [
        b.ones_fraction * (1.0 - b.ones_fraction) / (8 * b.block_bytes * b.bit_correlation_factor)
        for b in sides
    ]
    variance, ones_variance = (
        dependence.of_means * sum(v / b.blocks for v, b in zip(of, sides, strict=True))
        for of in (of_sums, of_ones)
    )
    yield _of_bytes(
        "byte mean",
        then.byte_mean,
        now.byte_mean,
        _z(now.byte_mean - then.byte_mean, variance),
    )
    yield _of_bytes(
        "ones",
        then.ones_fraction,
        now.ones_fraction,
        _z(now.ones_fraction - then.ones_fraction, ones_variance),
    )
    before, after = map(math.sqrt, of_sums)
    of_logarithms = dependence.of_squares * sum(2.0 / (b.blocks - 1) for b in sides)
    yield _of_bytes(
        "sd of block means",
        before,
        after,
        _z(math.log(of_sums[1] / of_sums[0]), of_logarithms),
    )


def _block_sums(then: Baseline, now: Baseline, dependence: _Dependence) -> Iterator[Figure]:
    """Yields the largest distance of the two empirical laws, after Smirnov.

    Sums are whole numbers: ties make its p-value too large, never too small.
    """
    if not (then.block_sums and now.block_sums):
        return
    old, new = (np.array(each.block_sums) for each in (then, now))
    everywhere = np.concatenate([old, new])
    laws = [np.searchsorted(each, everywhere, side="right") / len(each) for each in (old, new)]
    distance = float(np.abs(laws[0] - laws[1]).max())
    size = math.sqrt(len(old) * len(new) / (len(old) + len(new)) / dependence.of_means)
    yield _of_bytes("law of block sums", math.nan, distance, kolmogorov_tail(size * distance))


def _independent(*baselines: Baseline) -> float:
    """Returns which share of the bytes counts as independent, at most 1."""
    factors = [min(b.byte_correlation_factor, b.bit_correlation_factor) for b in baselines]
    return min(1.0, *factors)


def _planes(
    then: BaselineFingerprint, now: BaselineFingerprint, independent: float
) -> Iterator[Figure]:
    """Yields the difference of two proportions for each bit, with the common one's variance."""
    counts = [np.array(each.byte_histogram) for each in (then, now)]
    sizes = [int(each.sum()) for each in counts]
    shares = [plane_shares(each.tolist()) for each in counts]
    common = plane_shares((counts[0] + counts[1]).tolist())
    scale = (1.0 / sizes[0] + 1.0 / sizes[1]) / independent
    for place, (before, after, p) in enumerate(zip(*shares, common, strict=True)):
        variance = float(p * (1.0 - p)) * scale
        yield _of_bytes(
            f"ones of bit {7 - place}",
            float(before),
            float(after),
            _z(float(after - before), variance),
        )


def _histogram(
    then: BaselineFingerprint, now: BaselineFingerprint, independent: float
) -> Iterator[Figure]:
    """Yields the chi-square of the table of 2 x 256 counts, where none is expected to be small."""
    table = np.array([then.byte_histogram, now.byte_histogram])
    table = table[:, table.any(axis=0)]
    sizes = table.sum(axis=1, keepdims=True)
    expected = sizes * table.sum(axis=0) / table.sum()
    if table.shape[1] < 2 or expected.min() < FEWEST_EXPECTED:
        return
    chi_square = float(((table - expected) ** 2 / expected).sum()) * independent
    tail = chi_square_tail(chi_square, table.shape[1] - 1)
    yield _of_bytes("byte histogram", math.nan, chi_square, tail)


def _autocorrelations(
    then: BaselineFingerprint, now: BaselineFingerprint, variance: float
) -> Iterator[Figure]:
    pairs = zip(then.block_sum_autocorrelation, now.block_sum_autocorrelation, strict=False)
    for lag, (before, after) in enumerate(pairs, 1):
        name = f"correlation at lag {lag}"
        yield _of_bytes(name, before, after, _z(after - before, variance))


def _latencies(then: BaselineFingerprint, latencies_ns: Sequence[int]) -> Iterator[Figure]:
    """Yields how many new draws are slower than a quantile of the old ones.

    Of n new draws n (1 - q) are expected beyond the quantile q of m old ones, with the variance
    n q (1 - q) (1 + n / m): the quantile itself was estimated (Mathisen, Ann. Math. Statist. 14,
    1943).
    """
    n, m = len(latencies_ns), then.timed_blocks
    if not (n and m):
        return
    new = np.sort(np.array(latencies_ns, dtype=np.float64)) / 1e6
    for share in LATENCIES:
        if share not in then.latency_ms:
            continue
        q, bound = float(share), then.latency_ms[share]
        expected = n * (1.0 - q)
        # A coarse clock gives many draws the latency of the quantile: they fit on either side.
        above, at_least = (int(np.count_nonzero(new > bound)), int(np.count_nonzero(new >= bound)))
        excess = max(0.0, above - expected) + min(0.0, at_least - expected)
        variance = n * q * (1.0 - q) * (1.0 + n / m)
        yield Figure(
            name=f"latency, {q:.0%} within (ms)",
            kind="latency",
            then=bound,
            now=float(new[math.ceil(q * n) - 1]),
            p_value=_z(excess, variance),
        )
