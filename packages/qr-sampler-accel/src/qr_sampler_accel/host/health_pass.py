# SPDX-License-Identifier: Apache-2.0
"""All health tests of a draw in one compiled pass."""

from __future__ import annotations

from typing import Final, cast

import numpy as np
import numpy.typing as npt

from qr_sampler.health.measures import Measured
from qr_sampler.health.repeated_windows import PLACES
from qr_sampler.health.whole_draws import SHORTEST_DRAW
from qr_sampler_accel.host.arithmetic.compiler import compiled

__all__ = ["CompiledMeasures"]

U64 = np.uint64
WINDOW: Final = 512
WINDOW_WORDS: Final = WINDOW // 8
MOST_WORDS: Final = 255
"""Words whose bytes of one bit each add up to less than 256."""

PIECE_WORDS: Final = 128
"""Words of a piece in which runs are looked for."""

EVEN_BYTES, EACH_SHORT = U64(0x00FF00FF00FF00FF), U64(0x0001000100010001)
EACH_BYTE, LOW_BITS, TOP_BITS = (
    U64(0x0101010101010101),
    U64(0x7F7F7F7F7F7F7F7F),
    U64(0x8080808080808080),
)
FIRST, SECOND = U64(0x9E3779B97F4A7C15), U64(0xBF58476D1CE4E5B9)

LAST, RUN, WINDOW_FIRST, WINDOW_COUNT, WINDOW_SEEN = range(5)
"""What is carried from draw to draw: the last byte and the length of its run, the first byte of the
window that goes on, how often it has come, and how many bytes of the window have."""


@compiled
def _byte_sum(word):  # type: ignore[no-untyped-def]
    """Returns the sum of the bytes of a word."""
    pairs = (word & EVEN_BYTES) + ((word >> U64(8)) & EVEN_BYTES)
    return np.int64((pairs * EACH_SHORT) >> U64(48))


@compiled
def _unequal_bytes(a, b):  # type: ignore[no-untyped-def]
    """Returns a word with the top bit of every byte at which two words differ."""
    v = a ^ b
    return (((v & LOW_BITS) + LOW_BITS) | v) & TOP_BITS


@compiled
def _count_of(data, start, end, value):  # type: ignore[no-untyped-def]
    """Returns how often *value* is among some bytes, at most 255 words of them at once."""
    count, j = 0, start
    while end - j >= 8:
        length = min((end - j) // 8, MOST_WORDS)
        words = data[j : j + 8 * length].view(np.uint64)
        pattern, unequal = U64(value) * EACH_BYTE, U64(0)
        for i in range(length):
            unequal += _unequal_bytes(words[i], pattern) >> U64(7)
        count += 8 * length - _byte_sum(unequal)
        j += 8 * length
    for i in range(j, end):
        count += data[i] == value
    return count


@compiled
def _longest_run(data, state, most):  # type: ignore[no-untyped-def]
    """Returns the longest run, the one that goes on from earlier draws included, at most *most*."""
    n = data.size
    head = 1
    while head < n and data[head] == data[0]:
        head += 1
    first = head + state[RUN] if data[0] == state[LAST] else head
    longest = first
    if head < n:
        tail = 1
        while data[n - 1 - tail] == data[n - 1]:
            tail += 1
        state[RUN] = min(tail, most)
        longest = max(longest, _inner_run(data, most))
    else:
        state[RUN] = min(first, most)
    state[LAST] = data[n - 1]
    return min(longest, most)


@compiled
def _inner_run(data, most):  # type: ignore[no-untyped-def]
    """Returns the longest run of equal bytes, at most *most*.

    Three equal bytes are rare: only pieces in which such begin are read byte by byte.
    """
    n = data.size
    length = max(n - 2, 0) // 8
    one = data[: 8 * length].view(np.uint64)
    two = data[1 : 1 + 8 * length].view(np.uint64)
    three = data[2 : 2 + 8 * length].view(np.uint64)
    longest = _run_among(data, 8 * length, n, most)
    for start in range(0, length, PIECE_WORDS):
        end = min(start + PIECE_WORDS, length)
        unequal, lonely = TOP_BITS, TOP_BITS
        for i in range(start, end):
            pair = _unequal_bytes(one[i], two[i])
            unequal &= pair
            lonely &= pair | _unequal_bytes(two[i], three[i])
        if lonely != TOP_BITS:
            longest = max(longest, _run_among(data, 8 * start, 8 * end, most))
        elif unequal != TOP_BITS:
            longest = max(longest, 2)
        if longest >= most:
            break
    return longest


@compiled
def _run_among(data, start, stop, most):  # type: ignore[no-untyped-def]
    """Returns the longest run that begins among some bytes, at most *most*."""
    longest, run = 1, 1
    for i in range(start + 1, data.size):
        if data[i] == data[i - 1]:
            run += 1
            longest = max(longest, run)
            if run >= most:
                break
        elif i >= stop:
            break
        else:
            run = 1
    return longest


@compiled
def _proportion(data, state):  # type: ignore[no-untyped-def]
    """Returns the largest number of times that a window has its own first byte."""
    n, j, largest = data.size, 0, 0
    if state[WINDOW_SEEN]:
        j = min(WINDOW - state[WINDOW_SEEN], n)
        state[WINDOW_COUNT] += _count_of(data, 0, j, state[WINDOW_FIRST])
        state[WINDOW_SEEN] = (state[WINDOW_SEEN] + j) % WINDOW
        largest = state[WINDOW_COUNT]
    while j < n:
        end = min(j + WINDOW, n)
        count = _count_of(data, j, end, data[j])
        largest = max(largest, count)
        state[WINDOW_FIRST], state[WINDOW_COUNT] = data[j], count
        state[WINDOW_SEEN] = (end - j) % WINDOW
        j = end
    return largest


@compiled
def _mixed(first, second):  # type: ignore[no-untyped-def]
    """Returns the hash of two words of :mod:`qr_sampler.health.repeated_windows`."""
    mixed = first * FIRST
    mixed ^= mixed >> U64(32)
    mixed = (mixed ^ second) * SECOND
    mixed ^= mixed >> U64(32)
    mixed *= FIRST
    return mixed ^ (mixed >> U64(32))


@compiled
def _windows_seen(data, places):  # type: ignore[no-untyped-def]
    """Returns how many whole windows have been seen before, and remembers them."""
    windows = data.size // WINDOW
    words = data[: windows * WINDOW].view(np.uint64)
    seen = 0
    for i in range(windows):
        first, second = words[i * WINDOW_WORDS], words[i * WINDOW_WORDS + 1]
        mark, place = _mixed(first, second), _mixed(second, first) >> U64(44)
        seen += places[place] == mark
        places[place] = mark
    return seen


@compiled
def _largest_imbalance(data):  # type: ignore[no-untyped-def]
    """Returns how far the share of ones at any place of a byte is from one half."""
    n = data.size
    ones = np.zeros(8, np.int64)
    words = data[: n // 8 * 8].view(np.uint64)
    for start in range(0, words.size, MOST_WORDS):
        a = b = c = d = e = f = g = h = U64(0)
        for i in range(start, min(start + MOST_WORDS, words.size)):
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
            ones[place] += _byte_sum(sums)
    for i in range(8 * words.size, n):
        for place in range(8):
            ones[place] += (data[i] >> place) & 1
    off = 0.0
    for place in range(8):
        off = max(off, abs(ones[place] / n - 0.5))
    return off


@compiled
def _most_frequent_difference(data):  # type: ignore[no-untyped-def]
    """Returns how often the most frequent difference of neighbours, modulo 256, occurs.

    Eight differences at once are those of two words, byte by byte (Warren, Hacker's Delight, 2-18).
    """
    # A table for every fourth one: counting the same one twice in a row would wait.
    counts = np.zeros(1024, np.uint32)
    n = data.size
    length = (n - 1) // 8
    before, after = data[: 8 * length].view(np.uint64), data[1 : 1 + 8 * length].view(np.uint64)
    for i in range(length):
        x, y = after[i], before[i]
        d = ((x | TOP_BITS) - (y & LOW_BITS)) ^ ((x ^ ~y) & TOP_BITS)
        counts[d & U64(255)] += 1
        counts[U64(256) + ((d >> U64(8)) & U64(255))] += 1
        counts[U64(512) + ((d >> U64(16)) & U64(255))] += 1
        counts[U64(768) + ((d >> U64(24)) & U64(255))] += 1
        counts[(d >> U64(32)) & U64(255)] += 1
        counts[U64(256) + ((d >> U64(40)) & U64(255))] += 1
        counts[U64(512) + ((d >> U64(48)) & U64(255))] += 1
        counts[U64(768) + (d >> U64(56))] += 1
    for i in range(1 + 8 * length, n):
        counts[(np.int64(data[i]) - np.int64(data[i - 1])) & 255] += 1
    largest = np.int64(0)
    for j in range(256):
        largest = max(
            largest, np.int64(counts[j] + counts[j + 256] + counts[j + 512] + counts[j + 768])
        )
    return largest


@compiled
def _stream(data, state, most):  # type: ignore[no-untyped-def]
    """Returns what the tests of the stream measure in a draw of at least one byte."""
    return _longest_run(data, state, most), _proportion(data, state)


@compiled
def _all(data, state, most, places):  # type: ignore[no-untyped-def]
    """Returns what all tests measure in a draw of at least 512 bytes, in their order."""
    return (
        _longest_run(data, state, most),
        _proportion(data, state),
        _windows_seen(data, places),
        _largest_imbalance(data),
        _most_frequent_difference(data),
    )


class CompiledMeasures:
    """Measures what :class:`~qr_sampler.health.measures.DrawMeasures` does, in microseconds.

    Args:
        most_repeated: Longer runs are measured as of this length.
    """

    def __init__(self, most_repeated: int) -> None:
        self._most_repeated = most_repeated
        self._state = np.zeros(5, dtype=np.int64)
        self._places: npt.NDArray[np.uint64] | None = None
        self.restart()

    def restart(self) -> None:
        """Begins another stream. Windows that were seen stay known."""
        self._state[:] = (-1, 0, 0, 0, 0)

    def of(self, data: bytes) -> Measured:
        """Returns what the tests measure in the next draw of the stream."""
        size = len(data)
        if not size:
            return (0, 0)
        samples = np.frombuffer(data, dtype=np.uint8)
        if size < SHORTEST_DRAW:
            return cast("Measured", _stream(samples, self._state, self._most_repeated))
        if self._places is None:
            self._places = np.zeros(PLACES, dtype=np.uint64)
        return cast("Measured", _all(samples, self._state, self._most_repeated, self._places))
