# SPDX-License-Identifier: Apache-2.0
"""What the tests of one source remember, in one array of whole numbers."""

from __future__ import annotations

from typing import Final

__all__ = [
    "COUNTS",
    "LAST",
    "MARKS",
    "MOST",
    "ONES",
    "RUN",
    "SMALL_COUNTS",
    "WINDOW_COUNT",
    "WINDOW_FIRST",
    "WINDOW_SEEN",
]

LAST, RUN, WINDOW_FIRST, WINDOW_COUNT, WINDOW_SEEN, MOST = range(6)
"""Where the memory of a source holds what is carried from draw to draw: the last byte and the
length of its run, the first byte of the window that goes on, how often it has come, and how many
bytes of the window have. Then the length as of which runs are measured."""

ONES: Final = 8
"""Where eight counts of bits begin: memory that is at hand costs less than new one."""

COUNTS: Final = ONES + 8
"""Where 256 counts of differences begin."""

SMALL_COUNTS: Final = COUNTS + 256
"""Where 1,024 such counts of one byte each begin."""

MARKS: Final = SMALL_COUNTS + 1024 // 8
"""Where the windows that were seen begin."""
