# SPDX-License-Identifier: Apache-2.0
"""One draw for rows of several amplifiers and block lengths."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qr_sampler._typing import ByteBlocks, IndexArray
from qr_sampler.amplification.base import AmplificationResult, SignalAmplifier
from qr_sampler.amplification.byte_sums import block_ones, block_sums

__all__ = ["amplify_groups"]


def amplify_groups(
    data: NDArray[np.uint8],
    sizes: IndexArray,
    groups: Sequence[tuple[SignalAmplifier, IndexArray]],
) -> AmplificationResult:
    """Returns the result of every row, in row order, with nothing left out.

    A batch of one group, the common case, is amplified where it lies, without a copy.

    Args:
        data: The blocks of all rows, one after the other, uint8.
        sizes: Shape ``(B,)``, the length of the block of each row.
        groups: Amplifiers with the rows that they serve, of one block length each. Every row is in
            exactly one group.
    """
    if len(groups) == 1:
        return _complete(groups[0][0], data.reshape(sizes.size, -1))
    starts = np.cumsum(sizes) - sizes
    parts = []
    for amplifier, lines in groups:
        places = np.add.outer(starts[lines], np.arange(sizes[lines[0]]))
        parts.append(_complete(amplifier, data[places]))
    return _interleaved(parts, [lines for _, lines in groups])


def _complete(amplifier: SignalAmplifier, blocks: ByteBlocks) -> AmplificationResult:
    """Amplifies and fills in what the amplifier left out, each array of shape ``(B,)``."""
    result = amplifier.amplify(blocks)
    shape = result.u.shape
    return dataclasses.replace(
        result,
        lattice_step=np.full(shape, result.lattice_step),
        baseline=np.full(shape, result.baseline),
        block_sum=result.block_sum if result.block_sum.size else block_sums(blocks),
        block_ones=result.block_ones if result.block_ones.size else block_ones(blocks),
    )


def _interleaved(
    parts: Sequence[AmplificationResult], lines: Sequence[IndexArray]
) -> AmplificationResult:
    """Puts the results of the groups back into row order."""
    order = np.argsort(np.concatenate(lines))

    def gathered(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])[order]

    names = (field.name for field in dataclasses.fields(AmplificationResult))
    return AmplificationResult(**{name: gathered(name) for name in names})
