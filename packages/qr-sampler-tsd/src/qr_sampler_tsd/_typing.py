# SPDX-License-Identifier: Apache-2.0
"""Array aliases used in annotations throughout the package."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["FloatArray", "IdArray", "ScoreCodes", "SingleArray", "TokenArray"]

FloatArray: TypeAlias = NDArray[np.float64]

SingleArray: TypeAlias = NDArray[np.float32]
"""Learned weights and what is computed of them."""

TokenArray: TypeAlias = NDArray[np.int64]
"""Token ids as computations use them."""

IdArray: TypeAlias = NDArray[np.int32]
"""Token ids as payloads carry them."""

ScoreCodes: TypeAlias = NDArray[np.int8]
"""Quantised scores."""
