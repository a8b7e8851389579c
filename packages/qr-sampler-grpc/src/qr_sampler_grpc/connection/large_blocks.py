# SPDX-License-Identifier: Apache-2.0
"""Memory for large answers that the C library keeps instead of asking the kernel every time."""

from __future__ import annotations

from typing import Final

__all__ = ["keep_large_blocks"]

_BLOCK_BYTES: Final = 4 * 2**20


def keep_large_blocks() -> None:
    """Lets the memory of one large answer be reused for the next.

    glibc gives freed memory back when there is more of it than twice the largest mapped block
    that was freed before (``M_MMAP_THRESHOLD`` in mallopt(3)). A few copies of an answer are more
    than twice an answer, so each would be given back and come again one page fault per 4 KiB,
    which takes longer than the copies. After this call a thread's share of the heap keeps up to
    8 MiB. The block is never written to, so it occupies no memory; other C libraries ignore it.
    """
    bytes(_BLOCK_BYTES)
