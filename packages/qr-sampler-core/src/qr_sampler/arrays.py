# SPDX-License-Identifier: Apache-2.0
"""Array aliases used in annotations throughout the package, and views that nobody writes to."""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ByteBlocks",
    "Distances",
    "FloatArray",
    "IndexArray",
    "Logits",
    "MaskArray",
    "MassArray",
    "read_only",
]

A = TypeVar("A", bound=np.generic)

Logits: TypeAlias = NDArray[np.float32]
"""``[B, V]`` natural-log units; ``-inf`` marks a masked token."""

Distances: TypeAlias = NDArray[np.float32]
"""Logits minus the maximum of their row, at most 0."""

ByteBlocks: TypeAlias = NDArray[np.uint8]
"""``[B, n]`` raw bytes, one block per row."""

FloatArray: TypeAlias = NDArray[np.float64]
IndexArray: TypeAlias = NDArray[np.intp]
MaskArray: TypeAlias = NDArray[np.bool_]

MassArray: TypeAlias = NDArray[np.int64]
"""Totals of fixed-point probability masses, see :mod:`qr_sampler.selection.masses`."""


def read_only(array: NDArray[A]) -> NDArray[A]:
    """Returns a view of *array* that refuses to be written to."""
    view: NDArray[A] = array.view()
    view.flags.writeable = False
    return view
