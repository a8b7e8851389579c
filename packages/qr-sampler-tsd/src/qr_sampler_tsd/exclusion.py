# SPDX-License-Identifier: Apache-2.0
"""Tokens that a proposal leaves out, and the order of all the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qr_sampler_tsd._typing import TokenArray
from qr_sampler_tsd.errors import PsiError

__all__ = ["excluded_from_bits", "excluded_to_bits", "nth_absent", "sorted_unique_ids"]


def sorted_unique_ids(ids: ArrayLike, vocab_size: int, what: str) -> TokenArray:
    """Returns *ids* in ascending order.

    Args:
        ids: Shape ``(M,)``, integers, each once.
        vocab_size: Every id is in [0, *vocab_size*).
        what: How an error calls them.

    Raises:
        PsiError: For another shape or type, a duplicate, or an id out of range.
    """
    given = np.asarray(ids)
    if given.ndim != 1 or not (given.size == 0 or np.issubdtype(given.dtype, np.integer)):
        raise PsiError(
            f"{what} must be a list of integers, got {given.dtype} of shape {given.shape}"
        )
    ordered = np.sort(given.astype(np.int64))
    if ordered.size and (ordered[0] < 0 or ordered[-1] >= vocab_size):
        wrong = ordered[0] if ordered[0] < 0 else ordered[-1]
        raise PsiError(f"{what} hold the id {wrong}, outside [0, {vocab_size})")
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if repeated.size:
        raise PsiError(f"{what} hold the id {repeated[0]} more than once")
    return ordered


def nth_absent(rank: int | TokenArray, present: TokenArray) -> TokenArray:
    """Returns the ids that are not in *present*, by their rank from 0 in ascending order.

    The number of absent ids below ``present[i]`` is ``present[i] - i``, which never decreases; the
    wanted id is its rank plus the number of present ids that stand before it. O(log M) each.

    Args:
        rank: Any shape, int64, at least 0.
        present: Shape ``(M,)``, ascending, each once.

    Examples:
        >>> nth_absent(np.arange(4), np.array([1, 2, 5])).tolist()
        [0, 3, 4, 6]
    """
    before = np.searchsorted(present - np.arange(present.size), rank, side="right")
    return np.asarray(rank + before, dtype=np.int64)


def excluded_to_bits(excluded: TokenArray, vocab_size: int) -> bytes:
    """Returns one bit per token, set for an excluded one: bit ``i % 8`` of byte ``i // 8``.

    A mask travels beside its payload or is named by reference, never inside it: at V = 151,936 it
    has 18,992 bytes, where a payload of 64 ids has 333.
    """
    flags = np.zeros(vocab_size, dtype=np.bool_)
    flags[excluded] = True
    return np.packbits(flags, bitorder="little").tobytes()


def excluded_from_bits(bits: bytes, vocab_size: int) -> TokenArray:
    """Returns the ids that :func:`excluded_to_bits` has written.

    Raises:
        PsiError: When there are not ``ceil(vocab_size / 8)`` bytes, or bits beyond the vocabulary.
    """
    if len(bits) != (vocab_size + 7) // 8:
        expected = (vocab_size + 7) // 8
        raise PsiError(f"a mask of {vocab_size} tokens has {expected} bytes, got {len(bits)}")
    flags: NDArray[np.uint8] = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")
    if flags[vocab_size:].any():
        raise PsiError(f"the mask sets bits beyond the vocabulary of {vocab_size} tokens")
    return np.flatnonzero(flags[:vocab_size]).astype(np.int64)
