# SPDX-License-Identifier: Apache-2.0
"""How long answers are, and whether u may have decided it."""

from __future__ import annotations

from typing import Final

import numpy as np

from qr_sampler_lab.tables.columns import Integers

__all__ = ["AnswerLengths"]

MOST_ANSWERS: Final = 2**18
"""Largest number of answers of an arm whose lengths are remembered."""


class AnswerLengths:
    """Number of tokens of every answer of an arm.

    Where lengths are unequal, u may have decided them: an answer ends with a token that u chose.
    """

    def __init__(self) -> None:
        self.count = 0
        """Number of answers, of the first :data:`MOST_ANSWERS` at least."""
        self._lengths: dict[int, int] = {}
        self._overflowed = False

    def add(self, sequence: Integers) -> None:
        """Adds the answers of tokens. Shape ``(B,)``."""
        if self._overflowed:
            return
        numbers, counts = np.unique(sequence, return_counts=True)
        lengths = self._lengths
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            lengths[number] = lengths.get(number, 0) + count
        self.count = len(lengths)
        if self.count > MOST_ANSWERS:
            self._overflowed = True
            lengths.clear()

    @property
    def are_equal(self) -> bool:
        """Whether all answers are known to be of one length."""
        return not self._overflowed and len(set(self._lengths.values())) == 1
