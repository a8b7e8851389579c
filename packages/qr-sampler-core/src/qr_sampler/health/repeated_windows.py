# SPDX-License-Identifier: Apache-2.0
"""Finds bytes that were served before: buffers handed out again, periods of whole windows."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from qr_sampler.health.cutoffs import WINDOW

__all__ = ["RepeatedWindows"]

PLACES: Final = 1 << 20
"""How many windows are remembered at most; a later one takes the place of an earlier one."""

_KEY_BYTES: Final = 16
_FIRST: Final = np.uint64(0x9E3779B97F4A7C15)
_SECOND: Final = np.uint64(0xBF58476D1CE4E5B9)
_HALF: Final = np.uint64(32)
_TO_PLACE: Final = np.uint64(44)
"""Leaves as many bits as there are places."""


class RepeatedWindows:
    """Compares the first 16 bytes of every window of 512 bytes with those of earlier windows.

    Each window is remembered by a hash of 64 bits (multiplication by the odd constants of
    splitmix64) at one of 2**20 places; a place keeps the latest. A window of independent uniform
    bytes is taken for an earlier one with a probability of 2**-64; one that begins with 16 zeros
    counts as seen before. Eight megabytes are used from the first long draw on.
    """

    def __init__(self) -> None:
        self._places: npt.NDArray[np.uint64] | None = None

    def add(self, data: npt.NDArray[np.uint8]) -> int:
        """Returns how many windows of *data* have been seen before, in it or in earlier draws.

        Args:
            data: Bytes of one draw, shape ``(n,)``; what remains after its last whole window, and
                draws of less than one, are exempt.
        """
        windows = len(data) // WINDOW
        if not windows:
            return 0
        if self._places is None:
            self._places = np.zeros(PLACES, dtype=np.uint64)
        heads = data[: windows * WINDOW].reshape(windows, WINDOW)[:, :_KEY_BYTES]
        words = np.ascontiguousarray(heads).view("<u8")
        marks = _mixed(words[:, 0], words[:, 1])
        # Of another hash, so that a mark keeps all of its bits.
        places = _mixed(words[:, 1], words[:, 0]) >> _TO_PLACE
        if len(set(places.tolist())) < windows:
            return _one_by_one(self._places, places.tolist(), marks.tolist())
        known = self._places[places] == marks
        self._places[places] = marks
        return int(np.count_nonzero(known))


def _one_by_one(remembered: npt.NDArray[np.uint64], places: list[int], marks: list[int]) -> int:
    """Returns how many windows have been seen before, some of which share a place."""
    seen = 0
    for place, mark in zip(places, marks, strict=True):
        seen += int(remembered[place]) == mark
        remembered[place] = mark
    return seen


def _mixed(first: npt.NDArray[np.uint64], second: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Returns a hash of each pair of words, shape ``(n,)``."""
    mixed: npt.NDArray[np.uint64] = first * _FIRST
    mixed ^= mixed >> _HALF
    mixed = (mixed ^ second) * _SECOND
    mixed ^= mixed >> _HALF
    mixed *= _FIRST
    mixed ^= mixed >> _HALF
    return mixed
