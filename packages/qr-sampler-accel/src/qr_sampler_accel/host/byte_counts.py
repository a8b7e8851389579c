# SPDX-License-Identifier: Apache-2.0
"""Sums of bytes and numbers of one bits as compiled loops."""

from __future__ import annotations

from typing import Final

import numpy as np

from qr_sampler import BlockCounts
from qr_sampler.arrays import ByteBlocks, IndexArray
from qr_sampler_accel.host.arithmetic.compiler import compiled

__all__ = ["CompiledCounts"]

WORD_BYTES: Final = 8

U64 = np.uint64
EVEN_BYTES, EVEN_SHORTS = U64(0x00FF00FF00FF00FF), U64(0x0000FFFF0000FFFF)
PAIRS, NIBBLES, BYTES = U64(0x5555555555555555), U64(0x3333333333333333), U64(0x0F0F0F0F0F0F0F0F)
EACH_BYTE = U64(0x0101010101010101)


@compiled
def _sums(blocks, sums):  # type: ignore[no-untyped-def]
    """Writes the sum of the bytes of each block, read as 64-bit words.

    Pairs of bytes, then of 16-bit numbers are added inside a word; what is left are two 32-bit
    numbers, which hold the sums of up to 2**24 bytes.
    """
    for line in range(len(blocks)):
        total = U64(0)
        row = blocks[line].view(np.uint64)
        for j in range(row.size):
            w = row[j]
            w = (w & EVEN_BYTES) + ((w >> U64(8)) & EVEN_BYTES)
            total += (w & EVEN_SHORTS) + ((w >> U64(16)) & EVEN_SHORTS)
        sums[line] = (total & U64(0xFFFFFFFF)) + (total >> U64(32))


@compiled
def _ones(blocks, ones):  # type: ignore[no-untyped-def]
    """Writes the number of one bits of each block (Warren, Hacker's Delight, 5-1)."""
    for line in range(len(blocks)):
        total = U64(0)
        row = blocks[line].view(np.uint64)
        for j in range(row.size):
            w = row[j]
            w = w - ((w >> U64(1)) & PAIRS)
            w = (w & NIBBLES) + ((w >> U64(2)) & NIBBLES)
            w = (w + (w >> U64(4))) & BYTES
            total += (w * EACH_BYTE) >> U64(56)
        ones[line] = total


class CompiledCounts(BlockCounts):
    """Counts what its base class counts, in compiled loops where blocks are whole words.

    Args:
        blocks: As for the base class.
    """

    __slots__ = ("_word_ones", "_word_sums", "_words")

    def __init__(self, blocks: ByteBlocks) -> None:
        super().__init__(blocks)
        are_words = blocks.flags.c_contiguous and not blocks.shape[1] % WORD_BYTES
        self._words = blocks if are_words else None
        self._word_sums: IndexArray | None = None
        self._word_ones: IndexArray | None = None

    @property
    def sums(self) -> IndexArray:
        """Sums of the bytes. Shape ``(B,)``."""
        if self._words is None:
            return super().sums
        if self._word_sums is None:
            self._word_sums = np.empty(len(self._words), dtype=np.intp)
            _sums(self._words, self._word_sums)
        return self._word_sums

    @property
    def ones(self) -> IndexArray:
        """Numbers of one bits. Shape ``(B,)``."""
        if self._words is None:
            return super().ones
        if self._word_ones is None:
            self._word_ones = np.empty(len(self._words), dtype=np.intp)
            _ones(self._words, self._word_ones)
        return self._word_ones
