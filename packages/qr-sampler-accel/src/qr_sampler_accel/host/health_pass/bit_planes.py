# SPDX-License-Identifier: Apache-2.0
"""The share of ones at each place of a byte."""

from __future__ import annotations

from typing import Final

from qr_sampler_accel.host.arithmetic.compiler import compiled
from qr_sampler_accel.host.health_pass.words import EACH_BYTE, U64, byte_sum

__all__ = ["largest_imbalance"]

FIFTEENTH: Final = 16
"""Words of a fifteenth of a piece; so many loops over a length that is known are compiled best."""

EVEN_BITS, PAIRS, LOW_HALVES = (
    U64(0x5555555555555555),
    U64(0x3333333333333333),
    U64(0x0F0F0F0F0F0F0F0F),
)


@compiled
def largest_imbalance(data, ones):  # type: ignore[no-untyped-def]
    """Returns how far the share of ones at any place of a byte is from one half."""
    n = data.size
    words = data[: n // 8 * 8].view(U64)
    pieces = words.size // (15 * FIFTEENTH)
    ones[:] = 0
    for piece in range(pieces):
        start = 15 * FIFTEENTH * piece
        _add_ones_of_piece(words[start : start + 15 * FIFTEENTH], ones)
    _add_ones(words[15 * FIFTEENTH * pieces :], ones)
    for i in range(8 * words.size, n):
        for place in range(8):
            ones[place] += (data[i] >> place) & 1
    off = 0.0
    for place in range(8):
        off = max(off, abs(ones[place] / n - 0.5))
    return off


@compiled
def _add_ones_of_piece(words, ones):  # type: ignore[no-untyped-def]
    """Adds how many bytes of 240 words have a one at each place.

    Bits of three words are added side by side in fields of two bits, five of those sums in fields
    of four, and 16 of these in bytes (Warren, Hacker's Delight, 5-1).
    """
    a = b = c = d = e = f = g = h = U64(0)
    for i in range(FIFTEENTH):
        even, odd = _in_two_bits(words, i)
        even_1, odd_1 = _in_two_bits(words, i + 3 * FIFTEENTH)
        even_2, odd_2 = _in_two_bits(words, i + 6 * FIFTEENTH)
        even_3, odd_3 = _in_two_bits(words, i + 9 * FIFTEENTH)
        even_4, odd_4 = _in_two_bits(words, i + 12 * FIFTEENTH)
        first, third = _in_four_bits(even, even_1, even_2, even_3, even_4)
        second, fourth = _in_four_bits(odd, odd_1, odd_2, odd_3, odd_4)
        a += first & LOW_HALVES
        b += second & LOW_HALVES
        c += third & LOW_HALVES
        d += fourth & LOW_HALVES
        e += (first >> U64(4)) & LOW_HALVES
        f += (second >> U64(4)) & LOW_HALVES
        g += (third >> U64(4)) & LOW_HALVES
        h += (fourth >> U64(4)) & LOW_HALVES
    for place, sums in enumerate((a, b, c, d, e, f, g, h)):
        ones[place] += byte_sum(sums)


@compiled
def _in_two_bits(words, i):  # type: ignore[no-untyped-def]
    """Returns sums over three words of the bits at even places, and of those at odd ones."""
    x, y, z = words[i], words[i + FIFTEENTH], words[i + 2 * FIFTEENTH]
    even = (x & EVEN_BITS) + (y & EVEN_BITS) + (z & EVEN_BITS)
    x, y, z = x >> U64(1), y >> U64(1), z >> U64(1)
    return even, (x & EVEN_BITS) + (y & EVEN_BITS) + (z & EVEN_BITS)


@compiled
def _in_four_bits(v, w, x, y, z):  # type: ignore[no-untyped-def]
    """Returns sums over five words of their fields of two bits, of every other one each."""
    even = (v & PAIRS) + (w & PAIRS) + (x & PAIRS) + (y & PAIRS) + (z & PAIRS)
    v, w, x, y, z = v >> U64(2), w >> U64(2), x >> U64(2), y >> U64(2), z >> U64(2)
    return even, (v & PAIRS) + (w & PAIRS) + (x & PAIRS) + (y & PAIRS) + (z & PAIRS)


@compiled
def _add_ones(words, ones):  # type: ignore[no-untyped-def]
    """Adds how many bytes of less than 256 words have a one at each place."""
    a = b = c = d = e = f = g = h = U64(0)
    for i in range(words.size):
        w = words[i]
        a += w & EACH_BYTE
        b += (w >> U64(1)) & EACH_BYTE
        c += (w >> U64(2)) & EACH_BYTE
        d += (w >> U64(3)) & EACH_BYTE
        e += (w >> U64(4)) & EACH_BYTE
        f += (w >> U64(5)) & EACH_BYTE
        g += (w >> U64(6)) & EACH_BYTE
        h += (w >> U64(7)) & EACH_BYTE
    for place, sums in enumerate((a, b, c, d, e, f, g, h)):
        ones[place] += byte_sum(sums)
