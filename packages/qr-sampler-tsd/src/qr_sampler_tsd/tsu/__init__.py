# SPDX-License-Identifier: Apache-2.0
"""Sampling units: what draws tokens from F(psi).

* :class:`SimTSU` is exact, :class:`ThrmlTSU` runs in thrml (extra ``thrml``).
* :class:`PBitTreeTSU` and :class:`PBitGibbsTSU` simulate p-bits.
"""

from __future__ import annotations

from qr_sampler_tsd.tsu.adapter import TSUAdapter, TSUSamples
from qr_sampler_tsd.tsu.pbit_gibbs import PBitGibbsTSU, sweep_law, sweeps_needed
from qr_sampler_tsd.tsu.pbit_tree import PBitTreeTSU
from qr_sampler_tsd.tsu.simulated import SimTSU
from qr_sampler_tsd.tsu.thrml_unit import ThrmlTSU

__all__ = [
    "PBitGibbsTSU",
    "PBitTreeTSU",
    "SimTSU",
    "TSUAdapter",
    "TSUSamples",
    "ThrmlTSU",
    "sweep_law",
    "sweeps_needed",
]
