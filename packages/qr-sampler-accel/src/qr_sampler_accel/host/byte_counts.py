# SPDX-License-Identifier: Apache-2.0
"""Sums of bytes and numbers of one bits as compiled loops."""

from __future__ import annotations

from typing import Final

import numpy as np

from qr_sampler import BlockCounts
from qr_sampler.arrays import ByteBlocks
from qr_sampler_accel.host.arithmetic.compiler import compiled

__all__ = ["CompiledCounts"]

WORD_BYTES: Final = 8

U64 = np.uint64
EVEN_BYTES, EVEN_SHORTS = U64(0x00FF00FF00FF00FF), U64(0x0000FFFF0000FFFF)
PAIRS, NIBBLES, BYTES = U64(0x5555555555555555), U64(0x3333333333333333), U64(0x0F0F0F0F0F0F0F0F)
EACH_BYTE = U64(0x0101010101010101)


@compiled
def _count(blocks, sums, ones):  # type: ignore[no-untyped-def]
    """Writes the sum of the bytes of each block and its number of one bits, word by word.

    Pairs of bytes, then of 16-bit numbers are added inside a word of 64 bits; what is left are two
    32-bit numbers, which hold the sums of up to 2**24 bytes. Bits are counted as in Warren,
    Hacker's Delight, 5-1.
    """
    for line in range(len(blocks)):
        total, bits = U64(0), U64(0)
        row = blocks[line].view(np.uint64)
        for j in range(row.size):
            w = row[j]
            pairs = (w & EVEN_BYTES) + ((w >> U64(8)) & EVEN_BYTES)
            total += (pairs & EVEN_SHORTS) + ((pairs >> U64(16)) & EVEN_SHORTS)
            w = w - ((w >> U64(1)) & PAIRS)
            w = (w & NIBBLES) + ((w >> U64(2)) & NIBBLES)
            w = (w + (w >> U64(4))) & BYTES
            bits += (w * EACH_BYTE) >> U64(56)
        sums[line] = (total & U64(0xFFFFFFFF)) + (total >> U64(32))
        ones[line] = bits


class CompiledCounts(BlockCounts):
    """Counts what its base class counts; at once, in one loop, where blocks are whole words.

    Args:
        blocks: As for the base class.
    """

    __slots__ = ()

    def __init__(self, blocks: ByteBlocks) -> None:
        self._blocks, self._sums, self._ones = blocks, None, None
        if blocks.flags.c_contiguous and not blocks.shape[1] % WORD_BYTES:
            self._sums = np.empty(len(blocks), dtype=np.intp)
            self._ones = np.empty(len(blocks), dtype=np.intp)
            _count(blocks, self._sums, self._ones)
