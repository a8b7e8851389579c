# SPDX-License-Identifier: Apache-2.0
"""Health tests on raw time differences, after NIST SP 800-90B section 4.4."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = [
    "WINDOW",
    "find_defect",
    "largest_window_count",
    "longest_run",
    "proportion_cutoff",
    "repetition_cutoff",
]

WINDOW: Final = 512
"""Window of the adaptive proportion test in samples, as section 4.4.2 sets it."""

_FALSE_ALARM_BITS: Final = 40
"""A source that meets its claim fails a test with probability 2**-40 per sample or window."""


def repetition_cutoff(bits_per_delta: float) -> int:
    """Returns the run length that the claimed min-entropy rules out (section 4.4.1)."""
    return 1 + math.ceil(_FALSE_ALARM_BITS / bits_per_delta)


def proportion_cutoff(bits_per_delta: float) -> int:
    """Returns the count of one value in a window that the claimed min-entropy rules out.

    Section 4.4.2 takes the critical value of a binomial distribution; this is Chernoff's upper
    bound on it, which needs no tables and errs on the side of fewer false alarms. A claim so low
    that it rules nothing out yields ``WINDOW + 1``, which no count reaches.
    """
    allowed = _FALSE_ALARM_BITS * math.log(2) / WINDOW
    probability = 2.0**-bits_per_delta
    for count in range(math.ceil(WINDOW * probability), WINDOW):
        if _divergence(count / WINDOW, probability) >= allowed:
            return count
    return WINDOW + 1


def longest_run(deltas: npt.NDArray[np.int64]) -> int:
    """Returns the length of the longest run of equal values.

    Args:
        deltas: Shape ``(n,)`` with n of at least 1.
    """
    changes = np.flatnonzero(np.diff(deltas)) + 1
    edges = np.concatenate(([0], changes, [deltas.size]))
    return int(np.diff(edges).max())


def largest_window_count(deltas: npt.NDArray[np.int64]) -> int:
    """Returns how often, at most, a window repeats its own first value, that one included.

    Args:
        deltas: Shape ``(n,)`` with n of at least :data:`WINDOW`. The windows tile it from the
            front; one more covers the end.
    """
    whole = deltas[: deltas.size // WINDOW * WINDOW].reshape(-1, WINDOW)
    windows = np.vstack((whole, deltas[-WINDOW:]))
    return int((windows == windows[:, :1]).sum(axis=1).max())


def find_defect(deltas: npt.NDArray[np.int64], bits_per_delta: float) -> str:
    """Returns what contradicts the claimed min-entropy, in words; empty when nothing does.

    Args:
        deltas: Shape ``(n,)``, int64, nanoseconds, with n of at least :data:`WINDOW`.
        bits_per_delta: Claimed min-entropy of one difference.
    """
    run, run_cutoff = longest_run(deltas), repetition_cutoff(bits_per_delta)
    if run >= run_cutoff:
        return f"{run} equal time differences in a row, where {run_cutoff} are too many"
    count, count_cutoff = largest_window_count(deltas), proportion_cutoff(bits_per_delta)
    if count >= count_cutoff:
        return f"{count} of {WINDOW} time differences equal, where {count_cutoff} are too many"
    return ""


def _divergence(observed: float, expected: float) -> float:
    """Returns the Kullback-Leibler divergence between two coins, in nats; *observed* below 1."""
    return observed * math.log(observed / expected) + (1 - observed) * math.log(
        (1 - observed) / (1 - expected)
    )
