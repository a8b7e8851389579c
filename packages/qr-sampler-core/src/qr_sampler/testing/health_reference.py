# SPDX-License-Identifier: Apache-2.0
"""The health tests as their definitions read, one byte after the other.

Slow, in plain integers, and with no code of what is compared with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from qr_sampler.health.measures import Measured

__all__ = ["ByteByByte", "ContinuousByteByByte"]

_WINDOW: Final = 512
_PLACE_BITS: Final = 20
_WORD: Final = 2**64 - 1


class ContinuousByteByByte:
    """The two continuous tests of NIST SP 800-90B (4.4.1 and 4.4.2), as the standard prints them.

    Args:
        most: Longer runs are reported as of this length.
        window: Samples in a window of the proportion test.
    """

    def __init__(self, most: int, window: int = _WINDOW) -> None:
        self._most, self._window = most, window
        self._last, self._run = -1, 0
        self._first, self._count, self._left = -1, 0, 0

    def add(self, piece: Sequence[int]) -> tuple[int, int]:
        """Returns the longest run and the largest count that a sample of *piece* belongs to."""
        longest = largest = 0
        for sample in piece:
            self._run = self._run + 1 if sample == self._last else 1
            self._last = sample
            if self._run > longest:
                longest = self._run
            if self._left == 0:
                self._first, self._count, self._left = sample, 0, self._window
            self._count += sample == self._first
            self._left -= 1
            if self._count > largest:
                largest = self._count
        return min(longest, self._most), largest


class ByteByByte:
    """All tests of a draw; a :class:`~qr_sampler.health.measures.Measures`.

    Args:
        most_repeated: Longer runs are measured as of this length.

    Examples:
        >>> reference = ByteByByte(9)
        >>> reference.of(b"aab"), reference.of(b"bb")
        ((2, 2), (3, 2))
    """

    def __init__(self, most_repeated: int) -> None:
        self._most_repeated = most_repeated
        self._marks: dict[int, int] = {}
        """Hash of the latest window by its place; that of 16 zero bytes holds from the start."""
        self.restart()

    def restart(self) -> None:
        """Begins another stream. Windows that were seen stay known."""
        self._continuous = ContinuousByteByByte(self._most_repeated)

    def of(self, data: bytes) -> Measured:
        """Returns what the tests measure in the next draw of the stream."""
        stream = self._continuous.add(data)
        if len(data) < _WINDOW:
            return stream
        return (*stream, self._windows_seen(data), _imbalance(data), _commonest_difference(data))

    def _windows_seen(self, data: bytes) -> int:
        seen = 0
        for start in range(0, len(data) - _WINDOW + 1, _WINDOW):
            first = int.from_bytes(data[start : start + 8], "little")
            second = int.from_bytes(data[start + 8 : start + 16], "little")
            mark, place = _mixed(first, second), _mixed(second, first) >> (64 - _PLACE_BITS)
            seen += self._marks.get(place, 0) == mark
            self._marks[place] = mark
        return seen


def _mixed(first: int, second: int) -> int:
    """Returns the hash of two words: multiplications modulo 2**64 and shifts by half a word."""
    mixed = first * 0x9E3779B97F4A7C15 & _WORD
    mixed ^= mixed >> 32
    mixed = (mixed ^ second) * 0xBF58476D1CE4E5B9 & _WORD
    mixed ^= mixed >> 32
    mixed = mixed * 0x9E3779B97F4A7C15 & _WORD
    return mixed ^ (mixed >> 32)


def _imbalance(data: bytes) -> float:
    """Returns how far the share of ones at any place of a byte is from one half."""
    ones = (sum(byte >> place & 1 for byte in data) for place in range(8))
    return max(abs(count / len(data) - 0.5) for count in ones)


def _commonest_difference(data: bytes) -> int:
    """Returns how often the most frequent difference of neighbours, modulo 256, occurs."""
    return max(Counter((after - before) % 256 for before, after in pairwise(data)).values())
