# SPDX-License-Identifier: Apache-2.0
"""One draw for rows of several amplifiers and block lengths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qr_sampler.amplification.base import AmplificationResult, SignalAmplifier
from qr_sampler.amplification.byte_sums import BlockCounts
from qr_sampler.arrays import ByteBlocks, IndexArray

__all__ = ["AmplifiedRows", "amplify_groups"]


class AmplifiedRows(NamedTuple):
    """What became of the blocks of B rows, in row order."""

    amplification: AmplificationResult
    """Every array has shape ``(B,)``."""
    sums: IndexArray
    """Shape ``(B,)``, the sums of the bytes."""
    ones: IndexArray
    """Shape ``(B,)``, the numbers of one bits."""


def amplify_groups(
    data: NDArray[np.uint8],
    sizes: IndexArray,
    groups: Sequence[tuple[SignalAmplifier, IndexArray]],
    count: Callable[[ByteBlocks], BlockCounts] = BlockCounts,
) -> AmplifiedRows:
    """Returns u of every row, with nothing left out, and what its block holds.

    A batch of one group, the common case, is amplified where it lies, without a copy.

    Args:
        data: The blocks of all rows, one after the other, uint8.
        sizes: Shape ``(B,)``, the length of the block of each row.
        groups: Amplifiers with the rows that they serve, of one block length each. Every row is in
            exactly one group.
        count: Counts what is in blocks.
    """
    if len(groups) == 1:
        return _amplified(groups[0][0], data.reshape(sizes.size, -1), count)
    starts = np.cumsum(sizes) - sizes
    parts = []
    for amplifier, lines in groups:
        positions = np.add.outer(starts[lines], np.arange(sizes[lines[0]]))
        blocks = data[positions]
        # As read-only as what a source delivers.
        blocks.flags.writeable = False
        parts.append(_amplified(amplifier, blocks, count))
    return _interleaved(parts, [lines for _, lines in groups])


def _amplified(
    amplifier: SignalAmplifier, blocks: ByteBlocks, count: Callable[[ByteBlocks], BlockCounts]
) -> AmplifiedRows:
    counts = count(blocks)
    u, statistic, lattice_step, baseline = amplifier.amplify(blocks, counts)
    result = AmplificationResult(
        u, statistic, _one_per_row(lattice_step, u.size), _one_per_row(baseline, u.size)
    )
    return AmplifiedRows(result, counts.sums, counts.ones)


def _one_per_row(value: Any, rows: int) -> NDArray[Any]:
    """Returns *value*, repeated if all rows share it."""
    if getattr(value, "ndim", 0):
        array: NDArray[Any] = value
        return array
    plain = value.item() if isinstance(value, np.ndarray) else value
    # Every NaN is another key, but this one.
    return _repeated(math.nan if plain != plain else plain, rows)


@lru_cache(maxsize=64)
def _repeated(value: float | str, count: int) -> NDArray[Any]:
    """Returns *count* times the same value, in an array that nobody can change."""
    repeated = np.full(count, value)
    repeated.flags.writeable = False
    return repeated


def _interleaved(parts: Sequence[AmplifiedRows], lines: Sequence[IndexArray]) -> AmplifiedRows:
    """Puts the results of the groups back into row order."""
    order = np.argsort(np.concatenate(lines))

    def gathered(arrays: Iterable[NDArray[Any]]) -> Any:
        return np.concatenate(list(arrays))[order]

    return AmplifiedRows(
        AmplificationResult(
            *map(gathered, zip(*(part.amplification for part in parts), strict=True))
        ),
        gathered(part.sums for part in parts),
        gathered(part.ones for part in parts),
    )
