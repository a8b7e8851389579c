# SPDX-License-Identifier: Apache-2.0
"""Token selection: from a uniform number to a quantile of the ordered distribution."""

from __future__ import annotations

from qr_sampler.selection.fast.selector import FastSelector
from qr_sampler.selection.filters import Filters
from qr_sampler.selection.laws import Residual, RowLaws, SparseLaw
from qr_sampler.selection.masses import (
    ceil_product,
    ceil_products,
    distances,
    exponentials,
    fixed_point_masses,
    unit_exponent,
)
from qr_sampler.selection.reference import ReferenceSelector
from qr_sampler.selection.selector import Measurement, SelectionResult, Selector

__all__ = [
    "FastSelector",
    "Filters",
    "Measurement",
    "ReferenceSelector",
    "Residual",
    "RowLaws",
    "SelectionResult",
    "Selector",
    "SparseLaw",
    "ceil_product",
    "ceil_products",
    "distances",
    "exponentials",
    "fixed_point_masses",
    "unit_exponent",
]
