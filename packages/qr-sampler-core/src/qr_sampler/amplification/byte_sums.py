# SPDX-License-Identifier: Apache-2.0
"""Sums of bytes and numbers of one bits of many blocks, exact and without large temporaries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qr_sampler.arrays import ByteBlocks, IndexArray

__all__ = ["BlockCounts", "block_ones", "block_sums", "bytewise_ones"]

# Below these sizes the plain sum is faster than folding.
_PLAIN_BYTES: Final = 1_024
_FOLD: Final = 256
# 257 bytes of 255 add up to 65,535: the most that 16 bits hold.
_FOLD_ROWS: Final = 257
# Temporaries stay near 32 KiB, within the first cache of most processors.
_TILE: Final = 2**15

_ONES: Final = np.array([value.bit_count() for value in range(256)], dtype=np.uint8)


class BlockCounts:
    """What is counted in B blocks, each count when it is first asked for.

    A subclass may count faster.

    Args:
        blocks: Shape ``(B, n)`` with n < 2**24, uint8; may not change any more.
    """

    __slots__ = ("_blocks", "_ones", "_sums")

    def __init__(self, blocks: ByteBlocks) -> None:
        self._blocks = blocks
        self._sums: IndexArray | None = None
        self._ones: IndexArray | None = None

    @property
    def sums(self) -> IndexArray:
        """Sums of the bytes. Shape ``(B,)``."""
        if self._sums is None:
            self._sums = block_sums(self._blocks)
        return self._sums

    @property
    def ones(self) -> IndexArray:
        """Numbers of one bits. Shape ``(B,)``."""
        if self._ones is None:
            self._ones = block_ones(self._blocks)
        return self._ones


def block_sums(blocks: ByteBlocks) -> IndexArray:
    """Returns the sum of the bytes of every block.

    Long blocks are first folded to 256 columns in 16-bit numbers, which is several times faster
    than widening every byte.

    Args:
        blocks: Shape ``(B, n)`` with n < 2**24, uint8.

    Examples:
        >>> block_sums(np.array([[1, 2], [255, 255]], dtype=np.uint8)).tolist()
        [3, 510]
    """
    count, size = blocks.shape
    if count == 1 or size <= _PLAIN_BYTES:
        return _widened(blocks.sum(axis=1, dtype=np.uint32))
    whole = size - size % _FOLD
    totals = blocks[:, whole:].sum(axis=1, dtype=np.uint32)
    for start in range(0, whole, _FOLD * _FOLD_ROWS):
        part = blocks[:, start : min(start + _FOLD * _FOLD_ROWS, whole)]
        folded = np.add.reduce(part.reshape(count, -1, _FOLD), axis=1, dtype=np.uint16)
        totals += folded.sum(axis=1, dtype=np.uint32)
    return _widened(totals)


def block_ones(blocks: ByteBlocks) -> IndexArray:
    """Returns the number of one bits of every block.

    Args:
        blocks: Shape ``(B, n)`` with n < 2**24, uint8.

    Examples:
        >>> block_ones(np.array([[1, 2], [255, 255]], dtype=np.uint8)).tolist()
        [2, 16]
    """
    # NumPy 1 has no bitwise_count.
    if not hasattr(np, "bitwise_count"):
        return bytewise_ones(blocks)
    # Eight bytes are read as one number, which needs them side by side.
    if blocks.strides[1] != 1:
        blocks = np.ascontiguousarray(blocks)
    whole = blocks.shape[1] - blocks.shape[1] % 8
    rest = blocks[:, whole:]
    ones = bytewise_ones(rest) if rest.size else np.zeros(blocks.shape[0], dtype=np.intp)
    words = blocks[:, :whole].view(np.uint64)
    if words.size <= _TILE:
        ones += np.bitwise_count(words).sum(axis=1, dtype=np.uint32)
        return ones
    for lines, tile in _tiles(words):
        ones[lines] += np.bitwise_count(tile).sum(axis=1, dtype=np.uint32)
    return ones


def bytewise_ones(blocks: ByteBlocks) -> IndexArray:
    """Returns the number of one bits of every block from a table of the 256 byte values."""
    ones: IndexArray = np.zeros(blocks.shape[0], dtype=np.intp)
    for lines, tile in _tiles(blocks):
        ones[lines] += _ONES[tile].sum(axis=1, dtype=np.uint32)
    return ones


def _widened(totals: NDArray[np.uint32]) -> IndexArray:
    return totals.astype(np.intp)


def _tiles(words: NDArray[Any]) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yields rectangles of *words* of about ``_TILE`` elements, each with the lines it covers."""
    count, width = words.shape
    height = max(1, _TILE // max(width, 1))
    for top in range(0, count, height):
        lines = slice(top, top + height)
        for left in range(0, width, _TILE):
            yield lines, words[lines, left : left + _TILE]
