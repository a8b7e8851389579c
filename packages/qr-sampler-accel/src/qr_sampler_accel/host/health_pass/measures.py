# SPDX-License-Identifier: Apache-2.0
"""All health tests of a draw in compiled code, one call for each draw."""

from __future__ import annotations

import numpy as np

from qr_sampler.health.measures import Measured
from qr_sampler.health.repeated_windows import PLACES
from qr_sampler.health.whole_draws import SHORTEST_DRAW
from qr_sampler_accel.host.arithmetic.compiler import compiled
from qr_sampler_accel.host.health_pass.bit_planes import largest_imbalance
from qr_sampler_accel.host.health_pass.differences import most_frequent_difference
from qr_sampler_accel.host.health_pass.memory import COUNTS, MARKS, MOST, ONES, SMALL_COUNTS
from qr_sampler_accel.host.health_pass.stream import largest_proportion, longest_run
from qr_sampler_accel.host.health_pass.windows import windows_seen
from qr_sampler_accel.host.health_pass.words import U64

__all__ = ["CompiledMeasures"]


@compiled
def _stream(data, memory):  # type: ignore[no-untyped-def]
    """Returns what the tests of the stream measure in a draw of at least one byte."""
    samples = np.frombuffer(data, np.uint8)
    return longest_run(samples, memory), largest_proportion(samples, memory)


@compiled
def _all(data, memory):  # type: ignore[no-untyped-def]
    """Returns what all tests measure in a draw of at least 512 bytes, in their order."""
    samples = np.frombuffer(data, np.uint8)
    return (
        longest_run(samples, memory),
        largest_proportion(samples, memory),
        windows_seen(samples, memory[MARKS:].view(U64)),
        largest_imbalance(samples, memory[ONES:COUNTS]),
        most_frequent_difference(
            samples, memory[COUNTS:SMALL_COUNTS], memory[SMALL_COUNTS:MARKS].view(np.uint8)
        ),
    )


class CompiledMeasures:
    """Measures what :class:`~qr_sampler.health.measures.DrawMeasures` does, in microseconds.

    Args:
        most_repeated: Longer runs are measured as of this length.
    """

    def __init__(self, most_repeated: int) -> None:
        self._memory = np.zeros(MARKS + PLACES, dtype=np.int64)
        self._memory[MOST] = most_repeated
        self.restart()

    def restart(self) -> None:
        """Begins another stream. Windows that were seen stay known."""
        self._memory[:MOST] = (-1, 0, 0, 0, 0)

    def of(self, data: bytes) -> Measured:
        """Returns what the tests measure in the next draw of the stream."""
        # Whatever surrounds the compiled code costs as much as a tenth of it.
        if len(data) >= SHORTEST_DRAW:
            return _all(data, self._memory)  # type: ignore[no-any-return]
        if data:
            return _stream(data, self._memory)  # type: ignore[no-any-return]
        return (0, 0)
