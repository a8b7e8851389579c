# SPDX-License-Identifier: Apache-2.0
"""What the tests measure in a draw, in NumPy: the reference for faster ways to do it."""

from __future__ import annotations

from typing import Final, Protocol, TypeAlias

import numpy as np

from qr_sampler.health.continuous import AdaptiveProportion, RepetitionCount
from qr_sampler.health.repeated_windows import RepeatedWindows
from qr_sampler.health.whole_draws import (
    SHORTEST_DRAW,
    bit_plane_shares,
    most_frequent_difference,
)

__all__ = ["STREAM_TESTS", "WHOLE_DRAW_TESTS", "DrawMeasures", "Measured", "Measures"]

STREAM_TESTS: Final = ("repetition_count", "adaptive_proportion")
"""Names of the tests that every draw takes part in."""

WHOLE_DRAW_TESTS: Final = ("repeated_windows", "bit_planes", "differences")
"""Names of those that draws of at least ``SHORTEST_DRAW`` bytes take part in, too."""

Measured: TypeAlias = tuple[float, ...]
"""What the tests have measured in one draw, in the order of their names."""


class Measures(Protocol):
    """Measures one draw after the other; what goes on from draw to draw is kept."""

    def of(self, data: bytes) -> Measured:
        """Returns what the tests measure in the next draw of the stream.

        Args:
            data: Its bytes. Fewer than ``SHORTEST_DRAW`` are measured by the tests of the stream
                alone.
        """

    def restart(self) -> None:
        """Begins another stream. Windows that were seen stay known."""


class DrawMeasures:
    """Measures with a few passes of NumPy.

    Args:
        most_repeated: Longer runs are measured as of this length.
    """

    def __init__(self, most_repeated: int) -> None:
        self._most_repeated = most_repeated
        self._windows = RepeatedWindows()
        self.restart()

    def restart(self) -> None:
        """Begins another stream. Windows that were seen stay known."""
        self._runs = RepetitionCount(most=self._most_repeated)
        self._proportion = AdaptiveProportion()

    def of(self, data: bytes) -> Measured:
        """Returns what the tests measure. Arguments as in :class:`Measures`."""
        samples = np.frombuffer(data, dtype=np.uint8)
        # All tests see all bytes: what goes on from draw to draw may not miss any.
        stream = self._runs.add(samples), self._proportion.add(samples)
        if len(samples) < SHORTEST_DRAW:
            return stream
        off = float(np.abs(bit_plane_shares(samples) - 0.5).max())
        return (*stream, self._windows.add(samples), off, most_frequent_difference(samples))
