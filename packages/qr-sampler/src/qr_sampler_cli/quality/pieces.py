# SPDX-License-Identifier: Apache-2.0
"""Counts over large samples, a piece at a time: the pieces fit into memory where copies do not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["PIECE", "BitCounts", "bit_counts", "byte_counts", "pieces"]

PIECE: Final = 6 * 2**18
"""Bytes of a piece, a multiple of the six that a point of ``ent`` takes."""

_BYTES: Final = np.arange(256, dtype=np.uint8)


def pieces(
    data: npt.NDArray[np.uint8], ahead: int = 0
) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    """Yields pieces of *data*, and each once more with up to *ahead* bytes that follow it."""
    for begin in range(0, len(data), PIECE):
        yield data[begin : begin + PIECE], data[begin : begin + PIECE + ahead]


def byte_counts(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Returns how often each byte comes, shape ``(256,)``."""
    counts = np.zeros(256, dtype=np.int64)
    for piece, _ in pieces(data):
        counts += np.bincount(piece, minlength=256)
    return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class BitCounts:
    """Counts of bits, the highest bit of a byte first."""

    bits: int
    """Number of bits."""
    ones: int
    """Number of ones."""
    changes: int
    """Neighbours that differ."""
    one_after_one: int
    """Neighbours that are both ones."""


def bit_counts(data: npt.NDArray[np.uint8]) -> BitCounts:
    """Returns the counts of *data*, shape ``(n,)`` with n of at least 1."""
    counts = byte_counts(data)
    changes = int(counts @ _ones_of((_BYTES ^ (_BYTES >> np.uint8(1))) & np.uint8(0x7F)))
    both = int(counts @ _ones_of(_BYTES & (_BYTES >> np.uint8(1))))
    for _, piece in pieces(data, ahead=1):
        last, first = piece[:-1] & 1, piece[1:] >> 7
        changes += int(np.count_nonzero(last != first))
        both += int(np.count_nonzero(last & first))
    ones = int(counts @ _ones_of(_BYTES))
    return BitCounts(bits=8 * len(data), ones=ones, changes=changes, one_after_one=both)


def _ones_of(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Returns the number of ones of each of 256 bytes."""
    bits = np.unpackbits(values[:, np.newaxis], axis=1)
    return np.asarray(bits.sum(axis=1, dtype=np.int64))
