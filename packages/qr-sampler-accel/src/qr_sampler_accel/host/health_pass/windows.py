# SPDX-License-Identifier: Apache-2.0
"""Windows that have come before, by the hash of their first two words."""

from __future__ import annotations

from qr_sampler_accel.host.arithmetic.compiler import compiled
from qr_sampler_accel.host.health_pass.words import U64, WINDOW, WINDOW_WORDS

__all__ = ["windows_seen"]

FIRST, SECOND = U64(0x9E3779B97F4A7C15), U64(0xBF58476D1CE4E5B9)


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
def windows_seen(data, places):  # type: ignore[no-untyped-def]
    """Returns how many whole windows have been seen before, and remembers them."""
    windows = data.size // WINDOW
    words = data[: windows * WINDOW].view(U64)
    seen = 0
    for i in range(windows):
        first, second = words[i * WINDOW_WORDS], words[i * WINDOW_WORDS + 1]
        mark, place = _mixed(first, second), _mixed(second, first) >> U64(44)
        seen += places[place] == mark
        places[place] = mark
    return seen
