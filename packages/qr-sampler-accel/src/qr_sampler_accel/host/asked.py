# SPDX-License-Identifier: Apache-2.0
"""What the rows of a batch ask for, as columns of numbers that compiled loops read."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from qr_sampler.arrays import FloatArray, IndexArray
from qr_sampler.rows import RowParameters
from qr_sampler.selection.filters import Filters

__all__ = [
    "FILTER_COLUMNS",
    "MIN_P",
    "NEEDS_TOTAL",
    "TOP_K",
    "TOP_N_SIGMA",
    "TOP_P",
    "TRUNCATE_FIRST",
    "TYPICAL_P",
    "Asked",
    "asked_of",
]

TOP_N_SIGMA: Final = 0
TOP_K: Final = 1
MIN_P: Final = 2
TOP_P: Final = 3
TYPICAL_P: Final = 4
TRUNCATE_FIRST: Final = 5
NEEDS_TOTAL: Final = 6
FILTER_COLUMNS: Final = 7


class Asked(NamedTuple):
    """What B rows ask for, which stays the same while the batch does."""

    filters: FloatArray
    """Shape ``(B, FILTER_COLUMNS)``."""
    lines: IndexArray
    """The indices of all rows. Shape ``(B,)``."""
    deviations: FloatArray
    """As many NaN, the deviations of rows that ask for none. Shape ``(B,)``."""
    asks_deviation: bool
    """Whether any row needs the deviation of its logits."""


def asked_of(rows: RowParameters, vocab_size: int) -> Asked:
    """Returns what B rows of V tokens ask for."""
    filters = _filters(rows, vocab_size)
    count = len(rows)
    asked = Asked(
        filters, np.arange(count), np.full(count, np.nan), bool(filters[:, TOP_N_SIGMA].any())
    )
    # Many may hold on to them.
    for array in asked[:3]:
        array.flags.writeable = False
    return asked


def _filters(rows: RowParameters, vocab_size: int) -> FloatArray:
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
    return np.array(asked, dtype=np.float64).reshape(-1, FILTER_COLUMNS)
