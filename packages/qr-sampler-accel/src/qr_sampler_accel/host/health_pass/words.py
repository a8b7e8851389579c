# SPDX-License-Identifier: Apache-2.0
"""What is done with the eight bytes of a word at once (Warren, Hacker's Delight, chapters 2, 5)."""

from __future__ import annotations

from typing import Final

import numpy as np

from qr_sampler_accel.host.arithmetic.compiler import compiled

__all__ = [
    "EACH_BYTE",
    "LOW_BITS",
    "TOP_BITS",
    "U64",
    "WINDOW",
    "WINDOW_WORDS",
    "byte_sum",
    "unequal_bytes",
]

U64 = np.uint64
WINDOW: Final = 512
"""Bytes of a window of the proportion test, and of those that may not come again."""

WINDOW_WORDS: Final = WINDOW // 8

EVEN_BYTES, EACH_SHORT = U64(0x00FF00FF00FF00FF), U64(0x0001000100010001)
EACH_BYTE, LOW_BITS, TOP_BITS = (
    U64(0x0101010101010101),
    U64(0x7F7F7F7F7F7F7F7F),
    U64(0x8080808080808080),
)


@compiled
def byte_sum(word):  # type: ignore[no-untyped-def]
    """Returns the sum of the bytes of a word."""
    pairs = (word & EVEN_BYTES) + ((word >> U64(8)) & EVEN_BYTES)
    return np.int64((pairs * EACH_SHORT) >> U64(48))


@compiled
def unequal_bytes(a, b):  # type: ignore[no-untyped-def]
    """Returns a word with the top bit of every byte at which two words differ."""
    v = a ^ b
    return (((v & LOW_BITS) + LOW_BITS) | v) & TOP_BITS
