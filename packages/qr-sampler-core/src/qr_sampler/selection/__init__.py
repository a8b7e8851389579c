# SPDX-License-Identifier: Apache-2.0
"""Token selection: from a uniform number to a quantile of the ordered distribution."""

from __future__ import annotations

from qr_sampler.selection.masses import MASS_UNIT, ceil_products, fixed_point_masses
from qr_sampler.selection.selector import SelectionPlan, SelectionResult, TokenSelector

__all__ = [
    "MASS_UNIT",
    "SelectionPlan",
    "SelectionResult",
    "TokenSelector",
    "ceil_products",
    "fixed_point_masses",
]
