# SPDX-License-Identifier: Apache-2.0
"""How well the latency of a draw tells its arm: what a blind control must not let it do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qr_sampler.errors import ConfigError
from qr_sampler_lab.analysis.results import Interval, checked_numbers, normal_interval

__all__ = ["LatencyResult", "classify_latency"]

_MOST_BINS: Final = 64
_DRAWS_PER_BIN: Final = 20
"""Fewer would learn noise, and an honest share of right names would suffer from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyResult:
    """How often the arm was named rightly from the latency alone, on draws not learned from."""

    share: float
    """Share of tokens whose arm was named rightly."""
    balanced_accuracy: float
    """Mean over the arms of the share of draws that were named rightly: 1 / arms for a guess,
    however unequal the arms are."""
    interval: Interval
    """Interval of the balanced accuracy."""
    n_draws: int
    """Number of draws; tokens of one draw share its latency and are no further evidence."""
    n_tokens: int
    """Number of tokens."""
    arms: tuple[str, ...]
    """Their names."""
    notes: tuple[str, ...] = ()
    """Sentences that a report prints beside the figures."""

    def stays_below(self, limit: float = 0.55) -> bool:
        """Returns whether the whole interval lies below *limit*: few draws prove nothing."""
        return self.interval.high < limit


def classify_latency(
    latency_ns: ArrayLike, arm: ArrayLike, *, tokens: ArrayLike | None = None
) -> LatencyResult:
    """Returns how well a classifier names the arm of a draw by its latency.

    The classifier is the Bayes rule on a histogram of latencies, its bins quantiles of the draws
    that it learns from, at most 64, all arms taken to be equally frequent. It sees differences of
    location, spread and shape alike. It learns from the even draws and names the odd ones, then the
    other way round, so what it only remembers does not count. The interval takes draws to be
    independent.

    Args:
        latency_ns: Time from request to receipt. Shape ``(D,)``, one per draw, in order of time.
        arm: Name of each draw's arm. Shape ``(D,)``.
        tokens: How many tokens each draw served, by default one.

    Raises:
        ConfigError: When there are fewer than two arms, or fewer than four draws of one.
    """
    latencies = checked_numbers(latency_ns, name="latency_ns")
    names, codes = np.unique(np.asarray(arm).astype(np.str_), return_inverse=True)
    served = np.ones(latencies.size) if tokens is None else checked_numbers(tokens, name="tokens")
    if not latencies.size == codes.size == served.size:
        raise ConfigError(
            f"{latencies.size} latencies, {codes.size} arms, {served.size} counts of tokens: give "
            "one of each per draw"
        )
    counts = np.bincount(codes, minlength=names.size)
    if names.size < 2 or counts.min() < 4:
        raise ConfigError(
            f"draws per arm {dict(zip(names.tolist(), counts.tolist(), strict=True))}: compare at "
            "least two arms of four draws each"
        )
    right = _rightly_named(latencies, codes, names.size)
    recalls = np.bincount(codes, weights=right, minlength=names.size) / counts
    # Agresti and Coull's two added successes and failures keep the error away from 0.
    smoothed = (recalls * counts + 2.0) / (counts + 4.0)
    error = math.sqrt(float((smoothed * (1.0 - smoothed) / (counts + 4.0)).sum())) / names.size
    accuracy = float(recalls.mean())
    return LatencyResult(
        share=float((right * served).sum() / served.sum()),
        balanced_accuracy=accuracy,
        interval=normal_interval(accuracy, error),
        n_draws=latencies.size,
        n_tokens=int(served.sum()),
        arms=tuple(names.tolist()),
    )


def _rightly_named(
    latencies: NDArray[np.float64], codes: NDArray[np.intp], arms: int
) -> NDArray[np.bool_]:
    """Returns which draws were named rightly by the rule learned from the other half.

    Halves are taken within each arm: where arms alternate strictly, every other draw would be of
    one arm only.
    """
    right = np.zeros(latencies.size, dtype=np.bool_)
    even = _position_in_arm(codes) % 2 == 0
    for learned in (even, ~even):
        named = _name(latencies[learned], codes[learned], latencies[~learned], arms)
        right[~learned] = named == codes[~learned]
    return right


def _position_in_arm(codes: NDArray[Any]) -> NDArray[np.intp]:
    position = np.empty(codes.size, dtype=np.intp)
    for code in np.unique(codes):
        members = np.flatnonzero(codes == code)
        position[members] = np.arange(members.size)
    return position


def _name(
    learned: NDArray[np.float64],
    codes: NDArray[np.intp],
    asked: NDArray[np.float64],
    arms: int,
) -> NDArray[np.intp]:
    bins = min(_MOST_BINS, max(2, learned.size // _DRAWS_PER_BIN))
    edges = np.unique(np.quantile(learned, np.arange(1, bins) / bins))
    counts = np.zeros((edges.size + 1, arms))
    np.add.at(counts, (np.searchsorted(edges, learned, side="right"), codes), 1.0)
    likelihood = (counts + 0.5) / (counts.sum(axis=0) + 0.5 * counts.shape[0])
    named: NDArray[np.intp] = likelihood.argmax(axis=1)[np.searchsorted(edges, asked, side="right")]
    return named
