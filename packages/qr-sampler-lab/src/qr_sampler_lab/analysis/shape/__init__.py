# SPDX-License-Identifier: Apache-2.0
"""Do the numbers have the law that they ought to have, all of it?"""

from __future__ import annotations

from qr_sampler_lab.analysis.shape.anderson_darling import (
    anderson_darling,
    anderson_darling_p_value,
)
from qr_sampler_lab.analysis.shape.empirical import EmpiricalLaw
from qr_sampler_lab.analysis.shape.kolmogorov import kolmogorov_smirnov, two_sample_ks
from qr_sampler_lab.analysis.shape.lattice import LatticeLaw, Visibility
from qr_sampler_lab.analysis.shape.spread import tail_test, variance_ratio_test, variance_test

__all__ = [
    "EmpiricalLaw",
    "LatticeLaw",
    "Visibility",
    "anderson_darling",
    "anderson_darling_p_value",
    "kolmogorov_smirnov",
    "tail_test",
    "two_sample_ks",
    "variance_ratio_test",
    "variance_test",
]
