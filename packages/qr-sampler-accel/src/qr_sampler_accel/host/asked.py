# SPDX-License-Identifier: Apache-2.0
"""What the rows of a batch ask for, as columns of numbers that compiled loops read."""

from __future__ import annotations

from typing import Final

import numpy as np

from qr_sampler.arrays import FloatArray
from qr_sampler.rows import RowParameters
from qr_sampler.selection.filters import Filters

__all__ = [
    "COLUMNS",
    "MIN_P",
    "NEEDS_TOTAL",
    "TOP_K",
    "TOP_N_SIGMA",
    "TOP_P",
    "TRUNCATE_FIRST",
    "TYPICAL_P",
    "filters_asked",
]

TOP_N_SIGMA: Final = 0
TOP_K: Final = 1
MIN_P: Final = 2
TOP_P: Final = 3
TYPICAL_P: Final = 4
TRUNCATE_FIRST: Final = 5
NEEDS_TOTAL: Final = 6
COLUMNS: Final = 7


def filters_asked(rows: RowParameters, vocab_size: int) -> FloatArray:
    """Returns the filters of B rows of V tokens. Shape ``(B, COLUMNS)``."""
    filters = [Filters.of(parameters, vocab_size) for parameters in rows.parameters]
    asked = [
        (
            each.top_n_sigma,
            each.top_k,
            each.min_p,
            each.top_p,
            each.typical_p,
            each.truncate_first,
            each.needs_total,
        )
        for each in filters
    ]
    return np.array(asked, dtype=np.float64).reshape(-1, COLUMNS)
