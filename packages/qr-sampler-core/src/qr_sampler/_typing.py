# SPDX-License-Identifier: Apache-2.0
"""The former name of :mod:`qr_sampler.arrays`."""

from __future__ import annotations

from qr_sampler.arrays import (
    ByteBlocks,
    Distances,
    FloatArray,
    IndexArray,
    Logits,
    MaskArray,
    MassArray,
)

__all__ = [
    "ByteBlocks",
    "Distances",
    "FloatArray",
    "IndexArray",
    "Logits",
    "MaskArray",
    "MassArray",
]
