# SPDX-License-Identifier: Apache-2.0
"""The two continuous tests of NIST SP 800-90B, on a stream that arrives in pieces of any size."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from qr_sampler.health.cutoffs import WINDOW

__all__ = ["AdaptiveProportion", "RepetitionCount"]

Samples = npt.NDArray[np.integer[Any]]


class RepetitionCount:
    """Counts equal samples in a row (section 4.4.1).

    Args:
        most: Longer runs are reported as of this length.

    Examples:
        >>> count = RepetitionCount(most=9)
        >>> count.add(np.array([1, 2, 2])), count.add(np.array([2, 2, 3]))
        (2, 4)
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._tail: Samples = np.empty(0, dtype=np.uint8)
        """The run at the end of the stream, as far as it counts."""

    def add(self, samples: Samples) -> int:
        """Returns the longest run that has a sample among *samples*, at most *most*.

        Args:
            samples: What follows in the stream, shape ``(n,)``, integers; 0 for none.
        """
        if not len(samples):
            return 0
        goes_on = len(self._tail) and self._tail[0] == samples[0]
        stream = np.concatenate((self._tail, samples)) if goes_on else samples
        longest = min(_longest_run(stream, self._most), self._most)
        self._tail = stream[len(stream) - _last_run(stream, self._most) :].copy()
        return longest


class AdaptiveProportion:
    """Counts how often windows repeat their own first sample (section 4.4.2).

    The windows do not overlap, and go on from one piece of the stream to the next.

    Args:
        window: Number of samples in a window.

    Examples:
        >>> proportion = AdaptiveProportion(window=4)
        >>> proportion.add(np.array([7, 7])), proportion.add(np.array([7, 1, 5]))
        (2, 3)
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._first = 0
        self._count = 0
        self._seen = 0
        """Samples of the window that goes on."""

    def add(self, samples: Samples) -> int:
        """Returns the largest count of any window that has a sample among *samples*.

        Args:
            samples: What follows in the stream, shape ``(n,)``, integers; 0 for none.
        """
        head = samples[: (self._window - self._seen) % self._window]
        largest = self._go_on(head)
        rest = samples[len(head) :]
        whole = len(rest) // self._window * self._window
        if whole:
            windows = rest[:whole].reshape(-1, self._window)
            largest = max(largest, int((windows == windows[:, :1]).sum(axis=1).max()))
        return max(largest, self._begin(rest[whole:]))

    def _go_on(self, samples: Samples) -> int:
        if not len(samples):
            return 0
        self._count += int(np.count_nonzero(samples == self._first))
        self._seen = (self._seen + len(samples)) % self._window
        return self._count

    def _begin(self, samples: Samples) -> int:
        if not len(samples):
            return 0
        self._first = int(samples[0])
        self._count = int(np.count_nonzero(samples == samples[0]))
        self._seen = len(samples)
        return self._count


def _longest_run(samples: Samples, most: int) -> int:
    """Returns the length of the longest run; not less than *most* if it has *most* or more."""
    equal = samples[1:] == samples[:-1]
    longest = 1
    # Good samples leave nothing after one or two rounds.
    while longest < most and equal.any():
        longest += 1
        equal = equal[1:] & equal[:-1]
    return longest


def _last_run(samples: Samples, most: int) -> int:
    """Returns the length of the run at the end, at most *most*."""
    end = samples[-most:]
    others = np.flatnonzero(end != end[-1])
    return len(end) - 1 - int(others[-1]) if len(others) else len(end)
