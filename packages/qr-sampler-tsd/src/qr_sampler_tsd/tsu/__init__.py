# SPDX-License-Identifier: Apache-2.0
"""Sampling units: what draws tokens from F(psi).

* :class:`SimTSU` is exact, :class:`ThrmlTSU` runs in thrml (extra ``thrml``).
  So does :class:`ThrmlTreeTSU`, as coupled spins.
* :class:`PBitTreeTSU` and :class:`PBitGibbsTSU` simulate p-bits.
* :func:`named_unit` makes a unit by its name, one of another package included.
"""

from __future__ import annotations

from qr_sampler_tsd.tsu.adapter import TSUAdapter, TSUSamples
from qr_sampler_tsd.tsu.guard import GuardedUnit
from qr_sampler_tsd.tsu.named_units import UNIT_NAMES, named_unit
from qr_sampler_tsd.tsu.pbit_gibbs import PBitGibbsTSU, sweep_law, sweeps_needed
from qr_sampler_tsd.tsu.pbit_tree import PBitTreeTSU
from qr_sampler_tsd.tsu.simulated import SimTSU
from qr_sampler_tsd.tsu.thrml_tree import ThrmlTreeTSU
from qr_sampler_tsd.tsu.thrml_unit import ThrmlTSU

__all__ = [
    "UNIT_NAMES",
    "GuardedUnit",
    "PBitGibbsTSU",
    "PBitTreeTSU",
    "SimTSU",
    "TSUAdapter",
    "TSUSamples",
    "ThrmlTSU",
    "ThrmlTreeTSU",
    "named_unit",
    "sweep_law",
    "sweeps_needed",
]
