# SPDX-License-Identifier: Apache-2.0
"""The tests that go on from draw to draw: runs, and the share of a window's first byte."""

from __future__ import annotations

from typing import Final

from qr_sampler_accel.host.arithmetic.compiler import compiled
from qr_sampler_accel.host.health_pass.memory import (
    LAST,
    MOST,
    RUN,
    WINDOW_COUNT,
    WINDOW_FIRST,
    WINDOW_SEEN,
)
from qr_sampler_accel.host.health_pass.words import (
    EACH_BYTE,
    U64,
    WINDOW,
    WINDOW_WORDS,
    byte_sum,
    unequal_bytes,
)

__all__ = ["largest_proportion", "longest_run"]

RUN_PIECE: Final = 1024
"""Bytes of a piece in which runs are looked for."""


@compiled
def _count_in_window(words, value):  # type: ignore[no-untyped-def]
    """Returns how often *value* is among the bytes of 64 words."""
    pattern, unequal = U64(value) * EACH_BYTE, U64(0)
    # Over a length that is known and a slice from zero: so it is compiled to vectors.
    for i in range(WINDOW_WORDS):
        unequal += unequal_bytes(words[i], pattern) >> U64(7)
    return WINDOW - byte_sum(unequal)


@compiled
def _count_among(data, value):  # type: ignore[no-untyped-def]
    """Returns how often *value* is among some bytes."""
    count = 0
    for byte in data:
        count += byte == value
    return count


@compiled
def longest_run(data, memory):  # type: ignore[no-untyped-def]
    """Returns the longest run, the one that goes on from earlier draws included, up to a length."""
    n, most = data.size, memory[MOST]
    head = 1
    while head < n and data[head] == data[0]:
        head += 1
    first = head + memory[RUN] if data[0] == memory[LAST] else head
    longest = first
    if head < n:
        tail = 1
        while data[n - 1 - tail] == data[n - 1]:
            tail += 1
        memory[RUN] = min(tail, most)
        longest = max(longest, _inner_run(data, most))
    else:
        memory[RUN] = min(first, most)
    memory[LAST] = data[n - 1]
    return min(longest, most)


@compiled
def _inner_run(data, most):  # type: ignore[no-untyped-def]
    """Returns the longest run of equal bytes, at most *most*.

    Three equal bytes are rare: only pieces in which such begin are read byte by byte.
    """
    longest = 1
    for start in range(0, data.size, RUN_PIECE):
        end = min(start + RUN_PIECE, data.size)
        if longest == 1 and _has_pair(data[start : end + 1]):
            longest = 2
        if _has_triple(data[start : end + 2]):
            longest = max(longest, _run_among(data, start, end, most))
        if longest >= most:
            break
    return longest


@compiled
def _has_pair(data):  # type: ignore[no-untyped-def]
    """Returns whether two equal bytes follow one another."""
    before, after = data[:-1], data[1:]
    found = False
    for i in range(after.size):
        found |= before[i] == after[i]
    return found


@compiled
def _has_triple(data):  # type: ignore[no-untyped-def]
    """Returns whether three equal bytes follow one another."""
    first, second, third = data[:-2], data[1:-1], data[2:]
    found = False
    for i in range(third.size):
        found |= (first[i] == second[i]) & (second[i] == third[i])
    return found


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
def largest_proportion(data, memory):  # type: ignore[no-untyped-def]
    """Returns the largest number of times that a window has its own first byte."""
    n, j, largest = data.size, 0, 0
    if memory[WINDOW_SEEN]:
        j = min(WINDOW - memory[WINDOW_SEEN], n)
        memory[WINDOW_COUNT] += _count_among(data[:j], memory[WINDOW_FIRST])
        memory[WINDOW_SEEN] = (memory[WINDOW_SEEN] + j) % WINDOW
        largest = memory[WINDOW_COUNT]
    whole = data[j : j + (n - j) // WINDOW * WINDOW].view(U64)
    for window in range(whole.size // WINDOW_WORDS):
        words = whole[WINDOW_WORDS * window : WINDOW_WORDS * (window + 1)]
        largest = max(largest, _count_in_window(words, words[0] & U64(255)))
    j += 8 * whole.size
    if j < n:
        memory[WINDOW_FIRST], memory[WINDOW_SEEN] = data[j], n - j
        memory[WINDOW_COUNT] = _count_among(data[j:], data[j])
        largest = max(largest, memory[WINDOW_COUNT])
    return largest
